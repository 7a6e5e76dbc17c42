// One film on the screen: its pixels, its boxes, and what the pointer does to them.

import { HANDLES, dragged, fitView, toFilm, toScreen, zoomAt } from "./geometry.js";
import { Painter } from "./painter.js";
import { isLargeEnough, properBox } from "./reading.js";

const SVG = "http://www.w3.org/2000/svg";
const HANDLE_PX = 5;

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

function percent(score) {
  return score === undefined ? "" : ` ${Math.round(score * 100)} %`;
}

/**
 * `on` tells the page what the reader did: drawn(xyxy), placed(id, xyxy), chosen(box or null), activated(), failed(error).
 * Boxes to show come by `show`; the pane keeps no reading of its own.
 */
export class Pane {
  constructor(parent, on) {
    this.on = on;
    this.element = document.createElement("div");
    this.element.className = "pane";
    this.element.innerHTML =
      '<canvas></canvas><svg></svg><div class="corner top"></div><div class="corner bottom"></div><div class="empty">Loading…</div>';
    parent.append(this.element);
    this.svg = this.element.querySelector("svg");
    this.corner = this.element.querySelector(".corner.bottom");
    this.title = this.element.querySelector(".corner.top");
    this.empty = this.element.querySelector(".empty");
    this.painter = new Painter(this.element.querySelector("canvas"));
    this.tool = "select";
    this.layers = [];
    this.chosen = null;
    this.evidence = null;
    this.pointer = null;
    this.drag = null;
    this.resized = new ResizeObserver(() => this.onResize());
    this.resized.observe(this.element);
    this.listen();
  }

  close() {
    this.resized.disconnect();
    this.abort?.abort();
    this.element.remove();
  }

  say(text) {
    this.empty.textContent = text;
    this.empty.hidden = !text;
  }

  /** `film`: { width, height, values, low, high, inverted }. */
  setFilm(film, title) {
    this.painter.setFilm(film);
    this.film = film;
    this.title.textContent = title;
    this.say("");
    this.resetWindow();
    this.fit();
  }

  resetWindow() {
    if (!this.film) return;
    this.window = { low: this.film.low, high: this.film.high };
    this.inverted = this.film.inverted;
    this.draw();
  }

  fit() {
    if (!this.film) return;
    this.view = fitView(this.film, this.size());
    this.isFitted = true;
    this.draw();
  }

  actual() {
    if (!this.film) return;
    const { width, height } = this.size();
    this.zoom(1 / (globalThis.devicePixelRatio || 1) / this.view.scale, width / 2, height / 2);
  }

  invert() {
    this.inverted = !this.inverted;
    this.draw();
  }

  /** Layers from below to above: [{ kind: "model" | "mine" | "other", boxes }]. */
  show(layers, chosen, evidence) {
    this.layers = layers;
    this.chosen = chosen;
    this.evidence = evidence;
    this.draw();
  }

  setTool(tool) {
    this.tool = tool;
    this.element.style.cursor = { draw: "crosshair", pan: "grab", window: "ns-resize" }[tool] ?? "default";
  }

  size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  onResize() {
    if (this.film && this.isFitted) this.view = fitView(this.film, this.size());
    this.draw();
  }

  zoom(factor, x, y) {
    this.view = zoomAt(this.view, factor, x, y);
    this.isFitted = false;
    this.draw();
  }

  /** Paints once before the next frame, however often it is asked. */
  draw() {
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.paint();
    });
  }

  paint() {
    if (!this.film) return;
    this.painter.paint(this.view, this.window, this.inverted);
    this.paintBoxes();
    this.paintCorner();
  }

  paintCorner() {
    const { low, high } = this.window;
    const parts = [
      `zoom ${Math.round(this.view.scale * (globalThis.devicePixelRatio || 1) * 100)} %`,
      `window ${Math.round(high - low)}  level ${Math.round((low + high) / 2)}${this.inverted ? "  inverted" : ""}`,
    ];
    if (this.pointer) {
      const [u, v] = toFilm(this.view, this.pointer).map(Math.floor);
      const isInside = u >= 0 && v >= 0 && u < this.film.width && v < this.film.height;
      if (isInside) parts.unshift(`(${u}, ${v})  ${this.film.values[v * this.film.width + u]}`);
    }
    this.corner.textContent = parts.join("\n");
  }

  paintBoxes() {
    this.svg.replaceChildren();
    if (this.evidence) {
      const [x, y] = toScreen(this.view, [0, 0]);
      const [width, height] = [this.film.width, this.film.height].map((side) => side * this.view.scale);
      svg("image", { href: this.evidence, x, y, width, height, preserveAspectRatio: "none" }, this.svg);
    }
    for (const layer of this.layers) {
      const group = svg("g", { class: layer.kind }, this.svg);
      for (const box of layer.boxes) this.paintBox(group, layer.kind, box);
    }
    if (this.drag?.drawn) {
      this.paintBox(svg("g", { class: "mine" }, this.svg), "mine", { label: "", xyxy: this.drag.drawn });
    }
  }

  paintBox(group, kind, box) {
    const isDragged = this.drag?.box && this.drag.box.id === box.id && kind === "mine";
    const xyxy = isDragged ? this.drag.xyxy : box.xyxy;
    const [x1, y1] = toScreen(this.view, [Math.min(xyxy[0], xyxy[2]), Math.min(xyxy[1], xyxy[3])]);
    const [x2, y2] = toScreen(this.view, [Math.max(xyxy[0], xyxy[2]), Math.max(xyxy[1], xyxy[3])]);
    const isChosen = this.chosen !== null && this.chosen === (box.id ?? box.key);
    const here = svg("g", { class: `${kind}${isChosen ? " chosen" : ""}` }, group);
    const rect = svg("rect", { class: "box", x: x1, y: y1, width: x2 - x1, height: y2 - y1 }, here);
    if (kind === "mine" && box.id) {
      rect.dataset.id = box.id;
      rect.style.cursor = this.tool === "select" ? "move" : "";
      rect.style.pointerEvents = this.tool === "select" ? "all" : "none";
    }
    const text = svg("text", { x: x1 + 2, y: y1 > 16 ? y1 - 5 : y2 + 14 }, here);
    text.textContent = `${box.reader ? `${box.reader}: ` : ""}${box.label}${kind === "model" ? percent(box.score) : ""}`;
    if (isChosen && kind === "mine" && this.tool === "select") {
      for (const [name, across, down, cursor] of HANDLES) {
        const [x, y] = [x1 + (x2 - x1) * across, y1 + (y2 - y1) * down];
        const at = { class: "handle", x: x - HANDLE_PX, y: y - HANDLE_PX, width: 2 * HANDLE_PX, height: 2 * HANDLE_PX };
        const handle = svg("rect", at, here);
        handle.dataset.id = box.id;
        handle.dataset.part = name;
        handle.style.cursor = cursor;
      }
    }
  }

  listen() {
    const { element } = this;
    element.addEventListener("pointerdown", (event) => this.onDown(event));
    element.addEventListener("pointermove", (event) => this.onMove(event));
    element.addEventListener("pointerup", (event) => this.onUp(event));
    element.addEventListener("pointercancel", () => this.endDrag());
    element.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("dblclick", () => this.tool === "pan" && this.fit());
    element.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
  }

  at(event) {
    const corner = this.element.getBoundingClientRect();
    return [event.clientX - corner.left, event.clientY - corner.top];
  }

  onWheel(event) {
    event.preventDefault();
    if (this.film) this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...this.at(event));
  }

  onDown(event) {
    this.on.activated();
    if (!this.film || this.drag) return;
    const start = this.at(event);
    const kind = event.button === 2 ? "window" : event.button === 1 || event.getModifierState?.(" ") ? "pan" : this.tool;
    this.element.setPointerCapture(event.pointerId);
    event.preventDefault();
    const { id, part } = event.target.dataset ?? {};
    const box = id && this.layers.find((layer) => layer.kind === "mine")?.boxes.find((other) => other.id === id);
    if (kind === "select" && box) {
      this.drag = { kind: "box", box, part: part ?? "move", start, xyxy: box.xyxy };
      this.on.chosen(id);
    } else if (kind === "select") {
      this.drag = { kind: "pan", start, view: this.view, isClick: true };
    } else if (kind === "pan") {
      this.drag = { kind, start, view: this.view };
    } else if (kind === "window") {
      this.drag = { kind, start, window: this.window };
    } else {
      this.drag = { kind: "draw", start, from: toFilm(this.view, start), drawn: null };
    }
  }

  onMove(event) {
    const here = this.at(event);
    this.pointer = here;
    const { drag } = this;
    if (drag) {
      const [dx, dy] = [here[0] - drag.start[0], here[1] - drag.start[1]];
      if (Math.hypot(dx, dy) > 3) drag.isClick = false;
      if (drag.kind === "pan") {
        this.view = { ...drag.view, x: drag.view.x + dx, y: drag.view.y + dy };
        this.isFitted = false;
      } else if (drag.kind === "window") {
        this.dragWindow(drag.window, dx, dy);
      } else if (drag.kind === "draw") {
        drag.drawn = properBox([...drag.from, ...toFilm(this.view, here)], this.film.width, this.film.height);
      } else {
        const { scale } = this.view;
        drag.xyxy = dragged(drag.box.xyxy, drag.part, dx / scale, dy / scale, this.film);
      }
    }
    this.draw();
  }

  /** To the right wider, up brighter; a pane's width is the range that the film asks for. */
  dragWindow({ low, high }, dx, dy) {
    const range = Math.max(this.film.high - this.film.low, 1);
    const { width } = this.size();
    const span = Math.max(high - low + (dx * 2 * range) / width, 1);
    const level = (low + high) / 2 + (dy * range * (this.inverted ? -1 : 1)) / width;
    this.window = { low: level - span / 2, high: level + span / 2 };
  }

  onUp() {
    const { drag } = this;
    this.endDrag();
    if (!drag) return;
    if (drag.isClick) {
      this.on.chosen(this.modelBoxAt(drag.start));
    } else if (drag.kind === "draw" && drag.drawn && isLargeEnough(drag.drawn)) {
      this.on.drawn(drag.drawn);
    } else if (drag.kind === "box" && drag.xyxy.some((value, i) => value !== drag.box.xyxy[i])) {
      const xyxy = properBox(drag.xyxy, this.film.width, this.film.height);
      if (isLargeEnough(xyxy)) this.on.placed(drag.box.id, xyxy);
    }
  }

  endDrag() {
    this.drag = null;
    this.draw();
  }

  /** The smallest box of the model under a place on the screen, by key; null where there is none. */
  modelBoxAt(place) {
    const [u, v] = toFilm(this.view, place);
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const under = this.layers
      .filter((layer) => layer.kind === "model")
      .flatMap((layer) => layer.boxes)
      .filter(({ xyxy: [x1, y1, x2, y2] }) => u >= x1 && u <= x2 && v >= y1 && v <= y2);
    under.sort((a, b) => area(a.xyxy) - area(b.xyxy));
    return under[0]?.key ?? null;
  }
}
