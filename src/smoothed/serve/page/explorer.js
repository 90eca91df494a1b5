/** The explorer: settings in the address, a vote and an attack as streams of events, and their views. */

import { AttackView } from "./attack-view.js";
import { byId, plural, short } from "./dom.js";
import { PICTURES } from "./draws.js";
import { ImageList, pictureOf, takeFiles } from "./image-list.js";
import { Palette } from "./palette.js";
import { ServiceError, events, getJson, pageAddress } from "./service.js";
import { Settings } from "./settings.js";
import { LONGEST_PICTURE, SettingError, fromAddress, readAddress, toAddress, writeAddress } from "./state.js";
import { VoteView } from "./vote-view.js";

/** Shortest time of a race and of an attack on the page, so that they can be watched. */
const RACE_MILLISECONDS = 2000;
const ATTACK_MILLISECONDS = 1500;

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const palette = new Palette();
const clean = new VoteView("", palette, "No vote has run on this image yet.");
const attacked = new VoteView("attacked-", palette, "An attack comes first: the vote on its image appears here.");
const attack = new AttackView(palette);
const list = new ImageList((id) => chooseBundled(id));

/** What is fixed while the page is open: the service's model and its images. */
let settings;
let classes = [];
let images = [];

/** The chosen image: {id} of an example, or {png} of the reader's own; null before one is chosen. */
let image = null;
/** What the view shows, for the address: "", "vote" or "attack". */
let shown = "";
/** The settings under which the clean vote on the page was made. */
let votedWith = "";
/** Ends the run in progress; null if there is none. */
let running = null;

/* Status and progress */

function say(text, isError = false) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("error", isError);
}

function progress(part) {
  byId("progress").value = part;
}

function fail(error) {
  say(`Error: ${error.message}`, true);
  if (error instanceof SettingError) {
    byId(error.field).setAttribute("aria-invalid", "true");
    byId(error.field).focus();
  }
}

/* The image */

const truth = () => (image?.id === undefined ? null : (images.find((each) => each.id === image.id)?.label ?? null));
const address = () => (image.id === undefined ? `data:image/png;base64,${image.png}` : `v1/images/${image.id}.png`);
const forService = () => (image.id === undefined ? { png: image.png } : { id: image.id });

function imageWords() {
  if (image.id === undefined) return "your image";
  return `image ${image.id}${truth() === null ? "" : ` (true class ${classes[truth()]})`}`;
}

function chooseBundled(id) {
  setImage({ id });
  say(`Image ${id}, ${classes[truth()] ?? "of an unknown class"}, is chosen.`);
}

async function chooseFile(file) {
  stop();
  const before = image;
  try {
    const [, height, width] = settings.model.input_shape;
    const png = await pictureOf(file, width, height);
    if (image !== before) return; // another image was chosen meanwhile
    setImage({ png, name: file.name });
    say("Your image is chosen.");
  } catch (error) {
    fail(error);
  }
}

function setImage(next) {
  stop();
  image = next;
  shown = "";
  palette.reset();
  list.select(image.id ?? null);
  clear();
  byId("image-note").textContent = noteOfImage();
  writeState();
}

function noteOfImage() {
  if (image.id !== undefined) return `Chosen: ${imageWords()}.`;
  const [, height, width] = settings.model.input_shape;
  const size = `Chosen: ${image.name || "the picture in the link"}, its middle, at ${width} × ${height} pixels.`;
  return image.png.length <= LONGEST_PICTURE ? size : `${size} It is too large for a link.`;
}

/** Empty all views. */
function clear() {
  byId("views").classList.remove("attacking");
  votedWith = "";
  clean.clear(settings.guess("samples"), classes);
  clearAttack(settings.guess("samples"), settings.guess("steps"));
  clean.showPicture(address(), imageWords());
  attack.showClean(address(), "clean image");
}

/* The address */

function writeState() {
  const values = { ...settings.values(), show: shown };
  if (image?.id !== undefined) values.image = String(image.id);
  else if (image && image.png.length <= LONGEST_PICTURE) values.png = toAddress(image.png);
  history.replaceState(null, "", writeAddress(values));
}

/** Take over the view that the address describes, and run what it shows. */
async function readState() {
  stop();
  const { values, complaints } = readAddress(location.hash);
  complaints.push(...settings.take(values));
  const wanted = values.image === undefined ? images[0]?.id : Number(values.image);
  if (values.png) {
    setImage({ png: fromAddress(values.png) });
  } else if (images.some((each) => each.id === wanted)) {
    setImage({ id: wanted });
  } else if (images.length) {
    complaints.push(`image in the address: expected a number from 0 to ${images.at(-1).id}, got ${wanted}.`);
    setImage({ id: images[0].id });
  }
  if (complaints.length) say(complaints.join(" "), true);
  else if (image) say(`${imageWords()[0].toUpperCase()}${imageWords().slice(1)}. Run the vote, or attack the image.`);
  else say("Drop an image file or choose one.");
  if (image && !complaints.length && values.show) await (values.show === "attack" ? runAttack() : runVote());
}

/* Runs */

function stop() {
  running?.abort();
  running = null;
}

/** Run some work that can be cancelled. New work ends the one before. */
async function run(work) {
  stop();
  settings.markValid();
  if (!image) {
    say("Error: no image is chosen. Choose one in the list or drop a file.", true);
    return;
  }
  const mine = new AbortController();
  running = mine;
  busy(true);
  try {
    await work(mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") {
      mine.abort(); // the service need not go on
      if (running === mine) fail(error);
    }
  } finally {
    if (running === mine || running === null) {
      clean.interrupted();
      attacked.interrupted();
      busy(false);
      running = null;
    }
  }
}

function busy(on) {
  byId("cancel").disabled = !on;
  byId("results").classList.toggle("idle", !on);
  byId("views").setAttribute("aria-busy", String(on));
  progress(0);
}

/** A pause that keeps its calls `milliseconds` apart on average. Readers who ask for no motion don't wait. */
function pacer(milliseconds) {
  if (calm()) return async () => {};
  let due = performance.now();
  return async () => {
    due = Math.max(due, performance.now() - 100) + milliseconds;
    const wait = due - performance.now();
    if (wait > 8 && !document.hidden) await new Promise((resolve) => setTimeout(resolve, wait));
  };
}

/** Take the events of a stream until its end, and return the data of the end. */
async function follow(path, body, signal, take) {
  for await (const [name, data] of events(path, body, signal)) {
    signal.throwIfAborted();
    await take(name, data);
    if (name === "end") return data;
  }
  throw new ServiceError("The service ended the run without a result.");
}

/** One vote, of the clean or of the attacked image. */
async function vote(view, what, chosen, signal) {
  const body = { image: what, ...chosen.vote, every: 1, pictures: Math.min(PICTURES, chosen.vote.num_samples) };
  const total = chosen.vote.num_samples;
  const pause = pacer(RACE_MILLISECONDS / total);
  view.begin(total, classes, chosen.voteWords, truth());
  return follow("v1/explore/vote", body, signal, async (name, data) => {
    view.take(name, data);
    if (name !== "draw") return;
    progress(data.draw / total);
    await pause();
  });
}

async function cleanVote(chosen, signal) {
  votedWith = "";
  say(`The vote on ${imageWords()} is running.`);
  const answer = await vote(clean, forService(), chosen, signal);
  votedWith = JSON.stringify(chosen.vote);
  return answer;
}

const runVote = () =>
  run(async (signal) => {
    const chosen = settings.read();
    shown = "vote";
    writeState();
    clearAttack(chosen.vote.num_samples, chosen.attack.steps);
    const answer = await cleanVote(chosen, signal);
    say(`The vote on ${imageWords()} has ended: ${answerWords(answer)}.`);
  });

const runAttack = () =>
  run(async (signal) => {
    const chosen = settings.read();
    byId("views").classList.add("attacking");
    shown = "attack";
    writeState();
    clearAttack(chosen.vote.num_samples, chosen.attack.steps);
    const before = votedWith === JSON.stringify(chosen.vote) ? clean.result : await cleanVote(chosen, signal);
    say(`The attack on ${imageWords()} is running.`);
    progress(0);
    reveal("attack-panel", "end");
    attack.begin(chosen.attack.steps, classes, chosen.attackWords);
    const body = { image: forService(), ...chosen.attack };
    if (truth() !== null) body.label = truth();
    const pause = pacer(ATTACK_MILLISECONDS / chosen.attack.steps);
    const made = await follow("v1/explore/attack", body, signal, async (name, data) => {
      attack.take(name, data);
      if (name !== "step") return;
      progress(data.step / chosen.attack.steps);
      await pause();
    });
    say("The vote on the attacked image is running.");
    attacked.showPicture(attack.lastPicture, "attacked image");
    reveal("attacked-panel", "start");
    const after = await vote(attacked, made.image, chosen, signal);
    byId("turned").textContent = turnWords(before, after);
    say(turnWords(before, after));
  });

function clearAttack(samples, steps) {
  attack.clear(steps, classes);
  attacked.clear(samples, classes);
  attacked.showPicture("");
  byId("turned").textContent = "";
}

/** Scroll to a part that something begins in, if it is out of sight. */
function reveal(id, block) {
  const { top, bottom, height } = byId(id).getBoundingClientRect();
  const inSight = block === "start" ? top >= 0 && top < innerHeight / 2 : top >= 0 && bottom <= innerHeight;
  if (inSight) return;
  byId(id).scrollIntoView({ block: height > innerHeight ? "start" : block, behavior: calm() ? "auto" : "smooth" });
}

const answerWords = (answer) => `${answer.class_name ?? classes[answer.class]} after ${plural(answer.draws, "draw")}`;

function turnWords(before, after) {
  const name = (number) => classes[number];
  const turned = before.class !== after.class;
  const vote = turned
    ? `The attack turned the vote from ${name(before.class)} to ${name(after.class)}`
    : `The vote is ${name(after.class)}, before and after the attack`;
  const [was, is] = [before.mean_network?.class, after.mean_network?.class];
  if (was === undefined || is === undefined) return `${vote}.`;
  if (was === is) return `${vote}; the mean network says ${name(was)} both times.`;
  return `${vote}; the mean network turned from ${name(was)} to ${name(is)}.`;
}

/* The beginning */

async function copyLink() {
  writeState();
  try {
    await navigator.clipboard.writeText(pageAddress() + location.hash);
    say("The link is copied. It opens this view and runs it again.");
  } catch {
    say("The browser does not let the page copy. The address of this page is the link to this view.");
  }
}

/** The model of the service, which may still be loading it. */
async function askForModel() {
  for (;;) {
    try {
      return await getJson("v1/model");
    } catch (error) {
      if (error.status !== 503) throw error;
      say("The service is loading its model.");
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter || 1)));
    }
  }
}

function describeModel(model) {
  const words = [`Model ${model.model}`, `${plural(model.classes.length, "class", "classes")}`];
  if (model.injection) words.push(`noise inside the network: ${model.injection}`);
  if (model.sigma > 0) words.push(`input noise of sigma ${short(model.sigma)}`);
  words.push(`smoothed ${model.version}`);
  byId("model").textContent = `${words.join(", ")}.`;
}

async function begin() {
  try {
    const model = await askForModel();
    classes = model.classes;
    settings = new Settings(model, () => writeState());
    describeModel(model);
    images = (await getJson("v1/images")).images;
  } catch (error) {
    byId("model").textContent = "The model is unknown.";
    return fail(error);
  }
  list.fill(images);
  byId("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    runVote();
  });
  byId("run-attack").addEventListener("click", runAttack);
  byId("copy-link").addEventListener("click", copyLink);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the view
    byId("results").focus();
  });
  byId("cancel").addEventListener("click", () => {
    stop();
    say("The run is cancelled.");
  });
  takeFiles(chooseFile);
  window.addEventListener("hashchange", readState);
  await readState();
}

begin();
