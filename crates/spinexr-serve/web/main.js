// The reader: which film is open, what the keys and buttons do, and saving.

import * as api from "./api.js";
import { modelBoxes, showModelBoxes, showMyBoxes, showOthers, showVerdict } from "./findings.js";
import { KEYS, actOf } from "./keys.js";
import { Pane } from "./pane.js";
import * as readings from "./reading.js";
import { showStudies } from "./studies.js";

const find = (id) => document.getElementById(id);
const SAVE_AFTER_MS = 800;
const REFRESH_MS = 10000;

const state = {
  films: [],
  /** { name, hash, demonstration, display_score } */
  model: {},
  shown: [],
  labels: [],
  /** { id, record, history, version, evidence, others, threshold } of the film that the right column is about. */
  open: null,
  /** Film id to pane. */
  panes: new Map(),
  chosen: null,
  tool: "select",
  hasBoxes: true,
  /** Whose evidence is shown: "film", "boxes" or null. */
  evidence: null,
  isBeside: false,
  /** Film id to what waits to be saved. */
  unsaved: new Map(),
  isSaving: false,
};

// --- messages -------------------------------------------------------------------------------------------------------

let messageTimer;
function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401 || error.status === 403) signIn(error.message);
  const place = find("message");
  place.textContent = error.message;
  place.hidden = false;
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => (place.hidden = true), 8000);
}

function saved(text) {
  find("saved").textContent = text;
}

// --- signing in -----------------------------------------------------------------------------------------------------

function signIn(why) {
  const dialog = find("sign-in");
  if (dialog.open) return;
  find("sign-in-why").textContent = why ?? "";
  find("reader-name").value = api.identity.reader;
  dialog.showModal();
}

find("sign-in").addEventListener("close", () => {
  const name = find("reader-name").value.trim();
  if (!name) return signIn("A reading needs a reader's name.");
  api.identity.set(name, find("token").value);
  find("token").value = "";
  start();
});
find("sign-in").addEventListener("cancel", (event) => event.preventDefault());
find("leave").addEventListener("click", async () => {
  await saveAll();
  api.identity.forget();
  location.reload();
});

// --- films ----------------------------------------------------------------------------------------------------------

async function refresh() {
  const { films, labels, model } = await api.films();
  for (const film of films) film.reading = state.unsaved.get(film.id)?.reading.state ?? film.reading;
  state.films = films;
  state.model = model;
  if (labels.join() !== state.labels.join()) {
    state.labels = labels;
    find("label").replaceChildren(...labels.map((label) => new Option(label, label)));
  }
  find("model").textContent = `${model.name}${model.demonstration ? " (demonstration: trained on synthetic films)" : ""}`;
  listFilms();
}

function listFilms() {
  state.shown = showStudies(state.films, state.open?.id, open);
}

/** Where the slider begins: at the score that validation chose for showing boxes; above all boxes of a film that is normal. */
function firstThreshold(record) {
  const boxes = record?.boxes ?? [];
  if (boxes.length === 0) return 1;
  return state.model.display_score ?? Math.min(...boxes.map((box) => box.score));
}

async function open(id) {
  if (!state.panes.has(id)) closePanes();
  try {
    const film = await api.film(id);
    state.open = {
      ...film,
      id,
      history: new readings.History(film.reading ?? readings.emptyReading()),
      threshold: firstThreshold(film.record),
    };
    state.chosen = null;
    saved(film.reading ? "Saved" : "");
    const beside = state.isBeside ? state.films.filter((other) => other.study === film.study).slice(0, 4) : [];
    const wanted = beside.length > 1 ? beside.map((other) => other.id) : [id];
    if (wanted.join() !== [...state.panes.keys()].join()) showPanes(wanted);
    listFilms();
    document.querySelector('#studies [aria-current="true"]')?.scrollIntoView({ block: "nearest" });
    await showEvidence();
    show();
  } catch (error) {
    complain(error);
  }
}

function closePanes() {
  for (const pane of state.panes.values()) pane.close();
  state.panes.clear();
}

function showPanes(ids) {
  closePanes();
  for (const id of ids) {
    const pane = new Pane(find("panes"), {
      activated: () => state.open?.id !== id && open(id),
      drawn: (xyxy) => {
        change(readings.addBox(reading(), find("label").value, xyxy));
        choose(reading().boxes.at(-1).id);
      },
      placed: (box, xyxy) => change(readings.placeBox(reading(), box, xyxy)),
      chosen: choose,
    });
    pane.setTool(state.tool);
    state.panes.set(id, pane);
    loadPixels(id, pane);
  }
}

async function loadPixels(id, pane) {
  const film = state.films.find((other) => other.id === id);
  pane.abort = new AbortController();
  try {
    const pixels = await api.pixels(id, pane.abort.signal);
    pane.setFilm(pixels, [film?.body_part, film?.view].filter(Boolean).join(" ") || film?.image || "");
  } catch (error) {
    pane.say(`The film cannot be shown. ${error.message}`);
    complain(error);
  }
}

async function showEvidence() {
  const { open: film, evidence: of } = state;
  if (film?.evidence.includes(of) && !film.pictures?.[of]) {
    film.pictures = { ...film.pictures, [of]: await api.evidence(film.id, of) };
  }
}

// --- the reading ----------------------------------------------------------------------------------------------------

function reading() {
  return state.open.history.now;
}

function change(next) {
  // A reading that was complete is open again as soon as it is changed.
  const isReopened = reading().state === "complete" && next.state === "complete";
  state.open.history.change(isReopened ? readings.setState(next, "draft") : next);
  afterChange();
}

function afterChange() {
  if (!reading().boxes.some((box) => box.id === state.chosen) && state.chosen?.startsWith("b")) state.chosen = null;
  state.unsaved.set(state.open.id, { film: state.open, reading: reading() });
  saved("Not saved yet");
  const row = state.films.find((film) => film.id === state.open.id);
  if (row) row.reading = reading().state;
  listFilms();
  show();
  clearTimeout(state.timer);
  state.timer = setTimeout(saveAll, SAVE_AFTER_MS);
}

/** Sends what is not saved, one after the other; what fails is kept and tried again. */
async function saveAll() {
  if (state.isSaving) return;
  state.isSaving = true;
  try {
    while (state.unsaved.size > 0) {
      const [id, waiting] = state.unsaved.entries().next().value;
      saved("Saving…");
      waiting.film.version = await api.save(id, waiting.reading, waiting.film.version);
      if (state.unsaved.get(id) === waiting) state.unsaved.delete(id);
    }
    saved("Saved");
  } catch (error) {
    saved("Not saved");
    complain(error);
    if (error.status === 412) state.unsaved.clear(); // another window of this reader has saved; opening again shows it
    else if (error.status === 0 || error.status >= 500) state.timer = setTimeout(saveAll, REFRESH_MS);
  } finally {
    state.isSaving = false;
  }
}

addEventListener("pagehide", saveAll);
addEventListener("beforeunload", (event) => state.unsaved.size > 0 && event.preventDefault());

function choose(key) {
  state.chosen = key;
  show();
}

async function complete() {
  if (reading().state === "complete") return change(readings.setState(reading(), "draft"));
  const why = readings.whyIncomplete(reading());
  if (why) return complain(new Error(why));
  state.open.history.change(readings.setState(reading(), "complete"));
  afterChange();
  clearTimeout(state.timer);
  await saveAll();
  if (state.unsaved.size > 0) return;
  const next = state.shown[state.shown.findIndex((film) => film.id === state.open.id) + 1];
  await open(next ? next.id : state.open.id);
}

// --- showing --------------------------------------------------------------------------------------------------------

function visibleModelBoxes() {
  const taken = new Set(reading().boxes.map((box) => box.from));
  return modelBoxes(state.open.record).filter((box) => box.score >= state.open.threshold && !taken.has(box.key));
}

function show() {
  const { open: film } = state;
  find("mine").hidden = !film?.record && film?.state !== "done";
  if (!film) return;
  showVerdict(film);
  const visible = visibleModelBoxes();
  const rejected = new Set(reading().rejected.map(readings.modelKey));
  find("threshold").value = film.threshold;
  find("threshold-value").textContent = film.threshold.toFixed(2);
  showModelBoxes(visible, rejected, state.chosen, film.record?.boxes_before_gate?.length ?? 0, {
    choose,
    accept,
    reject: (box) => change(readings.rejectBox(reading(), box)),
    reconsider: (box) => change(readings.reconsiderBox(reading(), box)),
  });
  showMyBoxes(reading().boxes, state.labels, state.chosen, {
    choose,
    relabel: (id, label) => change(readings.relabelBox(reading(), id, label)),
    remove: (id) => change(readings.removeBox(reading(), id)),
  });
  showOthers(film.others);
  find("no-finding").checked = reading().no_finding;
  const isComplete = reading().state === "complete";
  find("my-state").textContent = isComplete ? "complete" : reading().boxes.length || reading().no_finding ? "draft" : "";
  find("complete").textContent = isComplete ? "Open again" : "Complete (Enter)";
  const layers = !state.hasBoxes ? [] : [
    { kind: "other", boxes: film.others.flatMap(({ reader, reading: other }) => other.boxes.map((box) => ({ ...box, reader }))) },
    { kind: "model", boxes: visible.filter((box) => !rejected.has(box.key)) },
    { kind: "mine", boxes: reading().boxes },
  ];
  for (const [id, pane] of state.panes) {
    pane.element.classList.toggle("active", id === film.id && state.panes.size > 1);
    const isOpen = id === film.id;
    pane.show(isOpen ? layers : [], isOpen ? state.chosen : null, isOpen ? (film.pictures?.[state.evidence] ?? null) : null);
  }
  for (const button of document.querySelectorAll(".tools button")) {
    const { tool, act } = button.dataset;
    const isOn = { evidence: state.evidence !== null, beside: state.isBeside, boxes: state.hasBoxes }[act] ?? tool === state.tool;
    if (tool || ["evidence", "beside", "boxes"].includes(act)) button.setAttribute("aria-pressed", isOn);
    if (act === "undo") button.disabled = film.history.past.length === 0;
    if (act === "redo") button.disabled = film.history.future.length === 0;
    if (act === "evidence") button.disabled = film.evidence.length === 0;
  }
}

function accept(box) {
  change(readings.acceptBox(reading(), box));
  choose(reading().boxes.at(-1).id);
}

// --- acts -----------------------------------------------------------------------------------------------------------

function chosenModelBox() {
  return visibleModelBoxes().find((box) => box.key === state.chosen);
}

function chooseNext() {
  const keys = [...visibleModelBoxes().map((box) => box.key), ...reading().boxes.map((box) => box.id)];
  if (keys.length > 0) choose(keys[(keys.indexOf(state.chosen) + 1) % keys.length]);
}

function pickLabel(number) {
  const label = state.labels[number - 1];
  if (!label) return;
  find("label").value = label;
  const isMine = reading().boxes.some((box) => box.id === state.chosen);
  if (isMine) change(readings.relabelBox(reading(), state.chosen, label));
}

function step(by) {
  const next = state.shown[state.shown.findIndex((film) => film.id === state.open?.id) + by];
  if (next) open(next.id);
}

function setThreshold(value) {
  state.open.threshold = Math.min(Math.max(value, 0), 1);
  show();
}

async function act(name) {
  const pane = state.panes.get(state.open?.id);
  const [verb, what] = name.split(" ");
  if (name === "help") return find("keys").showModal();
  if (name === "next film") return step(1);
  if (name === "previous film") return step(-1);
  if (!state.open || !pane) return undefined;
  const { history } = state.open;
  switch (verb) {
    case "tool":
      state.tool = what;
      for (const other of state.panes.values()) other.setTool(what);
      return show();
    case "label":
      return pickLabel(Number(what));
    case "raise":
      return setThreshold(state.open.threshold + 0.05);
    case "lower":
      return setThreshold(state.open.threshold - 0.05);
    case "fit":
      return pane.fit();
    case "actual":
      return pane.actual();
    case "invert":
      return pane.invert();
    case "reset":
      return pane.resetWindow();
    case "boxes":
      state.hasBoxes = !state.hasBoxes;
      return show();
    case "evidence":
      // The film's, then its boxes', then none.
      state.evidence = state.open.evidence[state.open.evidence.indexOf(state.evidence) + 1] ?? null;
      await showEvidence();
      return show();
    case "beside":
      state.isBeside = !state.isBeside;
      closePanes();
      return open(state.open.id);
    case "accept":
      return chosenModelBox() && accept(chosenModelBox());
    case "reject":
      return chosenModelBox() && change(readings.rejectBox(reading(), chosenModelBox()));
    case "next":
      return chooseNext();
    case "delete":
      return reading().boxes.some((box) => box.id === state.chosen) && change(readings.removeBox(reading(), state.chosen));
    case "no":
      return change(readings.setNoFinding(reading(), !reading().no_finding));
    case "complete":
      return complete();
    case "undo":
      return history.undo() && afterChange();
    case "redo":
      return history.redo() && afterChange();
    default:
      return undefined;
  }
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (isTyping || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && event.target.matches("button")) return;
  const name = actOf(event);
  if (!name) return;
  event.preventDefault();
  Promise.resolve(act(name)).catch(complain);
});
for (const button of document.querySelectorAll(".tools button")) {
  const { tool, act: name } = button.dataset;
  button.addEventListener("click", () => Promise.resolve(act(tool ? `tool ${tool}` : name)).catch(complain));
}
find("threshold").addEventListener("input", (event) => state.open && setThreshold(Number(event.target.value)));
find("no-finding").addEventListener("change", (event) => state.open && change(readings.setNoFinding(reading(), event.target.checked)));
find("complete").addEventListener("click", () => state.open && complete().catch(complain));
find("search").addEventListener("input", listFilms);
find("filter").addEventListener("change", listFilms);
for (const [key, words] of KEYS) {
  const [dt, dd, kbd] = ["dt", "dd", "kbd"].map((name) => document.createElement(name));
  kbd.textContent = key;
  dt.append(kbd);
  dd.textContent = words;
  find("key-list").append(dt, dd);
}

// --- start ----------------------------------------------------------------------------------------------------------

async function start() {
  if (!api.identity.reader) return signIn();
  find("who").textContent = api.identity.reader;
  try {
    await refresh();
    if (!state.open && state.shown.length > 0) await open(state.shown[0].id);
  } catch (error) {
    complain(error);
  }
  return undefined;
}

setInterval(() => {
  if (api.identity.reader && !document.hidden && !document.querySelector("dialog[open]")) refresh().catch(() => {});
}, REFRESH_MS);
start();
