/** The noisy copies of a vote, each with the class of its draw. */

import { byId, element, pictureAddress } from "./dom.js";

/** Largest number of noisy copies that are asked for. */
export const PICTURES = 64;

export class Draws {
  constructor(prefix, palette) {
    this.root = byId(`${prefix}draws`);
    this.palette = palette;
    this.follows = true;
    this.root.addEventListener("scroll", () => {
      // The newest copy stays in sight until the reader scrolls away from it.
      this.follows = this.root.scrollTop + this.root.clientHeight >= this.root.scrollHeight - 8;
    });
  }

  reset(names = []) {
    this.names = names;
    this.follows = true;
    this.root.replaceChildren();
  }

  /** Add the copy of a draw; draws without a picture are counted in the race alone. */
  add({ draw, class: number, png }) {
    const address = pictureAddress(png);
    if (!address) return;
    const name = this.names[number] ?? `class ${number}`;
    const copy = element("img", { src: address, alt: "", className: "pixels", width: 48, height: 48 });
    const words = element("span", { className: "name" }, name);
    const item = element("li", { className: this.palette.style(number), title: `draw ${draw}: ${name}` }, copy, words);
    item.prepend(element("span", { className: "hidden" }, `draw ${draw}: `));
    if (this.palette.dash(number)) item.classList.add("dashed");
    this.root.append(item);
    if (this.follows) this.root.scrollTop = this.root.scrollHeight;
  }
}
