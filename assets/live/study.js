// One score of the compared runs: its histogram, its ROC, the threshold moved by hand, the episodes.

import { emit, escapeHtml, live, number, on, recall, remember } from "./bus.js";
import * as episodes from "./episodes.js";
import { answerOf, draw, onWidth, Question, tile } from "./jobs.js";
import { CONFIG, onTheme, plotly, themed } from "./plot.js";
import { address as url } from "./socket.js";

const FIGURES = { histogram: "Scores", roc: "ROC", episodes: "Episodes" };
const WAIT_MS = 120; // between movements of a slider
const SAVED = { width: 900, height: 520 }; // pixels
const asked = { score: null, unit: "mean", scaled: false, k: 1, suite: "", task: "", difficulty: "", move: "", ...JSON.parse(recall("studio-study") ?? "{}") };
const answers = new Question(drawAnswer);
let options = null; // scores and units that there are
let runs = [];
let progress = ""; // of the runs: other answers when there are more episodes
let figures = {};
let asking = null; // what the pending answer is of, but for k
let drawn = null; // and what the figures are of
let toldBy = null; // the score of the answer
let checkpoint = null; // and whose episodes it is of
let timer = null;
let root = null;

export function mount(element) {
  root = element;
  root.innerHTML = `<div class="st-card st-keep" hidden></div><div class="st-card st-asked"></div><div class="st-grid">
    ${Object.entries(FIGURES).map(([name, title]) => `<figure class="st-card" data-plot="${name}"><figcaption><h3>${title}</h3>
      <span><button class="st-chip" data-save="svg" aria-label="${title} as SVG">SVG</button>
      <button class="st-chip" data-save="png" aria-label="${title} as PNG">PNG</button></span></figcaption>
      <div id="lab-plot-${name}" role="img" aria-label="${title}"></div>${name === "episodes" ? `<div class="st-picked"></div>` : ""}</figure>`).join("")}
    <figure class="st-card st-confusion"><figcaption><h3>At the threshold</h3></figcaption><div></div></figure></div>
    <div class="st-card st-empty" hidden></div>`;
  root.addEventListener("input", ({ target }) => target.dataset.field && change(target));
  root.addEventListener("click", ({ target }) => target.dataset.save && savePlot(target));
  episodes.mount(root.querySelector(".st-picked"), paint);
  onTheme(paint);
  onWidth(root, paint);
  drawControls();
  ask();
}

on("hello", () => root && drawControls()); // Live's configuration names the suites

// The scores and units that can be asked for; null while the server does not answer.
export async function learn() {
  options ??= await answerOf("lab/options").catch(() => null);
  return options;
}

export async function configure() {
  if (!(await learn())) return;
  if (root) drawControls();
  ask();
}

// Compare these runs, of which so many episodes are `done`.
export function show(names, done) {
  [runs, progress] = [names, done];
  if (!document.getElementById("lab-page").offsetParent) return;
  if (options) ask();
  else configure();
}

// Without a score the first that the episodes have is meant, the paper's before all.
const query = () => {
  const { score, ...rest } = asked;
  return new URLSearchParams({ ...(score && { score }), ...rest, runs: runs.join(",") });
};
const scoreName = () => asked.score ?? toldBy ?? options.paper;
export const address = (what) => url(`lab/${what}?${query()}`).href;

// What the tables are of: they hold for every threshold.
export function question() {
  const all = query();
  all.delete("k");
  return all;
}

// -- what is asked --------------------------------------------------------------------------------

const choice = (field, label, entries, now = asked[field]) => `<label>${label}<select data-field="${field}">${entries
  .map(([value, text]) => `<option value="${escapeHtml(value)}" ${String(now) === String(value) ? "selected" : ""}>${escapeHtml(text)}</option>`)
  .join("")}</select></label>`;

function drawControls() {
  if (!options) return;
  const suites = live.config?.suites ?? {};
  const any = ["", "any"];
  draw(root.querySelector(".st-asked"), `
    ${choice("score", "Score", options.scores.map(({ name, label }) => [name, name === options.paper ? `${label} (the paper's)` : label]), scoreName())}
    ${choice("unit", "Of", options.units.map((name) => [name, name === "plan" ? "each plan" : `${name} of a rollout`]))}
    ${choice("suite", "Suite", [any, ...Object.keys(suites).map((name) => [name, name])])}
    ${choice("task", "Task", [any, ...Array.from({ length: tasks(suites) }, (_, i) => [i, i])])}
    ${choice("difficulty", "Difficulty", [any, ...[1, 2, 3, 4, 5].map((d) => [d, d])])}
    ${choice("move", "Camera move", [any, ...["orbit", "distance", "turn"].map((m) => [m, m])])}
    <label class="st-check"><input type="checkbox" data-field="scaled" ${asked.scaled ? "checked" : ""}>in σ of its task</label>
    <label class="st-slide">k = <output>${asked.k}</output><input type="range" data-field="k" min="-2" max="5" step="0.1" value="${asked.k}"
      aria-label="Threshold in σ above μ"></label>`);
}

// How many tasks the chosen suite has, or the largest.
const tasks = (suites) => Math.max(0, ...Object.entries(suites).filter(([name]) => [name, ""].includes(asked.suite)).map(([, all]) => all.length));

function change({ dataset, type, checked, value }) {
  asked[dataset.field] = type === "checkbox" ? checked : type === "range" ? Number(value) : value;
  if (dataset.field === "suite") asked.task = ""; // another suite's tasks are others
  drawControls();
  remember("studio-study", JSON.stringify(asked));
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT_MS);
  busy(true);
  if (dataset.field !== "k") emit("lab-filter");
}

// Of the same episodes by the same score only what k moves is asked for.
async function ask() {
  if (!root) return;
  if (!options || !runs.length) {
    answers.drop();
    return drawAnswer({});
  }
  const what = `${question()} ${progress}`;
  const moved = what === drawn;
  asking = what;
  const answered = answers.ask(`lab/study?${query()}${moved ? "&moved=true" : ""}`, `${query()} ${progress}`);
  busy(Boolean(answers.pending));
  await answered;
  busy(Boolean(answers.pending));
}

// What stands there is not yet the answer to what is asked.
const busy = (yes) => root.querySelector(".st-grid").setAttribute("aria-busy", String(yes));

// -- the answer -----------------------------------------------------------------------------------

function drawAnswer(answer) {
  const names = Object.keys(answer.figures ?? {});
  const before = asking === drawn ? figures : {}; // an answer to another k leaves out what stays
  figures = Object.fromEntries(names.map((name) => [name, { ...before[name], ...answer.figures[name] }]));
  drawn = figures.histogram ? asking : null;
  toldBy = answer.score ?? toldBy;
  checkpoint = answer.checkpoint ?? null;
  drawControls();
  const problem = root.querySelector(":scope > .st-empty");
  const counted = answer.nominal === undefined ? "" : `. There are ${answer.nominal} nominal and ${answer.perturbed} perturbed episodes.`;
  problem.hidden = !answer.problem;
  problem.textContent = answer.problem ? answer.problem + counted : "";
  root.querySelector(".st-asked").hidden = !runs.length;
  root.querySelector(".st-grid").hidden = !figures.histogram;
  if (answer.confusion) draw(root.querySelector(".st-confusion > div"), confusionHtml(answer));
  root.dataset.episodes = (answer.nominal ?? 0) + (answer.perturbed ?? 0);
  paint();
}

const percent = (value) => `${(100 * value).toFixed(1)}`;

function confusionHtml({ confusion: c, threshold, mu, sigma, chosen_k: chosen, held_out: held }) {
  const cell = (count, good, words) => `<td data-good="${good}"><b>${count}</b>${words}</td>`;
  return `<dl class="st-tiles">
      ${tile("balanced accuracy", percent(c.balanced_accuracy), "%")}
      ${tile("caught (TPR)", percent(c.true_positive_rate), "%")}
      ${tile("false alarms (FPR)", percent(c.false_positive_rate), "%")}
      ${tile("F1", percent(c.f1), "%")}
    </dl>
    <table class="st-matrix"><tbody>
      <tr><th></th><th>above</th><th>below</th></tr>
      <tr><th>perturbed</th>${cell(c.true_positives, true, "caught")}${cell(c.false_negatives, false, "missed")}</tr>
      <tr><th>nominal</th>${cell(c.false_positives, false, "false alarms")}${cell(c.true_negatives, true, "passed")}</tr>
    </tbody></table>
    <p class="st-says">T = μ + kσ = ${number(mu, 3)} + ${asked.k} · ${number(sigma, 3)} = ${number(threshold, 3)}</p>
    <p class="st-about">With the k that one half of the episodes prefers${chosen === null ? "" : ` (${chosen})`}, the other half:
      balanced accuracy ${held ? `${percent(held.balanced_accuracy)} %` : "–"}.</p>`;
}

async function paint() {
  if (!root || !live.config) return;
  const Plotly = await plotly();
  if (!figures.histogram || !root.offsetParent) return; // hidden, it has no width yet
  for (const name of Object.keys(FIGURES)) {
    const place = document.getElementById(`lab-plot-${name}`);
    const { data, layout } = name === "episodes" ? episodes.figure(figures[name], checkpoint) : figures[name];
    const own = { ...themed(layout), uirevision: JSON.stringify([runs, scoreName(), asked.unit, asked.scaled]) };
    await Plotly.react(place, data, own, CONFIG);
    if (name === "episodes" && !place.dataset.ready) {
      place.dataset.ready = "yes";
      place.on("plotly_click", ({ points }) => points[0]?.customdata && episodes.choose(points[0].customdata));
    }
  }
}

async function savePlot(target) {
  const { plot } = target.closest("figure").dataset;
  const Plotly = await plotly();
  await Plotly.downloadImage(`lab-plot-${plot}`, { ...SAVED, format: target.dataset.save, filename: `${plot}-${scoreName()}` });
}
