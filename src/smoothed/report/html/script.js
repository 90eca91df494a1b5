"use strict";
/* The list of images: filters, the chosen image, and the votes at the chosen M. `images.py` writes the data. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const two = data.results.length > 1;
  const byId = (id) => document.getElementById(id);
  const [RIGHT, MARGIN, DRAWS, TIE, CHANGES, CLASS, SHARES] = [0, 1, 2, 3, 4, 5, 6];

  /** The chosen classifier and the place of the chosen M, of each result. */
  const chosen = data.results.map((result) => ({
    classifier: result.main,
    step: result.classifiers[result.main].samples.length - 1,
  }));
  let selected = data.images[0];
  let visible = data.images;

  /** An element with properties, attributes (names with a dash, and role) and children, which are nodes or text. */
  function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
      else made[key] = value;
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const letter = (number) => (two ? "AB"[number] : "");
  const className = (number) => data.classes[number] ?? `class ${number}`;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
  const isRight = (outcome) => outcome[RIGHT] > 0.5;

  /** The outcomes on an image of a result: clean, and attacked if there was an attack. */
  function outcomes(image, number = 0, classifier = chosen[number].classifier, step = chosen[number].step) {
    const steps = image.results[number].votes[classifier];
    return steps[Math.min(step, steps.length - 1)];
  }
  /** The outcome under attack, or on the clean image if there was no attack. */
  const decisive = (image, ...which) => outcomes(image, ...which).at(-1);

  /**
   * The names of the attacks that broke an image, for the chosen classifier of a result. After several attacks, these are
   * the ones after which at most half of the votes are right, as in the matrix and in the tables of attacks.
   */
  function breakers(image, number = 0) {
    const { classifier } = chosen[number];
    const about = data.results[number].classifiers[classifier];
    const attacks = image.results[number].attacks;
    const broken = (shares) => shares.filter(([, share]) => share !== null && share <= 0.5).map(([name]) => name);
    if (data.results[number].kind === "check") return attacks.flatMap((group) => broken(group.shares));
    if (attacks.length) return broken(tried(attacks[classifier]));
    if (!about.attack || isRight(decisive(image, number))) return [];
    return isRight(outcomes(image, number)[0]) ? [about.attack] : [];
  }

  /** The attacks of a suite with their shares: all lines but the clean image and the worst case. */
  const tried = (group) => group.shares.slice(1, -1);

  /* Filters */

  const attacked = data.results.some((result) => result.classifiers.some((each) => each.attack));
  const base = data.results[0].classifiers.findIndex((each) => each.base);
  const onBase = (image) => decisive(image, 0, base, Infinity);
  const isBase = () => chosen[0].classifier === base;
  const OUTCOMES = [
    ["", "all images", true, () => true],
    ["broken", "right when clean, wrong under attack", attacked, (i) => isRight(outcomes(i)[0]) && !isRight(decisive(i))],
    ["wrong", "wrong though clean", true, (i) => !isRight(outcomes(i)[0])],
    ["robust", attacked ? "right under attack" : "right", true, (i) => isRight(decisive(i))],
    ["helped", "only the vote is right", base >= 0, (i) => !isBase() && isRight(decisive(i)) && !isRight(onBase(i))],
    ["hurt", "the vote alone is wrong", base >= 0, (i) => !isBase() && !isRight(decisive(i)) && isRight(onBase(i))],
    ["changes", "changes from run to run", any(CHANGES), (i) => outcomes(i).some((each) => each[CHANGES])],
    ["tie", "tied votes", any(TIE), (i) => outcomes(i).some((each) => each[TIE])],
    ["better", "B is right, A is wrong", two, (i) => isRight(decisive(i, 1)) && !isRight(decisive(i, 0))],
    ["worse", "A is right, B is wrong", two, (i) => isRight(decisive(i, 0)) && !isRight(decisive(i, 1))],
  ];

  /** Whether some outcome of an image has a mark. */
  function any(mark) {
    return data.images.some((image) => image.results[0].votes.flat(2).some((outcome) => outcome[mark]));
  }

  function option(value, text) {
    return element("option", { value, textContent: text });
  }

  function fillFilters() {
    byId("outcome").append(...OUTCOMES.filter((each) => each[2]).map(([value, text]) => option(value, text)));
    const labels = [...new Set(data.images.map((image) => image.label))].sort((a, b) => a - b);
    byId("class").append(option("", "all classes"), ...labels.map((label) => option(label, className(label))));
    const names = new Set();
    for (const image of data.images) {
      for (const group of image.results[0].attacks) {
        const shares = data.results[0].kind === "check" ? group.shares : tried(group);
        shares.forEach(([name]) => names.add(name));
      }
    }
    if (!names.size) data.results[0].classifiers.forEach((each) => each.attack && names.add(each.attack));
    byId("attack-label").hidden = names.size < 1;
    byId("attack").append(option("", "any or none"), ...[...names].map((name) => option(name, name)));
  }

  /** Words by which the search finds an image. */
  function words(image) {
    const marks = data.results.flatMap((_, number) => [
      ...breakers(image, number),
      ...outcomes(image, number).map((outcome) => (outcome[CLASS] === null ? "" : predicted(outcome))),
    ]);
    return [image.number, className(image.label), ...marks].join(" ").toLowerCase();
  }

  function matches(image) {
    const outcome = OUTCOMES.find((each) => each[0] === byId("outcome").value);
    const label = byId("class").value;
    const attack = byId("attack").value;
    const search = byId("search").value.trim().toLowerCase();
    return (
      outcome[3](image) &&
      (label === "" || image.label === Number(label)) &&
      (attack === "" || breakers(image).includes(attack)) &&
      search.split(/\s+/).every((word) => words(image).includes(word))
    );
  }

  /* Classifier and M of each result */

  function fillSettings() {
    data.results.forEach((result, number) => {
      const select = element("select", { id: `classifier${number}` });
      select.append(...result.classifiers.map((each, place) => option(place, each.name)));
      select.value = chosen[number].classifier;
      const slider = element("input", { id: `samples${number}`, type: "range", min: 0, step: 1 });
      const label = element("label", {}, "", slider);
      const update = () => {
        const { samples } = result.classifiers[chosen[number].classifier];
        chosen[number].step = Math.min(chosen[number].step, samples.length - 1);
        slider.max = samples.length - 1;
        slider.value = chosen[number].step;
        label.hidden = samples.length < 2;
        const text = `M = ${samples[chosen[number].step]}`;
        slider.setAttribute("aria-valuetext", text);
        label.firstChild.textContent = `${letter(number)} Draws of the vote: ${text}`.trim();
      };
      select.addEventListener("change", () => {
        chosen[number].classifier = Number(select.value);
        chosen[number].step = Infinity;
        update();
        refresh();
      });
      slider.addEventListener("input", () => {
        chosen[number].step = Number(slider.value);
        update();
        refresh();
      });
      update();
      const name = element("label", {}, `${letter(number)} Classifier`.trim(), select);
      byId("settings").append(element("div", { className: "filters" }, name, label));
    });
  }

  /* The list */

  /** The signs of an outcome on clean and attacked images, with words for screen readers. */
  function mark(image, number) {
    const signs = outcomes(image, number).map((outcome, place) => {
      const right = isRight(outcome);
      const where = place ? "under attack" : "clean";
      return element(
        "span",
        { className: right ? "right" : "wrong", title: `${where}: ${right ? "right" : "wrong"}` },
        element("span", { "aria-hidden": "true" }, right ? "✓" : "✗"),
        element("span", { className: "hidden" }, `${letter(number)} ${right ? "right" : "wrong"} ${where}, `),
      );
    });
    return element("span", { className: "mark" }, two ? element("span", { "aria-hidden": "true" }, letter(number)) : null, ...signs);
  }

  const thumbnail = (image) => image.picture ?? image.results.flatMap((each) => each.attacked).find(Boolean);

  function item(image) {
    const source = thumbnail(image);
    const made = element(
      "li",
      { role: "option", id: `image${image.number}`, "aria-selected": "false" },
      source ? element("img", { src: source, alt: "" }) : element("span"),
      element("span", { className: "title" }, `${image.number} ${className(image.label)}`),
      element("span", {}, ...data.results.map((_, number) => mark(image, number))),
    );
    made.addEventListener("click", () => choose(image));
    return made;
  }

  /** Build the list for the present filters and settings. */
  function refresh() {
    visible = data.images.filter(matches);
    byId("list").replaceChildren(...visible.map(item));
    const of = data.images.length < data.total ? `${data.images.length} shown of ${data.total}` : `${data.total}`;
    byId("count").textContent = `${visible.length} of ${of} images.`;
    if (!visible.includes(selected)) selected = visible[0];
    choose(selected);
  }

  function choose(image) {
    selected = image;
    const list = byId("list");
    for (const each of list.children) each.setAttribute("aria-selected", String(image && each.id === `image${image.number}`));
    if (!image) {
      list.removeAttribute("aria-activedescendant");
      byId("detail").replaceChildren(element("p", {}, "No image passes the filters."));
      return;
    }
    list.setAttribute("aria-activedescendant", `image${image.number}`);
    const row = byId(`image${image.number}`);
    if (row.offsetTop < list.scrollTop) list.scrollTop = row.offsetTop;
    const below = row.offsetTop + row.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
    byId("detail").replaceChildren(...detail(image));
  }

  const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 };
  byId("list").addEventListener("keydown", (event) => {
    if (!visible.length) return;
    const last = visible.length - 1;
    let place = visible.indexOf(selected);
    if (event.key in STEPS) place += STEPS[event.key];
    else if (event.key === "Home") place = 0;
    else if (event.key === "End") place = last;
    else return;
    event.preventDefault();
    choose(visible[Math.max(0, Math.min(last, place))]);
  });

  /* The chosen image */

  function detail(image) {
    const parts = [element("h3", {}, `Image ${image.number}: ${className(image.label)}`)];
    data.results.forEach((result, number) => {
      const about = result.classifiers[chosen[number].classifier];
      const samples = about.samples[Math.min(chosen[number].step, about.samples.length - 1)];
      const name = two ? `${letter(number)}: ${result.name}, ` : "";
      parts.push(element("h4", {}, `${name}${about.name}, M = ${samples}`));
      parts.push(pictures(image, number), facts(image, number));
      const bars = shareBars(image, number);
      if (bars) parts.push(bars);
      parts.push(...attackTables(image, number));
    });
    return parts;
  }

  function pictures(image, number) {
    const result = data.results[number];
    const about = result.classifiers[chosen[number].classifier];
    const of = image.results[number];
    const shown = [[image.picture, "clean"]];
    if (about.picture !== null) {
      shown.push([of.attacked[about.picture], `after ${about.attack}`]);
      shown.push([of.difference[about.picture], `difference × ${result.factor}`]);
    }
    const made = shown.filter(([source]) => source).map(([source, text]) =>
      element(
        "figure",
        {},
        element("img", { src: source, alt: `Image ${image.number}, ${className(image.label)}, ${text}` }),
        element("figcaption", {}, text),
      ),
    );
    return element("div", { className: "pictures" }, ...made);
  }

  const predicted = (outcome) => (outcome[CLASS] < 0 ? "abstains" : className(outcome[CLASS]));

  /** One sentence on an outcome. */
  function sentence(outcome, where, label) {
    const whole = outcome[RIGHT] === 0 || outcome[RIGHT] === 1;
    const parts = [`${where}: ${isRight(outcome) ? "right" : "wrong"}`];
    if (!whole) parts.push(`${percent(outcome[RIGHT])} of votes right`);
    if (outcome[CLASS] < 0) parts.push(whole ? "it abstains" : "the first vote abstains");
    else if (outcome[CLASS] !== null && !whole) parts.push(`the first vote is ${predicted(outcome)}`);
    else if (outcome[CLASS] !== null && outcome[CLASS] !== label) parts.push(`voted ${predicted(outcome)}`);
    if (outcome[MARGIN] !== null) parts.push(`margin ${signed(outcome[MARGIN])}`);
    if (outcome[DRAWS] !== null) parts.push(`decided after ${outcome[DRAWS]} draw${outcome[DRAWS] === 1 ? "" : "s"}`);
    if (outcome[TIE]) parts.push("tie");
    if (outcome[CHANGES]) parts.push("changes from run to run");
    return parts.join(", ");
  }

  function facts(image, number) {
    const about = data.results[number].classifiers[chosen[number].classifier];
    const lines = outcomes(image, number).map((outcome, place) =>
      element("li", { className: isRight(outcome) ? "right" : "wrong" }, sentence(outcome, place ? about.attack : "clean", image.label)),
    );
    const broken = breakers(image, number);
    // They may differ from the new votes on the worst example.
    const votes = ", by the votes taken after each attack; the line on the worst case counts new votes";
    const which = data.results[number].kind === "worst-case" ? votes : "";
    if (broken.length) lines.push(element("li", {}, `Broken by ${broken.join(", ")}${which}`));
    for (const each of image.results[number].certified) {
      const text = each.class < 0 ? "no certificate" : `${className(each.class)} within L2 radius ${each.radius}`;
      lines.push(element("li", {}, `Certified at sigma ${each.sigma}: ${text}`));
    }
    return element("ul", { className: "facts" }, ...lines);
  }

  /** A table with bars of the vote shares, clean and attacked; null if there are no shares. */
  function shareBars(image, number) {
    const known = outcomes(image, number).filter((outcome) => outcome[SHARES]);
    if (!known.length) return null;
    const about = data.results[number].classifiers[chosen[number].classifier];
    const maps = known.map((outcome) => new Map(outcome[SHARES]));
    const classes = [...new Set(maps.flatMap((map) => [...map.keys()]))];
    const shown = classes.filter((each) => each === image.label || maps.some((map) => map.get(each) > 0));
    const largest = (each) => Math.max(...maps.map((map) => map.get(each) ?? 0));
    shown.sort((a, b) => (a === image.label ? -1 : b === image.label ? 1 : largest(b) - largest(a)));
    const headings = ["class", "share, clean", `share, ${about.attack}`].slice(0, known.length + 1);
    const rows = shown.map((each) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, className(each) + (each === image.label ? " (true)" : "")),
        ...maps.map((map, place) => bar(map, each, image.label, known[place][CLASS])),
      ),
    );
    return element(
      "table",
      { className: "bars" },
      element("caption", {}, "Shares of the vote"),
      element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows),
    );
  }

  /** A cell with the bar of one class. A class whose share is not stored has less than those that are, or none. */
  function bar(map, each, label, winner) {
    const stored = [...map.values()].reduce((sum, value) => sum + value, 0);
    const share = map.get(each) ?? (stored > 0.999 ? 0 : undefined);
    if (share === undefined) return element("td", {}, "less");
    const kind = each === label ? "true" : each === winner ? "winner" : "";
    const drawn = element("span", { className: `bar ${kind}`.trim() });
    drawn.style.width = `${100 * share}%`;
    return element("td", {}, percent(share), drawn);
  }

  /** Tables of what each attack of a suite left of the votes; a share of null is that of an attack that was not tried. */
  function attackTables(image, number) {
    const { kind } = data.results[number];
    const groups = image.results[number].attacks;
    const shown = kind === "worst-case" ? [groups[chosen[number].classifier]] : groups;
    return shown.filter(Boolean).map((group) =>
      element(
        "table",
        {},
        element("caption", {}, `Share of right votes, ${group.network}, by attack`),
        element(
          "tbody",
          {},
          ...group.shares.map(([name, share]) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, name),
              share === null
                ? element("td", { className: "n" }, "not tried")
                : element("td", { className: `n ${share > 0.5 ? "right" : "wrong"}` }, percent(share)),
              element("td", {}, name === group.made ? "made the worst example" : ""),
            ),
          ),
        ),
      ),
    );
  }

  /* The matrix of attacks and images chooses an image by a click, or by its slider and its button. */

  for (const figure of document.querySelectorAll(".matrix")) {
    const matrix = figure.querySelector("svg");
    const [column, slider, button] = [".column", "input", "button"].map((name) => figure.querySelector(name));
    const [cell, left] = [matrix.dataset.cell, matrix.dataset.left].map(Number);
    const numbers = matrix.dataset.images.split(" ").map(Number);
    const imageOf = (place) => data.images.find((each) => each.number === numbers[place]);

    /** Mark the column of the slider, and name its image. */
    function update() {
      const place = Number(slider.value);
      const image = imageOf(place);
      const name = `image ${numbers[place]}`;
      slider.setAttribute("aria-valuetext", image ? `${name}, ${className(image.label)}` : `${name}, not in the list`);
      button.textContent = image ? `Show ${name}` : `${name[0].toUpperCase()}${name.slice(1)} is not in the list`;
      button.disabled = !image;
      column.setAttribute("x", left + cell * place);
      const view = matrix.parentElement;
      const x = left + cell * (place + 0.5) - view.scrollLeft;
      if (x < 0 || x > view.clientWidth) view.scrollLeft += x - view.clientWidth / 2;
    }

    function show() {
      const image = imageOf(Number(slider.value));
      if (!image) return;
      reset();
      choose(image);
      byId("explorer").scrollIntoView();
      byId("list").focus({ preventScroll: true });
    }

    matrix.addEventListener("click", (event) => {
      const place = Math.floor((event.clientX - matrix.getBoundingClientRect().left - left) / cell);
      if (!(place in numbers)) return;
      slider.value = place;
      update();
      show();
    });
    slider.addEventListener("input", update);
    button.addEventListener("click", show);
    column.setAttribute("visibility", "visible");
    figure.querySelector(".chooser").hidden = false;
    update();
  }

  function reset() {
    for (const id of ["outcome", "class", "attack", "search"]) byId(id).value = "";
    refresh();
  }

  for (const id of ["outcome", "class", "attack"]) byId(id).addEventListener("change", refresh);
  byId("search").addEventListener("input", refresh);
  byId("reset").addEventListener("click", reset);
  fillFilters();
  fillSettings();
  refresh();
})();
