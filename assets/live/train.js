// Entry of the Train tab: the form's command, the selected run, its curves, and all runs.

import { escapeHtml, live, mountPanel, on, recall, remember } from "./bus.js";
import { toast } from "./chrome.js";
import * as curves from "./curves.js";
import {
  act, ask, bar, button, Details, draw, duration, figure, Form, follow, headHtml, jobs, onAction, onPress, openTab,
  pill, says, tile, took,
} from "./jobs.js";
import { send } from "./socket.js";

const form = new Form("train");
const PANELS = { command: (element) => form.mount(element), run: mountRun, curves: curves.mount, runs: mountRuns };
const remembered = JSON.parse(recall("studio-runs") ?? "{}");
let selected = remembered.selected ?? null;
const compared = new Set(remembered.compared ?? []);
let choice = null; // folders of demonstrations, checkpoints, and the one that the studio began with

window.train = {
  set: (name, value) => form.set(name, value),
  widgets: () => form.widgets(),
  reset: () => form.reset("data"),
  choices: () => form.ready.then(choices),
  launch: async () => {
    const job = await form.launch();
    if (job) select(job.name);
  },
};

export const mount = (name, root) => mountPanel(PANELS, name, root);

export function configure(config, refill) {
  form.configure(config, refill);
  choices();
}

// -- the form -------------------------------------------------------------------------------------

// The folders and checkpoints that there are by now; the first folder is chosen if none is.
async function choices() {
  const found = await ask("/choices").catch(() => null);
  if (!found || JSON.stringify(found) === JSON.stringify(choice)) return;
  choice = found;
  const folders = folderChoices();
  const filled = { data: { choices: folders }, init: { choices: [["random weights", ""], ...found.checkpoints.map((c) => [c, c])] } };
  if (!form.draft.data && folders.length) filled.data.value = folders[0][1];
  if (!form.draft.init) filled.init.value = "";
  form.fill(filled);
  drawAll();
}

const folderChoices = () =>
  (choice?.data ?? []).map(({ path, files }) => [files ? `${path} · ${files} ${files > 1 ? "tasks" : "task"}` : path, path]);

// The Recordings tab hands demonstrations over; the form is made when its tab is looked at first.
// Training goes on from the checkpoint named `driver`, or else from Live's, with its architecture
// where that is known. Returns its path, "" where neither is one of the choices.
export async function trainOn(path, driver) {
  openTab("Train");
  await form.ready;
  await choices();
  const named = (name) => name && choice?.checkpoints.find((one) => `/${one}`.endsWith(`/${name}`));
  const init = named(driver) ?? named(live.checkpoint?.name) ?? "";
  const started = runs().find((run) => init.startsWith(`${run.folder}/`))?.values;
  const { preset, head = "energy" } = init && init === named(live.checkpoint?.name) ? live.checkpoint : (started ?? {});
  form.fill({ data: { choices: folderChoices(), value: path }, init, ...(preset && { preset, head }) });
  return init;
}

// -- which run ------------------------------------------------------------------------------------

const runs = () => (jobs.all ?? []).filter((job) => job.kind === "train");
const current = () => runs().find((job) => job.name === selected) ?? runs()[0] ?? null;

function select(name) {
  selected = name;
  keep();
}

function compare(name) {
  if (!compared.delete(name)) compared.add(name);
  keep();
}

function keep() {
  remember("studio-runs", JSON.stringify({ selected, compared: [...compared] }));
  drawAll();
}

// The run that is looked at, and those beside it.
function shown() {
  const run = current();
  return run ? [run, ...runs().filter((job) => compared.has(job.name) && job.name !== run.name)] : [];
}

let places = {};

function drawAll() {
  if (places.head) drawRun();
  if (places.table) drawRuns();
  if (jobs.all) curves.show(shown());
}

on("jobs", () => {
  drawAll();
  if (places.head?.offsetParent) choices();
});
on("hello", drawAll); // Live may use another checkpoint now

// -- the selected run -----------------------------------------------------------------------------

function mountRun(element) {
  element.innerHTML = `<div></div><div></div>`;
  [places.head, places.more] = element.children;
  places.details = new Details(places.more);
  onAction(element, { use, reuse: () => form.reuse(current()), collect: () => openTab("Collect") });
  follow(element);
  drawRun();
}

function drawRun() {
  const run = current();
  places.more.hidden = !run;
  draw(places.head, run ? runHtml(run) : emptyHtml());
  if (run) places.details.show(run);
}

function emptyHtml() {
  if (jobs.all === null) return `<div class="st-empty">Looking for runs …</div>`;
  const none = choice && !choice.data.length;
  return `<div class="st-empty">No run yet. ${
    none
      ? `There are no demonstrations either: ${button("collect", "", "Collect some")}`
      : "Choose demonstrations and press <b>Launch</b>: loss, energy gap and success will be drawn here."
  } ${backButton()}</div>`;
}

function runHtml(run) {
  const { summary: s, values } = run;
  const gpu = s.gpu_percent === undefined ? "" : tile("GPU", figure(s.gpu_percent, 0), "%");
  return `
    ${headHtml(run, [architecture(values), values.data], useButtons(run))}
    ${bar(run)}${says(run)}
    <dl class="st-tiles">
      ${tile("step", figure(s.step, 0))}
      ${s.denoising === undefined ? tile("L1", figure(s.l1, 3)) : tile("error of the noise", figure(s.denoising, 3))}
      ${tile("best held-out L1", figure(s.best_val_l1, 3))}
      ${s.denoising === undefined ? tile("energy gap", figure(s.energy_gap, 2)) : ""}
      ${tile("success", success(s))}
      ${tile("samples/s", figure(s.samples_per_s, 1))}
      ${tile("CPU", figure(s.cpu_percent, 0), "% of one core")}${gpu}
      ${run.state === "running" ? tile("left", duration(s.eta_s)) : tile("took", duration(s.elapsed_s ?? took(run)))}
    </dl>`;
}

// How often the simulator saw the task done, with the 95 % interval of the rate.
function success({ success_rate: rate, success_interval: interval, successes, episodes }) {
  if (rate === undefined) return "–";
  if (!interval) return `${figure(100 * rate, 0)} %`;
  const [low, high] = interval.map((edge) => figure(100 * edge, 0));
  return `${successes} of ${episodes} <small>(${low} – ${high} %)</small>`;
}

// The preset, and the head where it is not the paper's.
function architecture({ preset = "", head = "energy" }) {
  return head === "energy" ? preset : `${preset} ${head}`;
}

function useButtons(run) {
  const best = run.checkpoints.map((which, i) => {
    const used = `${run.name}/${which}` === live.checkpoint?.name;
    return button("use", `${run.folder}/${which}`, used ? `Live uses ${which}` : `Use ${which} in Live`, i ? "" : "st-primary");
  });
  return [...best, backButton(), button("reuse", run.name, "Use these settings")];
}

// To the checkpoint that the studio began with, once Live plans with another.
function backButton() {
  const first = choice?.first;
  const away = first && live.checkpoint && live.checkpoint.sha256 !== first.sha256;
  return away ? button("use", first.path, `Back to ${escapeHtml(first.name)}`) : "";
}

// The checkpoint drives Live from the next episode on; this page's own begins at once.
async function use(path) {
  toast(`Loading ${path} …`, "note");
  const answer = await act("/use", { path });
  if (!answer) return;
  send("reset");
  openTab("Live");
  toast(`Live plans with ${answer.checkpoint}.`, "note");
}

// -- all runs -------------------------------------------------------------------------------------

function mountRuns(element) {
  element.innerHTML = `<header class="st-head"><h3>Runs <small>tick to compare</small></h3></header>
    <div class="st-scroll"></div>`;
  places.table = element.querySelector(".st-scroll");
  places.table.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-name]");
    if (!row) return;
    if (target.closest("label")) {
      if (target.tagName === "INPUT") compare(row.dataset.name);
    } else select(row.dataset.name);
  });
  onPress(places.table, "tr[data-name]", ({ name }) => select(name));
  drawRuns();
}

function drawRuns() {
  document.getElementById("train-runs").hidden = !runs().length;
  const rows = runs().map(rowHtml).join("");
  draw(places.table, `<table><thead><tr><th></th><th>run</th><th></th><th>preset</th><th>step</th><th title="L1 of the refined actions; of a head without an energy, its error">loss</th>
    <th title="best L1 on held-out demonstrations">held-out</th><th>gap</th><th>success</th><th>samples/s</th><th>time</th></tr></thead><tbody>${rows}</tbody></table>`);
}

function rowHtml(run) {
  const { summary: s, values, name } = run;
  const isCurrent = name === current().name;
  const visible = isCurrent || compared.has(name);
  const tone = visible ? curves.colour(name) : "transparent";
  return `<tr data-name="${escapeHtml(name)}" tabindex="0" aria-selected="${isCurrent}">
    <td><label style="--tone:${tone}"><input type="checkbox" aria-label="Compare ${escapeHtml(name)}"
      ${visible ? "checked" : ""} ${isCurrent ? "disabled" : ""}></label></td>
    <td class="st-name" title="${escapeHtml(name)}">${escapeHtml(name)}</td><td>${pill(run)}</td>
    <td>${escapeHtml(architecture(values))}</td><td>${figure(s.step, 0)}</td><td>${figure(s.l1 ?? s.denoising, 3)}</td>
    <td>${figure(s.best_val_l1, 3)}</td><td>${figure(s.energy_gap, 2)}</td>
    <td>${success(s)}</td>
    <td>${figure(s.samples_per_s, 1)}</td><td>${duration(s.elapsed_s ?? took(run))}</td></tr>`;
}
