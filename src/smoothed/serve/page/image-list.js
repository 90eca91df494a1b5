/** The choice of an image: the list of examples, moved through by keys, and a file of the reader's own. */

import { byId, element } from "./dom.js";
import { LONGEST_PICTURE } from "./state.js";

/** Largest file that is read, in bytes. */
const LARGEST_FILE = 64 * 2 ** 20;

export class ImageList {
  /** @param {function} chosen called with the number of the image that the reader chooses */
  constructor(chosen) {
    this.root = byId("image-list");
    this.images = [];
    this.selected = null;
    this.chosen = chosen;
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  fill(images) {
    this.images = images;
    this.root.replaceChildren(...images.map((image) => this.#item(image)));
  }

  /** Mark an image as chosen; null for none. */
  select(id) {
    this.selected = id;
    this.root.removeAttribute("aria-activedescendant");
    for (const item of this.root.children) {
      const on = item.id === `image${id}`;
      item.setAttribute("aria-selected", String(on));
      if (!on) continue;
      this.root.setAttribute("aria-activedescendant", item.id);
      this.#reveal(item);
    }
  }

  #item(image) {
    const words = `${image.id}: ${image.class}`;
    const item = element(
      "li",
      { role: "option", id: `image${image.id}`, "aria-selected": "false", title: words },
      element("img", { src: `v1/images/${image.id}.png`, alt: words, className: "pixels", width: 40, height: 40 }),
    );
    item.addEventListener("click", () => this.chosen(image.id));
    return item;
  }

  /** Scroll the list, never the page. */
  #reveal(item) {
    const { scrollTop, clientHeight } = this.root;
    if (item.offsetTop < scrollTop) this.root.scrollTop = item.offsetTop - 4;
    const bottom = item.offsetTop + item.offsetHeight;
    if (bottom > scrollTop + clientHeight) this.root.scrollTop = bottom - clientHeight + 4;
  }

  #key(event) {
    if (!this.images.length || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter") {
      event.preventDefault();
      this.root.closest("form").requestSubmit();
      return;
    }
    const columns = this.#columns();
    const last = this.images.length - 1;
    const present = this.images.findIndex((image) => image.id === this.selected);
    const moves = {
      ArrowRight: present + 1,
      ArrowLeft: present - 1,
      ArrowDown: present + columns > last ? present : present + columns,
      ArrowUp: present - columns < 0 ? present : present - columns,
      PageDown: present + 4 * columns,
      PageUp: present - 4 * columns,
      Home: 0,
      End: last,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const place = present < 0 && event.key !== "End" ? 0 : Math.max(0, Math.min(last, moves[event.key]));
    if (this.images[place].id !== this.selected) this.chosen(this.images[place].id);
  }

  #columns() {
    const items = [...this.root.children];
    const wrapped = items.findIndex((item) => item.offsetTop > items[0].offsetTop);
    return wrapped < 0 ? items.length : wrapped;
  }
}

/** Read files that are chosen, dropped anywhere on the page, or pasted, and hand each to `taken`. */
export function takeFiles(taken) {
  const zone = byId("drop");
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file can be chosen again
    if (file) taken(file);
  });
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    zone.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    zone.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) taken(file);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (file) taken(file);
  });
}

/**
 * The picture of a file in the size that the network takes: its middle, in the network's proportions, made smaller or
 * larger. A PNG file of this size is taken as it is, so that its pixels stay the same.
 *
 * @returns {Promise<string>} base64 text of a PNG picture
 * @throws {Error} the file is too large or no picture, as a sentence
 */
export async function pictureOf(file, width, height) {
  const name = file.name || "the pasted picture";
  if (file.size > LARGEST_FILE) {
    throw new Error(`${name}: expected a file of at most 64 MB, got ${Math.ceil(file.size / 2 ** 20)} MB.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    const expected = "a picture that this browser can read, such as PNG or JPEG";
    throw new Error(`${name}: expected ${expected}, got another kind of file or a broken one.`);
  }
  try {
    if (file.type === "image/png" && bitmap.width === width && bitmap.height === height) {
      const kept = toBase64(new Uint8Array(await file.arrayBuffer()));
      if (kept.length <= LONGEST_PICTURE) return kept;
    }
    return await shrink(bitmap, width, height);
  } finally {
    bitmap.close();
  }
}

async function shrink(bitmap, width, height) {
  const canvas = element("canvas", { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  const part = Math.min(bitmap.width / width, bitmap.height / height);
  const [w, h] = [width * part, height * part];
  pen.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return toBase64(new Uint8Array(await blob.arrayBuffer()));
}

function toBase64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
