// From film pixels to the screen and back, and which part of a box the pointer is on.
//
// A view is { scale, x, y }: a film point (u, v) lies at (x + scale·u, y + scale·v), CSS px from the pane's corner.

export const SCALE_MIN = 0.02;
export const SCALE_MAX = 40;

/** The whole film in the middle of a pane. */
export function fitView(film, pane) {
  const scale = Math.min(pane.width / film.width, pane.height / film.height) || 1;
  return { scale, x: (pane.width - scale * film.width) / 2, y: (pane.height - scale * film.height) / 2 };
}

/** Zoomed by a factor so that the film point under (x, y) stays there. */
export function zoomAt(view, factor, x, y) {
  const scale = Math.min(Math.max(view.scale * factor, SCALE_MIN), SCALE_MAX);
  const ratio = scale / view.scale;
  return { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
}

export function toFilm(view, [x, y]) {
  return [(x - view.x) / view.scale, (y - view.y) / view.scale];
}

export function toScreen(view, [u, v]) {
  return [view.x + view.scale * u, view.y + view.scale * v];
}

/** Handles of a box: name, place in shares of its sides, pointer's shape. */
export const HANDLES = [
  ["nw", 0, 0, "nwse-resize"],
  ["n", 0.5, 0, "ns-resize"],
  ["ne", 1, 0, "nesw-resize"],
  ["e", 1, 0.5, "ew-resize"],
  ["se", 1, 1, "nwse-resize"],
  ["s", 0.5, 1, "ns-resize"],
  ["sw", 0, 1, "nesw-resize"],
  ["w", 0, 0.5, "ew-resize"],
];

/** The box after its part `part` ("move" or a handle's name) went by (du, dv), film px; corners may have crossed. */
export function dragged([x1, y1, x2, y2], part, du, dv, film) {
  if (part === "move") {
    const left = Math.min(Math.max(du, -x1), film.width - x2);
    const down = Math.min(Math.max(dv, -y1), film.height - y2);
    return [x1 + left, y1 + down, x2 + left, y2 + down];
  }
  return [
    part.includes("w") ? x1 + du : x1,
    part.includes("n") ? y1 + dv : y1,
    part.includes("e") ? x2 + du : x2,
    part.includes("s") ? y2 + dv : y2,
  ];
}
