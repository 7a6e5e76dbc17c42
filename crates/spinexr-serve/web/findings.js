// The column on the right: the model's verdict, its boxes, the reader's boxes, other readers.

import { modelKey } from "./reading.js";

const find = (id) => document.getElementById(id);
const percent = (share) => `${(share * 100).toFixed(1)} %`;

function item(parent, classes) {
  const li = document.createElement("li");
  li.className = classes.filter(Boolean).join(" ");
  parent.append(li);
  return li;
}

function nothing(parent, text) {
  item(parent, ["nothing"]).textContent = text;
}

function button(parent, text, title, onClick) {
  const made = document.createElement("button");
  Object.assign(made, { textContent: text, title });
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    onClick();
  });
  parent.append(made);
}

/** p(abnormal) beside the threshold that validation gave. */
export function showVerdict(film) {
  const place = find("verdict");
  place.replaceChildren();
  const words = document.createElement("div");
  words.className = "verdict";
  place.append(words);
  const { record } = film;
  if (!record) {
    words.textContent = film.error ?? "Not read yet";
    return;
  }
  if (film.is_model_hidden) {
    words.textContent = "The model's result is hidden until the reading is complete";
    return;
  }
  const { p_abnormal: p, threshold } = record;
  if (p === null) {
    words.textContent = "No classifier: boxes only";
    return;
  }
  const hasThreshold = threshold !== null;
  const isAbnormal = hasThreshold && p >= threshold;
  const verdict = isAbnormal ? "Abnormal" : "Normal";
  words.textContent = hasThreshold ? verdict : "No threshold was chosen";
  const bar = document.createElement("div");
  bar.className = `bar${isAbnormal ? " abnormal" : ""}`;
  const fill = document.createElement("i");
  fill.style.width = `${p * 100}%`;
  bar.append(fill);
  if (hasThreshold) {
    const mark = document.createElement("b");
    mark.style.left = `${threshold * 100}%`;
    bar.append(mark);
  }
  const figures = document.createElement("div");
  figures.className = "quiet";
  figures.textContent = `p(abnormal) ${percent(p)}${hasThreshold ? `, threshold c* ${percent(threshold)}` : ""}`;
  place.append(bar, figures);
}

/** The model's boxes from the slider's score on. `on`: choose, accept, reject, reconsider. */
export function showModelBoxes(boxes, rejected, chosen, total, on) {
  const list = find("model-boxes");
  list.replaceChildren();
  find("model-count").textContent = total === 0 ? "" : `${boxes.length} of ${total} boxes`;
  for (const box of boxes) {
    const isRejected = rejected.has(box.key);
    const li = item(list, [box.key === chosen && "chosen", isRejected && "rejected"]);
    li.append(`${box.label} ${Math.round(box.score * 100)} %`);
    li.addEventListener("click", () => on.choose(box.key));
    if (isRejected) {
      button(li, "Undo", "Take the rejection back", () => on.reconsider(box));
    } else {
      button(li, "Accept", "Take this box over (A)", () => on.accept(box));
      button(li, "Reject", "Say that this box is wrong (X)", () => on.reject(box));
    }
  }
  if (boxes.length === 0) nothing(list, total === 0 ? "No box" : "No box from this score on");
}

/** The reader's boxes. `on`: choose, relabel, remove. */
export function showMyBoxes(boxes, labels, chosen, on) {
  const list = find("my-boxes");
  list.replaceChildren();
  for (const box of boxes) {
    const li = item(list, [box.id === chosen && "chosen"]);
    li.dataset.id = box.id;
    li.addEventListener("click", () => on.choose(box.id));
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Finding of this box");
    for (const label of labels) select.add(new Option(label, label, false, label === box.label));
    select.addEventListener("change", () => on.relabel(box.id, select.value));
    li.append(select);
    button(li, "×", "Delete (Del)", () => on.remove(box.id));
  }
  if (boxes.length === 0) nothing(list, "No box");
}

/** Readings of others, which the service gives once mine is complete. */
export function showOthers(others) {
  find("others").hidden = others.length === 0;
  const list = find("other-readings");
  list.replaceChildren();
  for (const { reader, reading } of others) {
    const found = reading.boxes.map((box) => box.label).join(", ");
    item(list, []).textContent = `${reader}: ${reading.no_finding ? "no finding" : found || "nothing yet"}`;
  }
}

export function modelBoxes(record) {
  return (record?.boxes_before_gate ?? []).map((box) => ({ ...box, key: modelKey(box) }));
}
