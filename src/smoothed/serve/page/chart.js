/** Parts of a chart: scales, axes with ticks, and lines. A chart is drawn in the pixels of its place on the page. */

import { oncePerFrame, svg } from "./dom.js";

/** Round steps of an axis from `low` to `high`, about `count` of them; whole numbers if asked for. */
export function ticks(low, high, count, whole = false) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / count));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => span / each <= count + 1e-9);
  if (whole) step = Math.max(1, Math.round(step));
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, place) => Number(((first + place) * step).toPrecision(12)));
}

/** Place of a value on a line of pixels. */
export const scale = (low, high, start, end) => (value) => start + ((value - low) / (high - low || 1)) * (end - start);

/** The path through points (x, y), to a tenth of a pixel. */
export function path(points) {
  return points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

/** The outline between a lower and an upper line. */
export const band = (lower, upper) => `${path([...upper, ...lower.toReversed()])}Z`;

/**
 * Axes with ticks and names.
 * @param {{left: number, right: number, top: number, bottom: number}} box the plotting area in pixels
 * @param {{ticks: number[], scale: function, text: function, name: string}} x the horizontal axis
 * @param {{ticks: number[], scale: function, text: function, name: string}} y the vertical axis
 */
export function axes(box, x, y) {
  const lines = [];
  for (const value of y.ticks) {
    const place = y.scale(value);
    lines.push(svg("path", { d: `M${box.left} ${place}H${box.right}` }));
    lines.push(svg("text", { x: box.left - 6, y: place + 4, "text-anchor": "end" }, y.text(value)));
  }
  for (const value of x.ticks) {
    const place = x.scale(value);
    lines.push(svg("path", { d: `M${place} ${box.bottom}v4` }));
    lines.push(svg("text", { x: place, y: box.bottom + 17, "text-anchor": "middle" }, x.text(value)));
  }
  lines.push(svg("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }));
  const middle = (box.top + box.bottom) / 2;
  return [
    svg("g", { class: "grid" }, ...lines),
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, x.name),
    svg("text", { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, y.name),
  ];
}

/**
 * Draw again when the place of a chart changes its width, and return a function that asks for a new drawing. `draw`
 * returns the parts, some of which may be null for none.
 */
export function drawnToFit(root, draw) {
  const redraw = oncePerFrame(() => {
    const { width, height } = root.getBoundingClientRect();
    if (width < 1) return;
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    root.replaceChildren(...draw(width, height).filter(Boolean));
  });
  new ResizeObserver(redraw).observe(root);
  return redraw;
}
