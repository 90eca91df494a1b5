/** One vote on the page: its answer, the mean network's, the race, the rules and the noisy copies. */

import { byId, element, percent, percents, plural, showPicture } from "./dom.js";
import { Draws, PICTURES } from "./draws.js";
import { Race } from "./race.js";

const RULES = { exact: "Exact rule", confident: "Confident rule" };

export class VoteView {
  /**
   * @param {string} prefix of the ids of its elements, "" or "attacked-"
   * @param {Palette} palette of the page
   * @param {string} nothing what the answer says before a run
   */
  constructor(prefix, palette, nothing) {
    this.part = (name) => byId(prefix + name);
    this.race = new Race(prefix, palette);
    this.draws = new Draws(prefix, palette);
    this.nothing = nothing;
    this.palette = palette;
  }

  /** Show the empty view. */
  clear(total, names) {
    this.result = null;
    this.names = names;
    this.total = total;
    this.stops = {};
    this.race.reset(total, names);
    this.draws.reset(names);
    this.part("answer").textContent = this.nothing;
    this.part("answer").className = "answer faint";
    this.part("copies").textContent = total > PICTURES ? `, the first ${PICTURES} of ${total} draws` : "";
    for (const id of ["mean-network", "exact-stop", "confident-stop", "race-setting"]) this.part(id).textContent = "";
  }

  showPicture(address, alt) {
    showPicture(this.part("picture"), address, alt);
  }

  /** Begin a run of `total` draws. `truth` is the true class, null if it is unknown. */
  begin(total, names, setting, truth) {
    this.clear(total, names);
    this.truth = truth;
    this.part("race-setting").textContent = setting;
    this.part("answer").textContent = "The first draw is under way.";
  }

  /** Take one event of the service. */
  take(name, data) {
    if (name === "start") this.#start(data);
    else if (name === "draw") this.#draw(data);
    else if (name === "stop") this.#stop(data);
    else if (name === "end") this.#end(data);
  }

  #start(data) {
    const number = data.mean_network_class;
    if (!Number.isInteger(number)) return;
    this.palette.style(number);
    this.part("mean-network").textContent = `Mean network, all noise off: ${this.names[number]}.`;
  }

  #draw(data) {
    this.race.add(data);
    this.draws.add(data);
    const leader = data.shares.indexOf(Math.max(...data.shares));
    this.part("answer").textContent = `So far: ${this.names[leader]}`;
  }

  #stop(data) {
    this.stops[data.rule] = data;
    this.race.stop(data);
    this.part(`${data.rule}-stop`).textContent = this.#stopWords(data);
  }

  #stopWords({ rule, draw, class: number }) {
    if (draw >= this.total) return `${RULES[rule]} takes all ${this.total} draws: ${this.names[number]}.`;
    return `${RULES[rule]} would stop after ${draw} of ${this.total} draws: ${this.names[number]}.`;
  }

  #end(data) {
    this.result = data;
    this.race.end();
    this.#closeRun(data);
    const first = data.shares.find((each) => each.class === data.class) ?? data.shares[0];
    const answer = this.part("answer");
    answer.className = "answer";
    answer.textContent = "";
    const name = element("strong", {}, data.class_name ?? this.names[data.class]);
    const share = element("span", { className: "details" }, `${percent(first.share)} of ${plural(data.draws, "draw")}`);
    answer.append(name, this.#verdict(data.class), share);
    if (!Number.isFinite(first.low)) return;
    answer.append(element("span", { className: "details" }, `95 % interval ${percents(first.low, first.high)}`));
  }

  /** What the mean network says, and rules that have not stopped. */
  #closeRun(data) {
    this.#meanNetwork(data.mean_network);
    for (const rule of Object.keys(RULES)) {
      const words = this.part(`${rule}-stop`);
      if (!this.stops[rule]) words.textContent = `${RULES[rule]} takes all ${this.total} draws.`;
      else if (this.stops[rule].class !== data.class) words.textContent += " The last draws change the class.";
    }
  }

  /** Whether a class is the true one, in a sign and a word; empty if that is unknown. */
  #verdict(number) {
    if (this.truth === null) return "";
    if (number === this.truth) return element("span", { className: "right" }, "✓ right");
    return element("span", { className: "wrong" }, `✗ wrong, true class ${this.names[this.truth]}`);
  }

  #meanNetwork(mean) {
    if (!mean) return;
    const share = mean.probabilities?.[mean.class];
    const sure = share === undefined ? "" : ` with probability ${percent(share)}`;
    const mark = this.truth === null ? "" : mean.class === this.truth ? " (right)" : " (wrong)";
    this.part("mean-network").textContent = `Mean network, all noise off: ${this.names[mean.class]}${sure}${mark}.`;
  }

  /** What a run that did not reach its end says. */
  interrupted() {
    if (this.result) return;
    const answer = this.part("answer");
    answer.className = "answer faint";
    const { length } = this.race.draws;
    answer.textContent = length ? `Stopped after ${plural(length, "draw")}` : this.nothing;
  }
}
