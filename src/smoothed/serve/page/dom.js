/** Elements and texts. Data only ever becomes text or an attribute of an element, never markup. */

export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash, and role and scope) and children, nodes or text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of SVG with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A share as the report writes it: one digit after the point. */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Both ends of an interval of a share. */
export const percents = (low, high) => `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %`;

/** A number with at most `digits` significant digits, without zeros at its end. */
export const short = (value, digits = 4) => String(Number(value.toPrecision(digits)));

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** The address of a PNG picture from its base64 text; an empty picture for anything else. */
export function pictureAddress(text) {
  const data = typeof text === "string" ? text.replace(/^data:image\/png;base64,/, "") : "";
  return /^[A-Za-z0-9+/]+={0,2}$/.test(data) ? `data:image/png;base64,${data}` : "";
}

/** Show a picture, or the empty frame for the address "". */
export function showPicture(image, address, alt = "") {
  if (address) image.src = address;
  else image.removeAttribute("src");
  image.alt = address ? alt : "";
}

/** Run a function at most once a frame, with the newest state. A hidden page has no frames and needs none. */
export function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}
