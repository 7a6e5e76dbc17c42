// Keys: what each does, in the words of the help page.

export const KEYS = [
  ["V", "select and change boxes", "tool select"],
  ["D", "draw a box", "tool draw"],
  ["W", "window and level (right button with any tool)", "tool window"],
  ["M", "move the film (middle button with any tool; wheel zooms)", "tool pan"],
  ["F", "whole film", "fit"],
  ["O", "one film pixel a screen pixel", "actual"],
  ["I", "invert", "invert"],
  ["R", "the film's own window", "reset"],
  ["G", "where the model's evidence lies: for abnormal, for the boxes, hidden", "evidence"],
  ["S", "views of the study side by side", "beside"],
  ["B", "show or hide boxes", "boxes"],
  ["A", "accept the chosen box of the model", "accept"],
  ["X", "reject the chosen box of the model", "reject"],
  ["Tab", "next box", "next box"],
  ["Delete", "delete the chosen box", "delete"],
  ["1 … 9", "finding to draw, or of the chosen box", null],
  ["N", "no finding", "no finding"],
  ["[ ]", "fewer or more boxes of the model", null],
  ["↓ ↑", "next, previous film", null],
  ["Enter", "complete the reading and go on", "complete"],
  ["Ctrl+Z", "undo (Ctrl+Shift+Z: redo)", null],
  ["?", "this page", "help"],
];

/** The act of a key press, or null. */
export function actOf(event) {
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z") return null;
    return event.shiftKey ? "redo" : "undo";
  }
  if (event.altKey) return null;
  if (/^[1-9]$/.test(event.key)) return `label ${event.key}`;
  const others = { "[": "raise threshold", "]": "lower threshold", ArrowDown: "next film", ArrowUp: "previous film", Backspace: "delete" };
  if (event.key in others) return others[event.key];
  const known = KEYS.find(([key, , act]) => act && key.toLowerCase() === event.key.toLowerCase());
  return known ? known[2] : null;
}
