// One score of the compared runs: its histogram, its ROC, the threshold moved by hand, the episodes.

import { emit, escapeHtml, live, number, recall, remember } from "./bus.js";
import { toast } from "./chrome.js";
import { answerOf, draw, openTab, tile } from "./jobs.js";
import { CONFIG, fitted, onTheme, plotly, themed } from "./plot.js";
import { address as url, ready, send } from "./socket.js";

const FIGURES = { histogram: "Scores", roc: "ROC", episodes: "Episodes" };
const WAIT_MS = 120; // between movements of a slider
const SAVED = { width: 900, height: 520 }; // pixels
const asked = { score: null, unit: "mean", scaled: false, k: 1, suite: "", task: "", difficulty: "", move: "", ...JSON.parse(recall("studio-study") ?? "{}") };
let options = null; // scores and units that there are
let runs = [];
let seen = null; // what the last answer was of
let figures = {};
let newest = 0;
let timer = null;
let root = null;

export function mount(element) {
  root = element;
  root.innerHTML = `<div class="st-card st-asked"></div><div class="st-grid">
    ${Object.entries(FIGURES).map(([name, title]) => `<figure class="st-card" data-plot="${name}"><figcaption><h3>${title}</h3>
      <span><button class="st-chip" data-save="svg" aria-label="${title} as SVG">SVG</button>
      <button class="st-chip" data-save="png" aria-label="${title} as PNG">PNG</button></span></figcaption>
      <div id="lab-plot-${name}" role="img" aria-label="${title}"></div></figure>`).join("")}
    <figure class="st-card st-confusion"><figcaption><h3>At the threshold</h3></figcaption><div></div></figure></div>
    <div class="st-card st-empty" hidden></div>`;
  root.addEventListener("input", ({ target }) => target.dataset.field && change(target));
  root.addEventListener("click", ({ target }) => target.dataset.save && savePlot(target));
  onTheme(paint);
  ask();
}

export async function configure() {
  options = await answerOf("lab/options");
  asked.score ??= options.paper;
  if (root) drawControls();
  ask();
}

// Compare these runs; `progress` tells when one of them has more episodes.
export function show(names, progress) {
  runs = names;
  const now = JSON.stringify([names, progress]);
  if (now === seen || !document.getElementById("lab-page").offsetParent) return;
  seen = now;
  ask();
}

// Without a score, until it is known which there are, the paper's is meant.
const query = () => {
  const { score, ...rest } = asked;
  return new URLSearchParams({ ...(score && { score }), ...rest, runs: runs.join(",") });
};
export const address = (what) => url(`lab/${what}?${query()}`).href;
export const question = () => query();

// -- what is asked --------------------------------------------------------------------------------

const choice = (field, label, entries) => `<label>${label}<select data-field="${field}">${entries
  .map(([value, text]) => `<option value="${escapeHtml(value)}" ${String(asked[field]) === String(value) ? "selected" : ""}>${escapeHtml(text)}</option>`)
  .join("")}</select></label>`;

function drawControls() {
  const suites = Object.keys(live.config?.suites ?? {});
  const any = ["", "any"];
  root.querySelector(".st-asked").innerHTML = `
    ${choice("score", "Score", options.scores.map(({ name, label }) => [name, name === options.paper ? `${label} (the paper's)` : label]))}
    ${choice("unit", "Of", options.units.map((name) => [name, name === "plan" ? "each plan" : `${name} of a rollout`]))}
    ${choice("suite", "Suite", [any, ...suites.map((name) => [name, name])])}
    ${choice("task", "Task", [any, ...Array.from({ length: 10 }, (_, i) => [i, i])])}
    ${choice("difficulty", "Difficulty", [any, ...[1, 2, 3, 4, 5].map((d) => [d, d])])}
    ${choice("move", "Camera move", [any, ...["orbit", "distance", "turn"].map((m) => [m, m])])}
    <label class="st-check"><input type="checkbox" data-field="scaled" ${asked.scaled ? "checked" : ""}>in σ of its task</label>
    <label class="st-slide">k = <output>${asked.k}</output><input type="range" data-field="k" min="-2" max="5" step="0.1" value="${asked.k}"
      aria-label="Threshold in σ above μ"></label>`;
}

function change({ dataset, type, checked, value }) {
  asked[dataset.field] = type === "checkbox" ? checked : type === "range" ? Number(value) : value;
  root.querySelector(".st-slide output").textContent = asked.k;
  remember("studio-study", JSON.stringify(asked));
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT_MS);
  if (dataset.field !== "k") emit("lab-filter");
}

// Only the newest question's answer counts.
async function ask() {
  if (!root || !options || !runs.length) return drawAnswer({ figures: {}, problem: "" });
  const mine = ++newest;
  const answer = await answerOf(`lab/study?${query()}`).catch((error) => ({ figures: {}, problem: error.message }));
  if (mine === newest) drawAnswer(answer);
}

// -- the answer -----------------------------------------------------------------------------------

function drawAnswer(answer) {
  if (!root) return;
  figures = answer.figures;
  const problem = root.querySelector(":scope > .st-empty");
  problem.hidden = !answer.problem;
  problem.textContent = answer.problem ? `${answer.problem}. There are ${answer.nominal ?? 0} nominal and ${answer.perturbed ?? 0} perturbed episodes.` : "";
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
  if (!root || !live.config || !figures.histogram) return;
  const Plotly = await plotly();
  for (const name of Object.keys(FIGURES)) {
    const place = document.getElementById(`lab-plot-${name}`);
    const { data, layout } = figures[name];
    const own = { ...themed(fitted(layout, place.clientWidth)), uirevision: JSON.stringify([runs, asked.score, asked.unit, asked.scaled]) };
    await Plotly.react(place, data, own, CONFIG);
    if (name === "episodes" && !place.dataset.ready) {
      place.dataset.ready = "yes";
      place.on("plotly_click", ({ points }) => points[0]?.customdata && replay(JSON.parse(points[0].customdata)));
    }
  }
}

// The same scene, seen and asked for in the same way: the episode happens again in Live.
function replay({ scene, instruction, camera, light, sensor }) {
  if (!ready()) return;
  const nominal = live.config.defaults;
  send("camera", camera ?? nominal.camera);
  send("light", light ?? nominal.light);
  send("sensor", sensor ?? nominal.sensor);
  send("load", scene);
  send("instruction", { text: instruction });
  send("run");
  openTab("Live");
  toast("This episode runs again in Live.", "note");
}

async function savePlot(target) {
  const { plot } = target.closest("figure").dataset;
  const Plotly = await plotly();
  await Plotly.downloadImage(`lab-plot-${plot}`, { ...SAVED, format: target.dataset.save, filename: `${plot}-${asked.score}` });
}
