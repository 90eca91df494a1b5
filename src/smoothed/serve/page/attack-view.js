/** The attack on the page: the picture at each step, its difference, the loss, the classes and the vote. */

import { axes, drawnToFit, path, scale, ticks } from "./chart.js";
import { byId, element, percent, pictureAddress, plural, short, showPicture, svg } from "./dom.js";

/** The rows of classes below the loss curve: the class of a step, the name of the row, and a short name. */
const ROWS = [
  [(step) => step.mean_network_class, "mean network", "mean"],
  [(step) => step.one_draw_class, "one draw", "draw"],
  [(step) => step.vote.class, "vote", "vote"],
];

/** Height of a row and of all rows, in pixels. */
const ROW = 22;
const ROWS_HEIGHT = ROW * ROWS.length;

export class AttackView {
  constructor(palette) {
    this.palette = palette;
    this.root = byId("loss");
    this.slider = byId("step");
    this.numbers = byId("attack-numbers");
    this.redraw = drawnToFit(this.root, (width, height) => this.#draw(width, height));
    this.slider.addEventListener("input", () => {
      this.shown = Number(this.slider.value) - 1;
      this.#show();
    });
    this.root.addEventListener("click", (event) => this.#click(event));
    this.numbers.closest("details").addEventListener("toggle", () => this.#fillNumbers());
    this.clear(10, []);
  }

  /** Show the empty view of an attack with `total` steps. */
  clear(total, names) {
    this.total = total;
    this.names = names;
    this.steps = [];
    this.before = null;
    this.shown = null;
    this.slider.disabled = true;
    this.slider.max = total;
    this.slider.value = 1;
    byId("step-number").textContent = "\u00a0";
    byId("attack-setting").textContent = "";
    byId("step-text").textContent = "No attack has run on this image yet.";
    byId("step-vote").textContent = "";
    byId("attack-caption").textContent = "attacked";
    byId("difference-caption").textContent = "difference, amplified";
    showPicture(byId("attack-picture"), "");
    showPicture(byId("attack-difference"), "");
    this.#fillNumbers();
    this.redraw();
  }

  showClean(address, alt) {
    showPicture(byId("attack-clean"), address, alt);
  }

  begin(total, names, setting) {
    this.clear(total, names);
    byId("attack-setting").textContent = setting;
    byId("step-text").textContent = "The first step is under way.";
  }

  /** Take one event of the service. */
  take(name, data) {
    if (name === "start") this.before = data.vote;
    else if (name === "step") this.#add(data);
    else if (name === "end") this.#fillNumbers();
  }

  /** The address of the picture after the last step. */
  get lastPicture() {
    return this.steps.length ? pictureAddress(this.steps.at(-1).png) : "";
  }

  /** The first step whose vote has another class than the vote on the clean image; undefined if there is none. */
  get #turn() {
    return this.steps.find((step) => step.vote.class !== this.before.class);
  }

  #add(step) {
    const followed = this.shown === null || this.shown === this.steps.length - 1;
    this.steps.push(step);
    this.slider.disabled = false;
    if (followed) this.shown = this.steps.length - 1;
    this.#show();
  }

  /** Show the step that the slider is on, or the last one that has arrived. */
  #show() {
    this.shown = Math.min(this.shown, this.steps.length - 1);
    const step = this.steps[this.shown];
    this.slider.value = this.shown + 1;
    const name = (number) => this.names[number] ?? `class ${number}`;
    this.slider.setAttribute("aria-valuetext", `step ${step.step}, vote ${name(step.vote.class)}`);
    byId("step-number").textContent = `${step.step} of ${this.total}`;
    byId("step-text").textContent =
      `Step ${step.step}: the mean network says ${name(step.mean_network_class)}, one draw says ` +
      `${name(step.one_draw_class)}; loss ${short(step.loss, 3)}, largest change of a pixel ${inLevels(step.linf)}.`;
    byId("step-vote").textContent = this.#voteWords(step, name);
    byId("attack-caption").textContent = `step ${step.step}`;
    byId("difference-caption").textContent = `difference × ${step.difference_factor}`;
    showPicture(byId("attack-picture"), pictureAddress(step.png), `attacked image after step ${step.step}`);
    const difference = pictureAddress(step.difference_png);
    const change = `difference to the clean image, times ${step.difference_factor}`;
    showPicture(byId("attack-difference"), difference, change);
    this.redraw();
  }

  /** The vote at a step, and where it first turns over. */
  #voteWords({ vote }, name) {
    const share = percent(vote.shares[vote.class]);
    const says = `The vote of ${plural(vote.draws, "draw")} says ${name(vote.class)}, ${share}`;
    const turn = this.#turn;
    if (!turn) return `${says}; it has not turned over.`;
    return `${says}; it first turns over at step ${turn.step}, from ${name(this.before.class)}.`;
  }

  #click(event) {
    if (!this.steps.length || !this.box) return;
    const across = event.clientX - this.root.getBoundingClientRect().left - this.box.left;
    const cell = (this.box.right - this.box.left) / this.total;
    this.shown = Math.max(0, Math.min(this.steps.length - 1, Math.floor(across / cell)));
    this.#show();
  }

  #draw(width, height) {
    const narrow = width < 420;
    const box = { left: narrow ? 52 : 98, right: width - 14, top: 26, bottom: height - 44 - ROWS_HEIGHT };
    this.box = box;
    const losses = this.steps.map((step) => step.loss).filter(Number.isFinite);
    const low = Math.min(0, ...losses);
    const marks = ticks(low, Math.max(0.5, ...losses) * 1.05, 4);
    const top = Math.max(0.5, ...losses) * 1.05;
    const x = scale(0.5, this.total + 0.5, box.left, box.right);
    const y = scale(low, top, box.bottom, box.top);
    const steps = ticks(1, this.total, narrow ? 4 : 8, true).filter((step) => step >= 1);
    if (steps[0] !== 1) steps.unshift(1);
    const across = { ticks: steps, scale: x, text: String, name: "" };
    const up = { ticks: marks, scale: y, text: (value) => short(value), name: "loss (nats)" };
    const points = this.steps.map((step) => [x(step.step), y(step.loss)]);
    const curve = points.length ? [svg("path", { class: "line c1", d: path(points) })] : [];
    const dots = this.total <= 60 ? points.map(([cx, cy]) => svg("circle", { class: "dot c1", cx, cy, r: 2.6 })) : [];
    const rows = ROWS.flatMap(([classOf, name, shortName], row) => {
      const top = box.bottom + 24 + ROW * row;
      const label = svg("text", { x: box.left - 6, y: top + 13, "text-anchor": "end" }, narrow ? shortName : name);
      return [label, ...this.#classes(classOf, name, x, top)];
    });
    const middle = (box.left + box.right) / 2;
    const name = svg("text", { x: middle, y: height - 6, "text-anchor": "middle" }, "step of the attack");
    const lines = [this.#turnMarker(x, box), this.#cursor(x, box)];
    return [...axes(box, across, up), ...curve, ...dots, ...lines, ...rows, name];
  }

  /** A vertical line at the step at which the vote first turns over, with its name above the plotting area. */
  #turnMarker(x, box) {
    const turn = this.#turn;
    if (!turn) return null;
    const place = x(turn.step);
    const words = box.right < 400 ? `turns over: ${turn.step}` : `the vote turns over: step ${turn.step}`;
    const fits = place > 7 * words.length;
    const text = { x: place + (fits ? -5 : 5), y: 15, "text-anchor": fits ? "end" : "start" };
    const line = svg("path", { d: `M${place.toFixed(1)} 6V${box.bottom}` });
    return svg("g", { class: "marker turn" }, line, svg("text", text, words));
  }

  /** A row of bars, one for each run of steps with the same class, with the name of the class where it fits. */
  #classes(classOf, name, x, top) {
    const made = [];
    let first = 0;
    this.steps.forEach((step, place) => {
      if (place + 1 < this.steps.length && classOf(this.steps[place + 1]) === classOf(step)) return;
      const [left, right] = [x(this.steps[first].step - 0.5), x(step.step + 0.5)];
      made.push(this.#bar(classOf(step), left, right, top, name));
      first = place + 1;
    });
    return made;
  }

  #bar(number, left, right, top, row) {
    const name = this.names[number] ?? `class ${number}`;
    const letters = Math.floor((right - left - 6) / 6.6);
    const fits = name.length <= letters;
    return svg(
      "g",
      { class: `run ${this.palette.style(number)}` },
      svg("title", {}, `${row}: ${name}`),
      svg("rect", { x: left + 0.5, y: top, width: Math.max(1, right - left - 1), height: 18, rx: 2 }),
      fits ? svg("text", { x: left + 5, y: top + 13 }, name) : null,
    );
  }

  #cursor(x, box) {
    if (this.shown === null) return null;
    const place = x(this.steps[this.shown].step).toFixed(1);
    // The line leaves out the numbers of the axis.
    return svg("path", { class: "cursor", d: `M${place} ${box.top}V${box.bottom}m0 22v${ROWS_HEIGHT + 2}` });
  }

  #fillNumbers() {
    if (!this.numbers.closest("details").open) return;
    const heading = (text, numeric) => element("th", { scope: "col", className: numeric ? "n" : "" }, text);
    const name = (number) => this.names[number] ?? `class ${number}`;
    const turn = this.#turn;
    const rows = this.steps.map((step) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", className: "n" }, String(step.step)),
        element("td", { className: "n" }, step.loss.toFixed(3)),
        element("td", { className: "n" }, inLevels(step.linf)),
        element("td", {}, name(step.mean_network_class)),
        element("td", {}, name(step.one_draw_class)),
        element("td", {}, name(step.vote.class)),
        element("td", { className: "n" }, percent(step.vote.shares[step.vote.class])),
        element("td", {}, step === turn ? "the vote turns over" : ""),
      ),
    );
    const headings = [
      heading("step", true),
      heading("loss (nats)", true),
      heading("largest change", true),
      heading("mean network"),
      heading("one draw"),
      heading("vote"),
      heading("its share", true),
      heading(""),
    ];
    this.numbers.replaceChildren(
      element("caption", {}, "The steps of the attack"),
      element("thead", {}, element("tr", {}, ...headings)),
      element("tbody", {}, ...rows),
    );
  }
}

/** A change of a pixel in levels of 8 bits, the usual unit of eps. */
const inLevels = (value) => `${(255 * value).toFixed(1)}/255`;
