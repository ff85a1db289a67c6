// Entry of the OOD lab: the form's command, the evaluation runs, and which of them are compared.

import { escapeHtml, mountPanel, on, recall, remember } from "./bus.js";
import { bar, Details, draw, duration, follow, headHtml, jobs, onAction, pill, says, tile, took } from "./jobs.js";
import * as keep from "./keep.js";
import { PlannedForm } from "./plan.js";
import * as study from "./study.js";
import * as tables from "./tables.js";

const form = new PlannedForm("evaluate", { lists: ["suite"] });
const PANELS = { command: (element) => form.mount(element), runs: mountRuns, study: mountStudy, tables: tables.mount };
const remembered = JSON.parse(recall("studio-lab") ?? "{}");
let selected = remembered.selected ?? null;
let compared = remembered.compared ? new Set(remembered.compared) : null; // null: chosen by itself
const MANY = 8; // runs, from which on they can be filtered
const places = {};

window.lab = {
  set: (name, value) => form.set(name, Array.isArray(value) ? value.join(",") : value),
  widgets: () => form.widgets(),
  reset: () => form.reset(),
  launch: async () => {
    const job = await form.launch();
    if (!job) return;
    selected = job.name;
    if (compared && joins(job)) compared.add(job.name);
    settle();
  },
};

export const mount = (name, root) => mountPanel(PANELS, name, root);

export function configure(config, refill) {
  form.configure(config, refill);
  study.configure();
}

on("jobs", () => places.table && drawRuns());

export const runs = () => (jobs.all ?? []).filter((job) => job.kind === "evaluate");
const current = () => runs().find((job) => job.name === selected) ?? runs()[0] ?? null;

// What can be compared has one checkpoint and one number of chains; what comes with the studio
// stands by itself.
const group = ({ summary: s, state }) => [s.sha256, s.chains, state === "shipped"].join();

// Those that a person ticked, or else the newest run with episodes and all others of its group.
function chosen() {
  const all = runs();
  if (compared) return all.filter((job) => compared.has(job.name));
  const some = all.filter(({ summary: s }) => s.sha256 && s.done);
  return some.filter((job) => group(job) === group(some[0]));
}

// Whether a new run joins the ticked ones: as far as its form tells, it can be compared with them.
function joins({ values }) {
  const chains = (s) => s.chains ?? 1;
  return chosen().every((job) => job.values.checkpoint === values.checkpoint && chains(job.summary) === chains(values));
}

function settle() {
  remember("studio-lab", JSON.stringify({ selected, compared: compared && [...compared] }));
  drawRuns();
}

function compare(name) {
  compared ??= new Set(chosen().map((job) => job.name));
  if (!compared.delete(name)) compared.add(name);
  settle();
}

// -- the runs -------------------------------------------------------------------------------------

function mountRuns(element) {
  element.innerHTML = `<div></div><div></div><input type="search" class="st-find" placeholder="Filter the runs" aria-label="Filter the runs">
    <div class="st-scroll"></div>`;
  [places.head, places.more, places.find, places.table] = element.children;
  places.find.addEventListener("input", drawRuns);
  places.details = new Details(places.more);
  onAction(element);
  places.table.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-name]");
    if (!row) return;
    if (target.closest("label")) {
      if (target.tagName === "INPUT") compare(row.dataset.name);
      return;
    }
    selected = row.dataset.name;
    settle();
  });
  places.table.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (![" ", "Enter"].includes(key) || !target.matches("tr[data-name]")) return;
    event.preventDefault(); // Space would scroll
    selected = target.dataset.name;
    settle();
  });
  follow(element);
  drawRuns();
}

function mountStudy(element) {
  study.mount(element);
  keep.mount(element.querySelector(".st-keep"));
  if (places.table) drawRuns();
}

function drawRuns() {
  const run = current();
  const all = runs();
  places.more.hidden = !run;
  draw(places.head, run ? runHtml(run) : emptyHtml());
  if (run) places.details.show(run);
  places.table.hidden = !all.length;
  places.find.hidden = all.length < MANY && !places.find.value;
  const ticked = chosen();
  const rows = all.filter(found).map((job) => rowHtml(job, ticked.includes(job)));
  draw(places.table, `<table><thead><tr><th></th><th>run</th><th></th><th>suites</th><th>perturbed</th><th>episodes</th><th>success</th>
    <th>time</th></tr></thead><tbody>${rows.join("")}</tbody></table>`);
  const [names, done] = [ticked.map((job) => job.name), ticked.map((job) => job.summary.done ?? 0)];
  keep.show(names, ticked.filter((job) => kind(job) === "nominal").map((job) => job.name), all.length > 0);
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
  return `${headHtml(run, [values.suite, kind(run), values.checkpoint])}
    ${bar(run)}${says(run)}
    <dl class="st-tiles">
      ${tile("episodes", `${s.done ?? 0} <small>of ${s.total ?? "–"}</small>`)}
      ${tile("success", rate(run))}
      ${tile("errors", s.errors ?? 0)}
      ${run.state === "running" ? tile("left", duration(s.eta_s)) : tile("took", duration(took(run)))}
    </dl>`;
}

// What a person looks for: every word, in the name or anywhere else in the row.
function found(run) {
  const text = [run.name, run.state, run.values.suite, run.values.checkpoint, kind(run)].join(" ").toLowerCase();
  return places.find.value.toLowerCase().split(" ").every((word) => text.includes(word));
}

function rowHtml(run, ticked) {
  const { summary: s, values, name } = run;
  return `<tr data-name="${escapeHtml(name)}" tabindex="0" aria-selected="${name === current().name}">
    <td><label style="--tone:${kind(run) === "nominal" ? "var(--st-in)" : "var(--st-out)"}"><input type="checkbox"
      aria-label="Compare ${escapeHtml(name)}" ${ticked ? "checked" : ""}></label></td>
    <td class="st-name" title="${escapeHtml(name)}">${escapeHtml(name)}</td><td>${pill(run)}</td>
    <td>${escapeHtml((values.suite ?? "").replaceAll("libero_", ""))}</td><td>${escapeHtml(kind(run))}</td>
    <td>${s.done ?? 0} of ${s.total ?? "–"}</td><td>${rate(run)}</td>
    <td>${duration(took(run))}</td></tr>`;
}
