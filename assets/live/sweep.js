// Entry of the lab's sweeps: the form's command, and the map of one state.

import { escapeHtml, live, mountPanel, on } from "./bus.js";
import { bar, Details, draw, follow, headHtml, jobs, onAction, onWidth, Question, says } from "./jobs.js";
import { PlannedForm } from "./plan.js";
import { CONFIG, onTheme, plotly, themed } from "./plot.js";
import { learn } from "./study.js";

const form = new PlannedForm("sweep");
const PANELS = { command: (element) => form.mount(element), map: mountMap };
const places = {};
let selected = null;
let score = ""; // the first that the points have
let scores = [];
let answer = null; // with the path that it answers
const answers = new Question((found, path) => {
  answer = { ...found, path };
  drawMap();
  paint();
});

window.sweep = {
  set: (name, value) => form.set(name, value),
  widgets: () => form.widgets(),
  reset: () => form.reset(),
  launch: async () => {
    const job = await form.launch();
    if (job) choose(job.name);
  },
};

export const mount = (name, root) => mountPanel(PANELS, name, root);

export function configure(config, refill) {
  form.configure(config, refill);
  drawMap();
}

on("jobs", async () => {
  if (!places.head) return;
  if (!scores.length) scores = (await learn())?.scores ?? [];
  drawMap();
});

const sweeps = () => (jobs.all ?? []).filter((job) => job.kind === "sweep");
const current = () => sweeps().find((job) => job.name === selected) ?? sweeps()[0] ?? null;

function choose(name) {
  selected = name;
  drawMap();
}

function mountMap(element) {
  element.innerHTML = `<div></div><div></div><div id="sweep-plot" role="img" aria-label="Scores of the sweep"></div>`;
  [places.head, places.more, places.plot] = element.children;
  places.details = new Details(places.more);
  onAction(element, { choose });
  places.head.addEventListener("change", ({ target }) => {
    score = target.value;
    drawMap();
  });
  follow(element);
  onTheme(paint);
  onWidth(places.plot, paint);
  drawMap();
}

function drawMap() {
  if (!places.head) return;
  const job = current();
  places.more.hidden = !job;
  places.plot.hidden = !known(job)?.figure; // the last map may be another sweep's
  draw(places.head, job ? jobHtml(job) : emptyHtml());
  if (!job) return;
  places.details.show(job);
  if (job.summary.done && places.head.offsetParent) answers.ask(pathOf(job), `${pathOf(job)} ${job.summary.done}`);
}

const pathOf = ({ name }) => `lab/sweep?${new URLSearchParams({ run: name, ...(score && { score }) })}`;
const known = (job) => (job && answer?.path === pathOf(job) ? answer : null);

async function paint() {
  if (!live.config) return;
  const Plotly = await plotly();
  if (!answer?.figure || !places.plot.offsetParent) return;
  await Plotly.react(places.plot, answer.figure.data, themed(answer.figure.layout), CONFIG);
  places.plot.dataset.points = answer.done;
}

const emptyHtml = () => `<header class="st-head"><h3>Sweeps</h3></header>
  <div class="st-empty">How far may the camera move before the model stops trusting itself? Open <b>New sweep</b> and try.</div>`;

function jobHtml(job) {
  const chips = sweeps().map(({ name }) => `<button class="st-chip" data-action="choose" data-name="${escapeHtml(name)}"
    aria-pressed="${name === job.name}">${escapeHtml(name)}</button>`);
  const shown = score || known(job)?.score;
  const options = scores.map(({ name, label }) => `<option value="${name}" ${name === shown ? "selected" : ""}>${escapeHtml(label)}</option>`);
  const { values: v } = job;
  return `${chips.length > 1 ? `<div class="st-chips" role="group" aria-label="Sweeps">${chips.join("")}</div>` : ""}
    ${headHtml(job, [v.suite && `${v.suite} ${v.task ?? 0}, initial state ${v.init ?? 40}`])}
    ${job.state === "finished" ? "" : bar(job) + says(job)}
    <div class="st-asked"><label>Score<select>${options.join("")}</select></label></div>
    ${known(job)?.problem ? `<div class="st-empty">${escapeHtml(known(job).problem)}</div>` : ""}`;
}
