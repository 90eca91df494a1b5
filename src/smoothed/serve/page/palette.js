/** Colours and dashes of the classes: a class keeps its own in all parts of the page while an image is chosen. */

const COLOURS = 6;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

export class Palette {
  #places = new Map();

  /** Forget all classes, for a new image. */
  reset() {
    this.#places.clear();
  }

  /** The place of a class: the classes that are shown first have the colours that differ most. */
  #place(number) {
    if (!this.#places.has(number)) this.#places.set(number, this.#places.size);
    return this.#places.get(number);
  }

  /** The name of the style of a class, c1 to c6. */
  style(number) {
    return `c${(this.#place(number) % COLOURS) + 1}`;
  }

  /** The dashes of a line; beyond six classes, colours come again with other dashes. */
  dash(number) {
    return DASHES[Math.floor(this.#place(number) / COLOURS) % DASHES.length];
  }
}
