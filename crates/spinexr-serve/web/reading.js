// A reader's reading of one film: plain data, changed only by functions that give a new one, so that undo is a list.
//
// { state: "draft" | "complete", no_finding: bool,
//   boxes: [{ id, label, xyxy, origin: "reader" | "model", score?, from? }], rejected: [{ label, score, xyxy }] }
// Boxes are [x1, y1, x2, y2] in film pixels.

/** Boxes smaller than this in either direction are slips of the hand, film px. */
export const LEAST_SIDE_PX = 3;

export function emptyReading() {
  return { state: "draft", no_finding: false, boxes: [], rejected: [] };
}

/** What names a box of the model on a film. */
export function modelKey(box) {
  return `${box.label}|${box.xyxy.join(",")}`;
}

/** Corners in order, inside a film. */
export function properBox([x1, y1, x2, y2], width, height) {
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  return [
    within(Math.min(x1, x2), width),
    within(Math.min(y1, y2), height),
    within(Math.max(x1, x2), width),
    within(Math.max(y1, y2), height),
  ];
}

export function isLargeEnough([x1, y1, x2, y2]) {
  return x2 - x1 >= LEAST_SIDE_PX && y2 - y1 >= LEAST_SIDE_PX;
}

function nextId(reading) {
  const numbers = reading.boxes.map((box) => Number(box.id.slice(1))).filter(Number.isFinite);
  return `b${Math.max(0, ...numbers) + 1}`;
}

export function addBox(reading, label, xyxy) {
  const box = { id: nextId(reading), label, xyxy, origin: "reader" };
  return { ...reading, no_finding: false, boxes: [...reading.boxes, box] };
}

export function removeBox(reading, id) {
  return { ...reading, boxes: reading.boxes.filter((box) => box.id !== id) };
}

function changeBox(reading, id, change) {
  return { ...reading, boxes: reading.boxes.map((box) => (box.id === id ? { ...box, ...change } : box)) };
}

export function placeBox(reading, id, xyxy) {
  return changeBox(reading, id, { xyxy });
}

export function relabelBox(reading, id, label) {
  return changeBox(reading, id, { label });
}

/** Takes a box of the model over; it is the reader's from then on and can be changed. */
export function acceptBox(reading, model) {
  const { label, score, xyxy } = model;
  const box = { id: nextId(reading), label, xyxy: [...xyxy], origin: "model", score, from: modelKey(model) };
  const rejected = reading.rejected.filter((other) => modelKey(other) !== modelKey(model));
  return { ...reading, no_finding: false, rejected, boxes: [...reading.boxes, box] };
}

export function rejectBox(reading, { label, score, xyxy }) {
  return { ...reading, rejected: [...reading.rejected, { label, score, xyxy: [...xyxy] }] };
}

/** Takes back that a box of the model was rejected. */
export function reconsiderBox(reading, model) {
  const rejected = reading.rejected.filter((other) => modelKey(other) !== modelKey(model));
  return { ...reading, rejected };
}

/** Says that there is nothing to find, which no box contradicts. */
export function setNoFinding(reading, value) {
  return { ...reading, no_finding: value, boxes: value ? [] : reading.boxes };
}

export function setState(reading, state) {
  return { ...reading, state };
}

/** Why a reading cannot be completed, or nothing. */
export function whyIncomplete(reading) {
  if (reading.boxes.length === 0 && !reading.no_finding) {
    return "Draw or accept a box, or tick “No finding”.";
  }
  return null;
}

/** A reading with its past and its undone future. */
export class History {
  constructor(reading) {
    this.past = [];
    this.now = reading;
    this.future = [];
  }

  change(reading) {
    this.past.push(this.now);
    this.now = reading;
    this.future = [];
  }

  undo() {
    if (this.past.length === 0) return false;
    this.future.push(this.now);
    this.now = this.past.pop();
    return true;
  }

  redo() {
    if (this.future.length === 0) return false;
    this.past.push(this.now);
    this.now = this.future.pop();
    return true;
  }
}
