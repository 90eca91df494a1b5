/** The settings of a view: read from the page's address, written to it, and checked. */

/** Longest base64 text of an image in an address. */
export const LONGEST_PICTURE = 32768;

/** Keys of the address with what a value must look like. What looks right may still be out of range. */
const FORMS = {
  image: [/^\d{1,6}$/, "the number of an example image"],
  png: [new RegExp(`^[A-Za-z0-9_-]{1,${LONGEST_PICTURE}}$`), "the base64 text of a picture"],
  vote: [/^[\w(),.: -]{1,80}$/, "the name of a vote"],
  m: [/^\d{1,9}$/, "a whole number"],
  sigma: [/^[\d.eE+-]{1,24}$/, "a number"],
  seed: [/^\d{1,19}$/, "a whole number"],
  attack: [/^[\w-]{1,40}$/, "the name of an attack"],
  eps: [/^[\d.eE+-]{1,24}(\/[\d.]{1,12})?$/, "a number or a fraction such as 8/255"],
  steps: [/^\d{1,9}$/, "a whole number"],
  eot: [/^\d{1,9}$/, "a whole number"],
  show: [/^(vote|attack)$/, "vote or attack"],
};

/**
 * Read the part of an address behind `#`.
 * @returns {{values: Object<string, string>, complaints: string[]}} values of known keys, and sentences about bad ones
 */
export function readAddress(hash) {
  const values = {};
  const complaints = [];
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (!(key in FORMS)) continue;
    const [form, expected] = FORMS[key];
    if (form.test(value)) values[key] = value;
    else complaints.push(`${key} in the address: expected ${expected}, got ${short(value)}; the default is used.`);
  }
  if (values.png) delete values.image;
  return { values, complaints };
}

const short = (text) => (text.length > 30 ? `${text.slice(0, 30)}...` : text || "nothing");

/** The part of an address behind `#` for these values; empty ones are left out. */
export function writeAddress(values) {
  const parts = Object.keys(FORMS).filter((key) => values[key] !== undefined && values[key] !== "");
  return `#${parts.map((key) => `${key}=${encodeURIComponent(values[key]).replaceAll("%2F", "/")}`).join("&")}`;
}

/** base64 text with the letters that an address may hold, and back. */
export const toAddress = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
export function fromAddress(text) {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return base64 + "=".repeat((4 - (base64.length % 4)) % 4);
}

/** The value of a number or a fraction such as 8/255; NaN for anything else. */
export function fraction(text) {
  const parts = text.trim().split("/");
  if (parts.length > 2 || parts.some((part) => part.trim() === "")) return NaN;
  const [numerator, denominator] = [Number(parts[0]), parts.length > 1 ? Number(parts[1]) : 1];
  return denominator === 0 ? NaN : numerator / denominator;
}

/** A setting is out of range; `field` is the id of its element. */
export class SettingError extends Error {
  constructor(field, name, expected, got) {
    super(`${name}: expected ${expected}, got ${got === "" ? "nothing" : got}.`);
    this.field = field;
  }
}

/** A whole number from `low` to `high`. */
export function wholeNumber(field, name, text, low, high) {
  const value = Number(text);
  if (text.trim() === "" || !Number.isInteger(value) || value < low || value > high) {
    throw new SettingError(field, name, `a whole number from ${low} to ${high}`, text.trim());
  }
  return value;
}

/** A number, or a fraction, from 0 to 1. */
export function unitNumber(field, name, text) {
  const value = fraction(text);
  if (value >= 0 && value <= 1) return value;
  throw new SettingError(field, name, "a number or a fraction from 0 to 1", text.trim());
}
