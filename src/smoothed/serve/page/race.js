/** The race: the shares of the leading classes against the number of draws, their intervals, and the rules' stops. */

import { axes, band, drawnToFit, path, scale, ticks } from "./chart.js";
import { byId, element, percent, percents, svg } from "./dom.js";

/** Number of classes that are drawn and listed. */
const LEADING = 4;

export class Race {
  /**
   * @param {string} prefix of the ids of its elements
   * @param {Palette} palette of the page
   */
  constructor(prefix, palette) {
    this.root = byId(`${prefix}race`);
    this.board = byId(`${prefix}board`);
    this.numbers = byId(`${prefix}numbers`);
    this.palette = palette;
    this.names = [];
    this.pointed = null;
    this.rows = [];
    this.redraw = drawnToFit(this.root, (width, height) => this.#draw(width, height));
    this.root.addEventListener("pointermove", (event) => this.#point(event));
    this.root.addEventListener("pointerleave", () => this.#point(null));
    this.numbers.closest("details").addEventListener("toggle", () => this.#fillNumbers());
    this.reset(64);
  }

  /** Begin an empty race of `total` draws. */
  reset(total, names = this.names) {
    this.total = total;
    this.names = names;
    this.draws = [];
    this.stops = [];
    this.ended = false;
    this.pointed = null;
    this.#fillBoard();
    this.#fillNumbers();
    this.redraw();
  }

  /** Add a draw: {draw, class, shares, low, high}, the last two are null for votes without intervals. */
  add(draw) {
    this.draws.push(draw);
    this.redraw();
  }

  /** Mark the place where a rule stops: {rule, draw, class}. */
  stop(stop) {
    this.stops.push(stop);
    this.redraw();
  }

  end() {
    this.ended = true;
    this.#fillNumbers();
    this.redraw();
  }

  /** Classes by their share after a draw, largest first; equal shares by their number. */
  #leading(draw) {
    const order = draw.shares.map((_, number) => number).filter((number) => draw.shares[number] > 0);
    return order.sort((a, b) => draw.shares[b] - draw.shares[a] || a - b).slice(0, LEADING);
  }

  /** The draw that the pointer is on, or the last one. */
  get #shown() {
    return this.pointed ?? this.draws.at(-1);
  }

  #point(event) {
    let found = null;
    if (event && this.draws.length && this.box) {
      const across = event.clientX - this.root.getBoundingClientRect().left - this.box.left;
      const wanted = Math.round((across / (this.box.right - this.box.left)) * this.total);
      found = this.draws.findLast((draw) => draw.draw <= wanted) ?? this.draws[0];
    }
    if (found === this.pointed) return;
    this.pointed = found;
    this.redraw();
  }

  #draw(width, height) {
    const box = { left: 52, right: width - 14, top: 40, bottom: height - 42 };
    this.box = box;
    const x = scale(0, this.total, box.left, box.right);
    const y = scale(0, 1, box.bottom, box.top);
    const marks = this.total % 4 ? ticks(0, this.total, width < 420 ? 4 : 8, true) : quarters(this.total);
    const whole = { ticks: marks, scale: x, text: String, name: "draws" };
    const shares = { ticks: quarters(1), scale: y, text: (value) => `${100 * value}`, name: "share of the vote (%)" };
    this.#fillBoard();
    const stops = this.stops.map((stop) => this.#marker(stop, x, box));
    return [...axes(box, whole, shares), ...this.#curves(x, y), ...stops, this.#cursor(x, box)];
  }

  /** Bands below all lines, the leader's line on top. */
  #curves(x, y) {
    if (!this.draws.length) return [];
    const bands = [];
    const lines = [];
    for (const number of this.#leading(this.draws.at(-1)).toReversed()) {
      const style = this.palette.style(number);
      const points = (values) => this.draws.map((draw) => [x(draw.draw), y(draw[values][number])]);
      if (this.draws.every((draw) => draw.low && draw.high)) {
        bands.push(svg("path", { class: `band ${style}`, d: band(points("low"), points("high")) }));
      }
      const line = svg("path", { class: `line ${style}`, d: path(points("shares")) });
      if (this.palette.dash(number)) line.setAttribute("stroke-dasharray", this.palette.dash(number));
      const [last] = points("shares").slice(-1);
      lines.push(line, svg("circle", { class: `dot ${style}`, cx: last[0], cy: last[1], r: 3.5 }));
    }
    return [...bands, ...lines];
  }

  /**
   * A vertical line with its name above the plotting area. The confident rule never stops later than the exact one, and
   * the name stands to the left of the line in a row of its own, so that no line crosses a name.
   */
  #marker({ rule, draw }, x, box) {
    const place = x(draw);
    const row = rule === "exact" ? 12 : 28;
    const words = box.right < 400 ? `${rule}: ${draw}` : `${rule} rule: ${draw}`;
    const fits = place > 7 * words.length;
    const text = { x: place + (fits ? -5 : 5), y: row, "text-anchor": fits ? "end" : "start" };
    const line = svg("path", { d: `M${place.toFixed(1)} ${row - 9}V${box.bottom}` });
    return svg("g", { class: `marker ${rule}` }, line, svg("text", text, words));
  }

  #cursor(x, box) {
    if (!this.pointed) return null;
    const place = x(this.pointed.draw).toFixed(1);
    return svg("path", { class: "cursor", d: `M${place} ${box.top}V${box.bottom}` });
  }

  /** The rows of the leading classes. Their number never changes, so that nothing below them moves. */
  #fillBoard() {
    const count = Math.min(LEADING, this.names.length || LEADING);
    while (this.rows.length < count) this.rows.push(boardRow());
    this.rows.length = count;
    if (this.board.childElementCount !== count) this.board.replaceChildren(...this.rows.map((row) => row.root));
    const shown = this.#shown;
    const leading = shown ? this.#leading(shown) : [];
    this.rows.forEach((row, place) => fillRow(row, leading[place], shown, this));
    const words = shown ? `Shares after ${shown.draw} of ${this.total} draws` : "No draws yet";
    this.board.closest("table").caption.textContent = words;
  }

  /** The table of the shares after 1, 2, 4, ... draws, for those who do not see the chart. It is filled while open. */
  #fillNumbers() {
    if (!this.numbers.closest("details").open) return;
    const last = this.draws.at(-1);
    const kept = this.draws.filter((draw) => draw === last || Number.isInteger(Math.log2(draw.draw)));
    const leading = last ? this.#leading(last) : [];
    const cell = (draw, number) => {
      const range = draw.low && draw.high ? ` (${percents(draw.low[number], draw.high[number])})` : "";
      return element("td", { className: "n" }, percent(draw.shares[number]) + range);
    };
    const heading = (text) => element("th", { scope: "col", className: "n" }, text);
    const rows = kept.map((draw) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", className: "n" }, String(draw.draw)),
        element("td", {}, this.names[draw.class] ?? ""),
        ...leading.map((number) => cell(draw, number)),
      ),
    );
    this.numbers.replaceChildren(
      element("caption", {}, "Shares with their 95 % intervals after 1, 2, 4, ... draws"),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          heading("draws"),
          element("th", { scope: "col" }, "class of this draw"),
          ...leading.map((number) => heading(this.names[number])),
        ),
      ),
      element("tbody", {}, ...rows),
    );
  }
}

/** The ends and quarters of an axis from 0. */
const quarters = (end) => [0, 1, 2, 3, 4].map((part) => (part * end) / 4);

function boardRow() {
  const line = svg("path", { class: "line", d: "M1 6H27" });
  const row = {
    line,
    swatch: svg("svg", { width: 28, height: 12, viewBox: "0 0 28 12", "aria-hidden": "true" }, line),
    name: element("span", {}),
    share: element("td", { className: "n" }),
    range: element("td", { className: "n faint" }),
    bar: element("span", { className: "bar" }),
  };
  row.root = element(
    "tr",
    {},
    element("th", { scope: "row" }, row.swatch, row.name),
    element("td", { className: "barcell", "aria-hidden": "true" }, row.bar),
    row.share,
    row.range,
  );
  return row;
}

function fillRow(row, number, draw, { names, palette }) {
  const empty = number === undefined;
  row.root.className = empty ? "empty" : "";
  row.line.setAttribute("class", empty ? "line none" : `line ${palette.style(number)}`);
  row.line.setAttribute("stroke-dasharray", empty ? "" : palette.dash(number));
  row.name.textContent = empty ? "" : names[number];
  row.share.textContent = empty ? "" : percent(draw.shares[number]);
  row.range.textContent = !empty && draw.low && draw.high ? percents(draw.low[number], draw.high[number]) : "";
  row.bar.className = empty ? "bar" : `bar ${palette.style(number)}`;
  row.bar.style.width = empty ? "0" : `${100 * draw.shares[number]}%`;
}
