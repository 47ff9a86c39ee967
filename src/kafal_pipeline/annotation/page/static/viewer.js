"use strict";
// Shows an image as large as there is room, and lets people zoom and move it: wheel, two fingers, keys, drag.

const LARGEST_ZOOM = 40;
const PIXEL = 6; // screen pixels from which on those of an image are squares, as of small or much enlarged ones

class Viewer {
  constructor(stage) {
    this.stage = stage;
    this.image = null;
    this.smooth = kept("smooth") === "yes";
    this.pointers = new Map();
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.#up(event));
    stage.addEventListener("dblclick", () => this.reset());
    new ResizeObserver(() => this.#draw()).observe(stage);
    this.reset();
  }

  /** Put an image, which is loaded, in the place of the one before; null for none. */
  show(image) {
    for (const before of this.stage.querySelectorAll("img")) before.remove();
    this.image = image;
    if (image) this.stage.prepend(image);
    this.reset();
  }

  reset() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.#draw();
  }

  /** Zoom by a factor about a place in the stage, by default its middle. */
  zoom(factor, x = 0, y = 0) {
    const scale = Math.min(LARGEST_ZOOM, Math.max(1, this.scale * factor));
    const real = scale / this.scale;
    this.x = x - (x - this.x) * real;
    this.y = y - (y - this.y) * real;
    this.scale = scale;
    this.#draw();
  }

  changeSmoothing() {
    this.smooth = !this.smooth;
    keep("smooth", this.smooth ? "yes" : "no");
    this.#draw();
  }

  #draw() {
    if (!this.image) return;
    const { width, height } = this.stage.getBoundingClientRect();
    const room = [((this.scale - 1) * width) / 2, ((this.scale - 1) * height) / 2];
    this.x = Math.min(room[0], Math.max(-room[0], this.x));
    this.y = Math.min(room[1], Math.max(-room[1], this.y));
    this.image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    const pixel = Math.min(width / this.image.naturalWidth, height / this.image.naturalHeight) * this.scale;
    this.image.classList.toggle("pixels", pixel >= PIXEL && !this.smooth);
    this.stage.classList.toggle("zoomed", this.scale > 1);
  }

  #place(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    this.zoom(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) / 300), ...this.#place(event));
  }

  #down(event) {
    if (event.target.closest("button") || event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#place(event));
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#place(event);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
      this.x += (now[0] - before[0]) / 2;
      this.y += (now[1] - before[1]) / 2;
      this.zoom(apart(now) / apart(before), ...middle);
    } else {
      this.x += now[0] - before[0];
      this.y += now[1] - before[1];
      this.#draw();
    }
    this.pointers.set(event.pointerId, now);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
  }
}
