// Entry of the OOD lab: the form's command, the evaluation runs, and which of them are compared.

import { escapeHtml, live, mountPanel, number, on, recall, remember } from "./bus.js";
import {
  answerOf, ask, bar, button, Details, draw, duration, Form, follow, headHtml, jobs, onAction, pill, says, tile, took,
} from "./jobs.js";
import { fetched, toast } from "./chrome.js";
import * as study from "./study.js";
import * as tables from "./tables.js";

const form = new Form("evaluate");
const PANELS = { command: (element) => form.mount(element), runs: mountRuns, study: study.mount, tables: tables.mount };
const remembered = JSON.parse(recall("studio-lab") ?? "{}");
let selected = remembered.selected ?? null;
let compared = remembered.compared ? new Set(remembered.compared) : null; // null: chosen by itself
let offered = null;
const busy = new Set(); // what is being kept just now
let asked = null; // the calibration that would replace another: the server's answer
const places = {};

window.lab = {
  set: (name, value) => form.set(name, Array.isArray(value) ? value.join(",") : value),
  widgets: () => form.widgets(),
  launch: async () => {
    const job = await form.launch();
    if (!job) return;
    selected = job.name;
    if (compared) compared.add(job.name);
    keep();
  },
};

export const mount = (name, root) => mountPanel(PANELS, name, root);

export function configure(config, refill) {
  form.configure(config, refill);
  study.configure();
}

on("jobs", () => {
  if (!places.table) return;
  drawRuns();
  if (places.table.offsetParent) offer();
});

// Checkpoints that can be evaluated.
async function offer() {
  const found = await ask("/choices").catch(() => null);
  if (!found || found.checkpoints.join() === offered) return;
  offered = found.checkpoints.join();
  form.fill({ checkpoint: { choices: found.checkpoints, value: form.draft.checkpoint } });
}

export const runs = () => (jobs.all ?? []).filter((job) => job.kind === "evaluate");
const current = () => runs().find((job) => job.name === selected) ?? runs()[0] ?? null;
const of = (job) => job.summary.sha256 ?? job.values.checkpoint;

// Those that a person ticked, or else the newest run and all others of its checkpoint, those that
// come with the studio by themselves.
function chosen() {
  const all = runs();
  if (compared) return all.filter((job) => compared.has(job.name));
  const shipped = (job) => job.state === "shipped";
  return all.filter((job) => of(job) === of(all[0]) && shipped(job) === shipped(all[0]));
}

function keep() {
  remember("studio-lab", JSON.stringify({ selected, compared: compared && [...compared] }));
  drawRuns();
}

function compare(name) {
  compared ??= new Set(chosen().map((job) => job.name));
  if (!compared.delete(name)) compared.add(name);
  keep();
}

// -- the runs -------------------------------------------------------------------------------------

function mountRuns(element) {
  element.innerHTML = `<div></div><div></div><div class="st-scroll"></div>`;
  [places.head, places.more, places.table] = element.children;
  places.details = new Details(places.more);
  onAction(element, {
    ...Object.fromEntries(Object.keys(KEPT).map((action) => [action, () => keeping(action)])),
    spare: () => {
      asked = null;
      drawRuns();
    },
  });
  places.table.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-name]");
    if (!row) return;
    if (target.closest("label")) {
      if (target.tagName === "INPUT") compare(row.dataset.name);
      return;
    }
    selected = row.dataset.name;
    keep();
  });
  places.table.addEventListener("keydown", ({ key, target }) => {
    if (key !== "Enter" || !target.matches("tr[data-name]")) return;
    selected = target.dataset.name;
    keep();
  });
  follow(element);
  drawRuns();
}

function drawRuns() {
  const run = current();
  const all = runs();
  places.more.hidden = !run;
  draw(places.head, run ? runHtml(run) : emptyHtml());
  if (run) places.details.show(run);
  places.table.hidden = !all.length;
  draw(places.table, `<table><thead><tr><th></th><th>run</th><th></th><th>suites</th><th>perturbed</th><th>episodes</th><th>success</th>
    <th>time</th></tr></thead><tbody>${all.map(rowHtml).join("")}</tbody></table>`);
  const names = chosen().map((job) => job.name);
  const done = chosen().map((job) => job.summary.done ?? 0);
  study.show(names, done.join());
  tables.show(names, done.join());
}

const emptyHtml = () =>
  jobs.all === null
    ? `<div class="st-empty">Looking for evaluations …</div>`
    : `<div class="st-empty">No evaluation yet. Run nominal episodes first, then perturbed ones of the same checkpoint:
       their energies will be compared here.</div>`;

const rate = ({ summary: s }) => (s.done ? `${Math.round((100 * s.successes) / s.done)} %` : "–");
const kind = ({ values }) => (!values.perturb || values.perturb === "none" ? "nominal" : values.perturb);

function runHtml(run) {
  const { summary: s, values } = run;
  return `${headHtml(run, [values.suite, kind(run), values.checkpoint], studyButtons())}
    ${bar(run)}${says(run)}
    <dl class="st-tiles">
      ${tile("episodes", `${s.done ?? 0} <small>of ${s.total ?? "–"}</small>`)}
      ${tile("success", rate(run))}
      ${tile("errors", s.errors ?? 0)}
      ${run.state === "running" ? tile("left", duration(s.eta_s)) : tile("took", duration(took(run)))}
    </dl>`;
}

const keepButton = (action) => button(action, "", KEPT[action][Number(busy.has(action))]);
const level = ({ mu, sigma, episodes }) => `μ ${number(mu)}, σ ${number(sigma)} of ${episodes} episodes`;

function studyButtons() {
  if (!asked) return ["csv", "report", "calibrate"].map(keepButton);
  const question = `Replace ${level(asked.before)} by ${level(asked)}?`;
  return [`<span>${escapeHtml(question)}</span>`, button("spare", "", "Cancel"), keepButton("replace")];
}

function rowHtml(run) {
  const { summary: s, values, name } = run;
  return `<tr data-name="${escapeHtml(name)}" tabindex="0" aria-selected="${name === current().name}">
    <td><label style="--tone:${kind(run) === "nominal" ? "var(--st-in)" : "var(--st-out)"}"><input type="checkbox"
      aria-label="Compare ${escapeHtml(name)}" ${chosen().includes(run) ? "checked" : ""}></label></td>
    <td class="st-name" title="${escapeHtml(name)}">${escapeHtml(name)}</td><td>${pill(run)}</td>
    <td>${escapeHtml((values.suite ?? "").replaceAll("libero_", ""))}</td><td>${escapeHtml(kind(run))}</td>
    <td>${s.done ?? 0} of ${s.total ?? "–"}</td><td>${rate(run)}</td>
    <td>${duration(took(run))}</td></tr>`;
}

// -- what can be kept -----------------------------------------------------------------------------

const KEPT = {
  csv: ["CSV", "CSV …", () => save("episodes.csv")],
  report: ["Report", "Report …", () => save("report.html")],
  calibrate: ["Save as calibration", "Saving …", () => calibrate(false)],
  replace: ["Replace", "Saving …", () => calibrate(true)],
};

async function keeping(action) {
  if (busy.has(action)) return;
  busy.add(action);
  drawRuns();
  try {
    await KEPT[action][2]();
  } finally {
    busy.delete(action);
    drawRuns();
  }
}

const save = (what) => fetched(study.address(what), what);

// A calibration that is there already is replaced only by who has seen the numbers of both.
async function calibrate(replace) {
  const nominal = chosen().filter((job) => kind(job) === "nominal").map((job) => job.name);
  const runs = replace ? asked.runs : nominal; // those that the question was about
  const found = await answerOf("lab/calibrate", { runs, replace }).catch((error) => toast(error.message));
  asked = found?.before ? { ...found, runs } : null;
  if (!found || asked) return;
  const used = found.used ? "Live uses it from its next episode on" : `Live still plans with ${live.checkpoint?.name ?? "another"}`;
  toast(`${found.checkpoint} is calibrated over ${found.episodes} episodes: μ ${number(found.mu)}, σ ${number(found.sigma)}. ${used}.`, "note");
}
