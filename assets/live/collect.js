// Entry of the Collect tab: the form's command, the collections, and what a folder's files hold.

import { escapeHtml, mountPanel, on } from "./bus.js";
import {
  ask, bar, Details, draw, duration, Form, follow, headHtml, jobs, onAction, says, tile, took,
} from "./jobs.js";
import { address } from "./socket.js";

const form = new Form("collect");
const PANELS = { command: (element) => form.mount(element), run: mountRun, files: mountFiles };
const places = {};
let selected = null; // name of a collection, or path of a folder
let folders = []; // of demonstrations, {path, files}
let files = null; // of the selected folder
let busy = false;
let offered = null; // checkpoints in the form's list
let picture = { file: null, demo: 0 };

window.collect = {
  set: (name, value) => form.set(name, value),
  widgets: () => form.widgets(),
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

// What the server says of the folders and of the chosen one's files.
async function look() {
  if (busy || !places.head?.offsetParent) return;
  busy = true; // large folders take their time when they are read first
  const found = await ask("/choices").catch(() => null);
  if (found) {
    folders = found.data.filter((folder) => folder.files);
    offer(found.checkpoints);
  }
  drawRun();
  const path = chosen()?.path;
  const answer = path && (await ask(`/contents?folder=${encodeURIComponent(path)}`).catch(() => null));
  busy = false;
  if (path !== chosen()?.path) return look();
  files = answer?.files ?? [];
  drawRun();
  if (places.table) drawFiles();
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
  picture = { file: null, demo: 0 };
  files = null;
  drawRun();
  look();
}

const collections = () => (jobs.all ?? []).filter((job) => job.kind === "collect");
const pathOf = (job) => job.command.match(/--out (\S+)/)?.[1] ?? job.name;

// Collections first, then the other folders that hold demonstrations.
function everywhere() {
  const own = collections().map((job) => ({ path: pathOf(job), job }));
  return [...own, ...folders.filter((f) => !own.some((o) => o.path === f.path)).map((f) => ({ path: f.path }))];
}

const chosen = () => everywhere().find((place) => place.path === selected) ?? everywhere()[0] ?? null;

// -- the selected collection ----------------------------------------------------------------------

function mountRun(element) {
  element.innerHTML = `<div></div><div></div>`;
  [places.head, places.more] = element.children;
  places.details = new Details(places.more);
  onAction(element, { choose: (path) => choose(path) });
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

const steps = () => (files ?? []).reduce((sum, file) => sum + file.steps, 0);

function jobHtml(job) {
  const { summary: s } = job;
  return `${headHtml(job, [job.values.suite])}
    ${bar(job)}${says(job)}
    <dl class="st-tiles">
      ${tile("demonstrations", `${s.done ?? 0} <small>of ${s.total ?? "–"}</small>`)}
      ${tile("files", (files ?? []).length)}
      ${tile("steps in files", steps().toLocaleString("en"))}
      ${job.state === "running" ? tile("left", duration(s.eta_s)) : tile("took", duration(took(job)))}
    </dl>`;
}

const folderHtml = ({ path }) => `<header class="st-head"><h3 title="${escapeHtml(path)}">${escapeHtml(path)}</h3></header>
  <dl class="st-tiles">
    ${tile("demonstrations", (files ?? []).reduce((sum, file) => sum + file.demos, 0))}
    ${tile("files", (files ?? []).length)}
    ${tile("steps in files", steps().toLocaleString("en"))}
  </dl>`;

// -- its files ------------------------------------------------------------------------------------

function mountFiles(element) {
  element.innerHTML = `<header class="st-head"><h3>Files <small>LIBERO's HDF5, one per task</small></h3></header>
    <div class="st-scroll"></div><figure class="st-strip" hidden><img alt="">
      <figcaption></figcaption></figure>`;
  places.table = element.querySelector(".st-scroll");
  places.strip = element.querySelector("figure");
  places.table.addEventListener("click", ({ target }) => {
    const row = target.closest("tr[data-file]");
    if (row) show(row.dataset.file, 0);
  });
  places.table.addEventListener("keydown", ({ key, target }) => {
    if (key === "Enter" && target.matches("tr[data-file]")) show(target.dataset.file, 0);
  });
  onAction(element, { demo: (_, { dataset }) => show(picture.file, picture.demo + Number(dataset.by)) });
  drawFiles();
}

function drawFiles() {
  const card = document.getElementById("collect-files");
  card.hidden = !chosen();
  if (card.hidden) return;
  if (!files?.length) {
    places.strip.hidden = true;
    const text = files ? "A task's file appears here once all its demonstrations are made." : "Reading …";
    return draw(places.table, `<div class="st-empty">${text}</div>`);
  }
  if (!files.some((row) => row.file === picture.file)) picture = { file: files.find((row) => row.demos)?.file ?? null, demo: 0 };
  draw(places.table, `<table><thead><tr><th>instruction</th><th>demonstrations</th><th>steps</th></tr></thead>
    <tbody>${files.map(rowHtml).join("")}</tbody></table>`);
  drawStrip();
}

const rowHtml = ({ file, instruction, demos, steps: count, error }) => `
  <tr data-file="${escapeHtml(file)}" tabindex="0" aria-selected="${file === picture.file}" title="${escapeHtml(file)}">
    <td class="st-name">${escapeHtml(instruction)}${error ? ` <em>${escapeHtml(error)}</em>` : ""}</td>
    <td>${demos}</td><td>${count.toLocaleString("en")}</td></tr>`;

function show(file, demo) {
  const { demos } = files.find((row) => row.file === file);
  picture = { file, demo: demos ? (demo + demos) % demos : 0 };
  drawFiles();
}

function drawStrip() {
  const row = files.find(({ file }) => file === picture.file);
  places.strip.hidden = !row?.demos;
  if (!row?.demos) return;
  const query = new URLSearchParams({ folder: chosen().path, file: row.file, demo: picture.demo });
  const url = address(`jobs/strip.jpg?${query}`).href;
  const image = places.strip.querySelector("img");
  if (image.src !== url) Object.assign(image, { src: url, alt: `${row.instruction}: first, middle and last picture` });
  const step = (by, text, label) =>
    `<button class="st-button" data-action="demo" data-by="${by}" data-name="" aria-label="${label}">${text}</button>`;
  draw(places.strip.querySelector("figcaption"), `${step(-1, "‹", "Previous demonstration")}
    <span>demonstration ${picture.demo + 1} of ${row.demos} · start, middle, end</span>${step(1, "›", "Next demonstration")}`);
}
