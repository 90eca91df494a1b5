/** The settings of the form: their defaults, ranges and notes, and what they are in the service's words. */

import { byId, element, short } from "./dom.js";
import { fraction, unitNumber, wholeNumber } from "./state.js";

/** Ids of the fields by their key in the address. */
const FIELDS = {
  vote: "vote",
  m: "samples",
  sigma: "sigma",
  seed: "seed",
  attack: "attack",
  eps: "eps",
  steps: "steps",
  eot: "eot",
};

const ATTACKS = { pgd: "PGD", epgd: "EPGD" };

export class Settings {
  /**
   * @param {object} model the answer of /v1/model
   * @param {function} changed called after each change by the reader
   */
  constructor(model, changed) {
    this.model = model;
    this.limits = model.limits;
    fill("vote", model.votes, (name) => name);
    fill("attack", model.attacks, (name) => ATTACKS[name] ?? name);
    for (const [id, limit] of [["samples", "num_samples"], ["steps", "steps"], ["eot", "eot_samples"]]) {
      byId(id).max = this.limits[limit];
    }
    this.defaults = {
      vote: model.vote,
      m: String(Math.min(model.num_samples, this.limits.num_samples)),
      sigma: short(model.sigma ?? 0),
      seed: "0",
      attack: model.attacks.includes("epgd") ? "epgd" : model.attacks[0],
      eps: "8/255",
      steps: String(Math.min(10, this.limits.steps)),
      eot: String(Math.min(8, this.limits.eot_samples)),
    };
    this.take({});
    for (const id of Object.values(FIELDS)) {
      byId(id).addEventListener("input", () => {
        byId(id).removeAttribute("aria-invalid");
        this.#notes();
      });
      byId(id).addEventListener("change", changed);
    }
  }

  /** Set the fields to the values of an address, others to their defaults. Returns sentences about what is unknown. */
  take(values) {
    const complaints = [];
    for (const [key, id] of Object.entries(FIELDS)) {
      const field = byId(id);
      field.value = values[key] ?? this.defaults[key];
      if (field.value !== "") continue;
      if (values[key] !== undefined) {
        const allowed = field.options ? [...field.options].map((each) => each.value).join(" or ") : "a number";
        complaints.push(`${key} in the address: expected ${allowed}, got ${values[key]}; the default is used.`);
      }
      field.value = this.defaults[key];
    }
    this.markValid();
    this.#notes();
    return complaints;
  }

  /** The texts of the fields by their key in the address. */
  values() {
    return Object.fromEntries(Object.entries(FIELDS).map(([key, id]) => [key, byId(id).value.trim()]));
  }

  markValid() {
    for (const id of Object.values(FIELDS)) byId(id).removeAttribute("aria-invalid");
  }

  /** A whole number for an empty view, whatever the field holds. */
  guess(id) {
    const value = Number(byId(id).value);
    return Number.isInteger(value) && value >= 1 && value <= Number(byId(id).max) ? value : 1;
  }

  /**
   * The settings in the service's words.
   * @throws {SettingError} one is out of range
   */
  read() {
    const text = this.values();
    const vote = {
      vote: text.vote,
      num_samples: wholeNumber("samples", "Draws M", text.m, 1, this.limits.num_samples),
      seed: wholeNumber("seed", "Seed", text.seed, 0, Number.MAX_SAFE_INTEGER),
    };
    const attack = {
      attack: text.attack,
      eps: unitNumber("eps", "Eps", text.eps),
      steps: wholeNumber("steps", "Steps", text.steps, 1, this.limits.steps),
      eot_samples: 1,
      seed: vote.seed,
      vote: vote.vote,
      num_samples: vote.num_samples,
    };
    if (this.#averages()) {
      attack.eot_samples = wholeNumber("eot", "EOT draws", text.eot, 1, this.limits.eot_samples);
    }
    // The model's own noise may differ between channels, so it is not sent as one number.
    if (text.sigma !== this.defaults.sigma) vote.sigma = attack.sigma = unitNumber("sigma", "Sigma", text.sigma);
    const sigma = vote.sigma ?? this.model.sigma ?? 0;
    return {
      vote,
      attack,
      voteWords: `${vote.vote} vote, M = ${vote.num_samples}, sigma ${short(sigma)}, seed ${vote.seed}`,
      attackWords: `${attack.attack.toUpperCase()}, eps ${text.eps}, sigma ${short(sigma)}, seed ${vote.seed}`,
    };
  }

  /** Whether the chosen attack averages draws. PGD follows the gradient of one. */
  #averages() {
    return byId("attack").value !== "pgd";
  }

  #notes() {
    const { sigma, sigma_normalized: normalized } = this.model;
    const value = fraction(byId("sigma").value);
    const known = normalized && sigma && value >= 0;
    byId("sigma-note").textContent = known ? `${short((value * normalized) / sigma, 3)} normalised` : "\u00a0";
    const eps = fraction(byId("eps").value);
    byId("eps-note").textContent = eps >= 0 ? `= ${short(eps, 3)} of [0, 1]` : "\u00a0";
    byId("eot").disabled = !this.#averages();
    byId("eot-note").textContent = this.#averages() ? "for each gradient" : "PGD takes one";
  }
}

function fill(id, names, words) {
  byId(id).replaceChildren(...names.map((name) => element("option", { value: name, textContent: words(name) })));
}
