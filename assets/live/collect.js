// Entry of the Collect tab: the form's command, the collections, and what a folder holds.

import { escapeHtml, mountPanel, on } from "./bus.js";
import {
  ask, bar, button, Details, draw, duration, Form, follow, headHtml, jobs, onAction, onPress, says, tile, took, Unanswered,
} from "./jobs.js";
import { address } from "./socket.js";

const form = new Form("collect");
const PANELS = { command: (element) => form.mount(element), run: mountRun, contents: mountTasks };
const IDLE_MS = 10_000; // until folders are looked through that nothing here writes to
const places = {};
let selected = null; // name of a collection, or path of a folder
let folders = []; // of demonstrations, {path}
let contents = {}; // of the folder `path`: tasks, or what is wrong with them
let busy = false;
let asked = null; // {key, at}: what was asked for last, of which job, and when
let offered = null; // checkpoints in the form's list
let picture = { task: null, demo: 0 };

window.collect = {
  set: (name, value) => form.set(name, value),
  widgets: () => form.widgets(),
  reset: () => form.reset(),
  launch: async () => {
    const job = await form.launch();
    if (job) choose(pathOf(job));
  },
};

export const mount = (name, root) => mountPanel(PANELS, name, root);

export function configure(config, refill) {
  form.configure(config, refill);
}

on("jobs", look);

// What the server says of the folders and of what the chosen one holds; while no collection has
// made anything, only now and then.
async function look() {
  if (busy || !places.head?.offsetParent) return;
  const key = JSON.stringify([chosen()?.path, collections().map(({ name, state, summary }) => [name, state, summary.done])]);
  if (asked?.key === key && performance.now() < asked.at + IDLE_MS) return drawAll();
  asked = { key, at: performance.now() };
  busy = true; // large folders take their time when they are read first
  const found = await ask("/choices").catch(() => null);
  if (found) {
    folders = found.data;
    offer(found.checkpoints);
  }
  drawAll();
  const path = chosen()?.path;
  const answer = path && (await ask(`/contents?folder=${encodeURIComponent(path)}`).catch((error) => error));
  busy = false;
  if (path !== chosen()?.path) return look();
  if (!found || answer instanceof Unanswered) asked = null;
  if (!(answer instanceof Unanswered)) contents = { path, tasks: answer?.tasks ?? [], problem: answer?.message };
  drawAll();
}

// Policies that can drive before the expert does.
function offer(checkpoints) {
  if (checkpoints.join() === offered || !form.refill) return;
  offered = checkpoints.join();
  const choices = [["none", ""], ...checkpoints.map((path) => [path, path])];
  form.fill({ dagger: form.draft.dagger ? { choices } : { choices, value: "" } });
}

function choose(path) {
  selected = path;
  picture = { task: null, demo: 0 };
  drawAll();
  look();
}

const collections = () => (jobs.all ?? []).filter((job) => job.kind === "collect");
const pathOf = (job) => job.folder;

// Collections first, then the other folders that hold demonstrations.
function everywhere() {
  const own = collections().map((job) => ({ path: pathOf(job), job }));
  return [...own, ...folders.filter((f) => !own.some((o) => o.path === f.path)).map((f) => ({ path: f.path }))];
}

const chosen = () => everywhere().find((place) => place.path === selected) ?? everywhere()[0] ?? null;

// Of the chosen folder; null while it is read.
const tasks = () => (contents.path === chosen()?.path ? contents.tasks : null);

function drawAll() {
  drawRun();
  if (places.table) drawTasks();
}

// -- the selected collection ----------------------------------------------------------------------

function mountRun(element) {
  element.innerHTML = `<div></div><div></div>`;
  [places.head, places.more] = element.children;
  places.details = new Details(places.more);
  onAction(element, { choose: (path) => choose(path), reuse: () => form.reuse(chosen().job) });
  follow(element);
  drawRun();
}

function drawRun() {
  const place = chosen();
  places.more.hidden = !place?.job;
  draw(places.head, place ? pickHtml() + (place.job ? jobHtml(place.job) : folderHtml(place)) : emptyHtml());
  if (place?.job) places.details.show(place.job);
}

const emptyHtml = () =>
  jobs.all === null
    ? `<div class="st-empty">Looking for demonstrations …</div>`
    : `<div class="st-empty">No demonstrations yet. A scripted expert solves the tasks of a suite and writes LIBERO's
       own HDF5 files: choose a suite and press <b>Collect</b>.</div>`;

function pickHtml() {
  const all = everywhere();
  if (all.length < 2) return "";
  const chip = ({ path, job }) =>
    `<button class="st-chip" data-action="choose" data-name="${escapeHtml(path)}" aria-pressed="${path === chosen().path}"
      title="${escapeHtml(path)}">${escapeHtml(path)}${job?.state === "running" ? " …" : ""}</button>`;
  return `<div class="st-chips" role="group" aria-label="Folders of demonstrations">${all.map(chip).join("")}</div>`;
}

const sum = (key) => tasks()?.reduce((total, task) => total + task[key], 0).toLocaleString("en") ?? "–";
const distinct = () => (tasks() ? new Set(tasks().map((task) => task.instruction)).size : "–");

function jobHtml(job) {
  const { summary: s } = job;
  return `${headHtml(job, [job.values.suite], [button("reuse", job.name, "Use these settings")])}
    ${bar(job)}${says(job)}
    <dl class="st-tiles">
      ${tile("demonstrations", `${s.done ?? 0} <small>of ${s.total ?? "–"}</small>`)}
      ${tile("tasks in files", distinct())}
      ${tile("steps in files", sum("steps"))}
      ${job.state === "running" ? tile("left", duration(s.eta_s)) : tile("took", duration(took(job)))}
    </dl>`;
}

const folderHtml = ({ path }) => `<header class="st-head"><h3 title="${escapeHtml(path)}">${escapeHtml(path)}</h3></header>
  <dl class="st-tiles">
    ${tile("demonstrations", sum("demos"))}
    ${tile("tasks", distinct())}
    ${tile("steps", sum("steps"))}
  </dl>`;

// -- what it holds --------------------------------------------------------------------------------

function mountTasks(element) {
  element.innerHTML = `<header class="st-head"><h3>Tasks <small>LIBERO's HDF5 or LeRobot v3</small></h3></header>
    <div class="st-scroll"></div><figure class="st-strip" hidden><img alt="">
      <figcaption></figcaption></figure>`;
  places.table = element.querySelector(".st-scroll");
  places.strip = element.querySelector("figure");
  places.table.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-task]");
    if (row) show(row.dataset.task, 0);
  });
  onPress(places.table, "tr[data-task]", ({ task }) => show(task, 0));
  onAction(element, { demo: (_, { dataset }) => show(picture.task, picture.demo + Number(dataset.by)) });
  drawTasks();
}

// A LeRobot dataset holds several tasks, and a task may lie in several files.
const idOf = ({ file, instruction }) => `${file}: ${instruction}`;
const pictured = () => tasks()?.find((row) => idOf(row) === picture.task);

function drawTasks() {
  const card = document.getElementById("collect-contents");
  card.hidden = !chosen();
  if (card.hidden) return;
  const rows = tasks();
  if (!rows?.length) {
    places.strip.hidden = true;
    const none = contents.problem ?? "A task appears here once all its demonstrations are made.";
    return draw(places.table, `<div class="st-empty">${rows ? escapeHtml(none) : "Reading …"}</div>`);
  }
  if (!pictured()) {
    const first = rows.find((row) => row.demos);
    picture = { task: first ? idOf(first) : null, demo: 0 };
  }
  draw(places.table, `<table><thead><tr><th>instruction</th><th>demonstrations</th><th>steps</th></tr></thead>
    <tbody>${rows.map(rowHtml).join("")}</tbody></table>`);
  drawStrip();
}

function rowHtml(row) {
  const { file, instruction, demos, steps, error } = row;
  return `
  <tr data-task="${escapeHtml(idOf(row))}" tabindex="0" aria-selected="${row === pictured()}" title="${escapeHtml(file)}">
    <td class="st-name">${escapeHtml(instruction)}${error ? ` <em>${escapeHtml(error)}</em>` : ""}</td>
    <td>${demos}</td><td>${steps.toLocaleString("en")}</td></tr>`;
}

function show(task, demo) {
  picture = { task, demo: 0 };
  const demos = pictured()?.demos;
  picture.demo = demos ? (demo + demos) % demos : 0;
  drawTasks();
}

function drawStrip() {
  const row = pictured();
  places.strip.hidden = !row?.demos;
  if (!row?.demos) return;
  const query = new URLSearchParams({
    folder: chosen().path, file: row.file, instruction: row.instruction, demo: picture.demo,
  });
  const url = address(`jobs/strip.jpg?${query}`).href;
  const image = places.strip.querySelector("img");
  if (image.src !== url) Object.assign(image, { src: url, alt: `${row.instruction}: first, middle and last picture` });
  const step = (by, text, label) =>
    `<button class="st-button" data-action="demo" data-by="${by}" data-name="" aria-label="${label}">${text}</button>`;
  draw(places.strip.querySelector("figcaption"), `${step(-1, "‹", "Previous demonstration")}
    <span>demonstration ${picture.demo + 1} of ${row.demos} · start, middle, end</span>${step(1, "›", "Next demonstration")}`);
}
