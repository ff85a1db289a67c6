// Entry of the Recordings tab: the library with its filters, and what can be done with many at once.

import { escapeHtml, mountPanel, on, recall, remember, scrolling } from "./bus.js";
import { fetched, toast } from "./chrome.js";
import { button, draw, follow, NARROW, onAction, openTab, posting, when } from "./jobs.js";
import * as viewer from "./viewer.js";
import * as record from "./record.js";
import { developed, discard, driverBar, outcomePill, poll, restore, row, shelf, tell, title, titleHtml, undoable, url, working } from "./shelf.js";
import { trainOn } from "./train.js";

const PANELS = { library: mountLibrary, viewer: viewer.mount, record: record.mount };
const FILTERS = { all: "all", human: "driven by hand", kept: "kept", trash: "trash" };
const HZ = 20; // control steps a second
const remembered = JSON.parse(recall("studio-recordings") ?? "{}");
const view = { filter: "all", words: "", selected: null, ...remembered };
const ticked = new Set();
const PAGE = 100; // rows that are drawn at first, and more by each press
let most = PAGE;
let anchor = null; // id that was ticked last: a range begins there
let doomed = null; // ids in the trash that are to be deleted for good: asked
const places = {};

export const mount = (name, root) => mountPanel(PANELS, name, root);

function mountLibrary(element) {
  element.innerHTML = `<header class="st-head"><h3>Recordings</h3><div class="st-chips" role="group" aria-label="Which"></div>
      <input type="search" placeholder="words of the task" aria-label="Filter by words"></header>
    <div class="st-many" hidden></div><ol class="st-list" aria-label="Recordings"></ol>`;
  [places.chips, places.search] = [element.querySelector(".st-chips"), element.querySelector("input")];
  [places.many, places.list] = [element.querySelector(".st-many"), element.querySelector("ol")];
  places.search.value = view.words;
  places.search.addEventListener("input", () => keep({ words: places.search.value }));
  places.list.addEventListener("click", choose);
  onAction(element, {
    filter: (name) => {
      [doomed, most] = [null, PAGE];
      keep({ filter: name });
    },
    train, keep: () => tell("/keep", { names: chosen() }),
    libero: () => save("libero"), lerobot: () => save("lerobot"),
    discard: () => discard(chosen()), restore: () => restore(chosen()), undo: () => restore(undoable()),
    empty: () => doom(shown().map((one) => one.id)), spare: () => doom(null), erase,
    live: () => openTab("Live"),
    open, all: markAll,
    more: () => {
      most += PAGE;
      drawAll();
    },
  });
  follow(element);
  drawAll();
}

on("jobs", () => places.list?.offsetParent && poll());
on("recordings", drawAll);

function keep(changes) {
  Object.assign(view, changes);
  remember("studio-recordings", JSON.stringify(view));
  drawAll();
}

// -- which ----------------------------------------------------------------------------------------

const all = () => (view.filter === "trash" ? shelf.trash : (shelf.rows ?? []));

function shown() {
  const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (one) => words.every((word) => `${title(one)} ${one.task} ${one.scene?.suite} ${one.id}`.toLowerCase().includes(word));
  const wanted = { human: (one) => one.human > 0, kept: (one) => one.kept }[view.filter] ?? (() => true);
  return all().filter((one) => wanted(one) && fits(one));
}

const chosen = () => shown().map((one) => one.id).filter((id) => ticked.has(id)); // a discarded one is not shown

function choose({ target, shiftKey }) {
  const id = target.closest("[data-id]")?.dataset.id;
  if (!id || target.closest("button")) return; // which says what it does
  if (!target.closest("label")) open(id);
  else if (target.tagName === "INPUT") tick(id, target.checked, shiftKey);
}

function open(id) {
  if (view.filter === "trash") return;
  keep({ selected: id });
  if (matchMedia(NARROW).matches) document.getElementById("recordings-viewer").scrollIntoView({ behavior: scrolling() });
}

// With a range, all between the one that was ticked last and this one become as this one is.
function tick(id, on, range) {
  const ids = shown().map((one) => one.id);
  const here = ids.indexOf(id);
  const there = range && ids.includes(anchor) ? ids.indexOf(anchor) : here;
  mark(ids.slice(Math.min(here, there), Math.max(here, there) + 1), on);
  anchor = id;
}

function mark(ids, on) {
  for (const id of ids) ticked[on ? "add" : "delete"](id);
  drawAll();
}

const markAll = () => mark(shown().map((one) => one.id), chosen().length < shown().length);

// -- many at once ---------------------------------------------------------------------------------

let preparing = false;

async function train() {
  if (preparing) return;
  preparing = true;
  await gather(chosen()).finally(() => (preparing = false));
}

async function gather(names) {
  toast("Preparing these recordings …", "note");
  if (!(await developed(names))) return;
  const found = await tell("/gather", { names });
  if (!found) return;
  const init = await trainOn(found.data, driver(names));
  const start = init && ` The training goes on from ${init}.`;
  const warning = found.held_out
    ? ` ${found.held_out} of the recordings begin from the initial states 40–49, which evaluations are made on: leave them out there.` : "";
  const parent = found.data.replace(/\/[^/]*$/, "");
  const told = `${found.demonstrations} demonstrations are in ${found.data}; choose ${parent} to train on these and the earlier ones.`;
  toast(`${told}${start}${warning}`, "note");
}

// The checkpoint that most of these were recorded with.
function driver(names) {
  const counts = new Map();
  for (const { checkpoint } of names.map(row)) counts.set(checkpoint, (counts.get(checkpoint) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

async function save(format) {
  const names = chosen();
  if (!(await developed(names))) return;
  toast("Preparing these recordings …", "note");
  await fetched(url("/export", {}), `recordings-${format}.zip`, posting({ names, format }));
}

// Asked in the page: where it is framed, browsers refuse a dialog of their own.
function doom(names) {
  doomed = names;
  drawAll();
  places.many.querySelector("[data-action=spare]")?.focus();
}

// Those that the question was about: more may have been thrown away since.
function erase() {
  const names = doomed;
  doom(null);
  return tell("/delete", { names });
}

// -- drawing --------------------------------------------------------------------------------------

function drawAll() {
  if (!places.list) return;
  const chip = ([name, text]) =>
    `<button class="st-chip" data-action="filter" data-name="${name}" aria-pressed="${view.filter === name}">${text}${
      name === "trash" && shelf.trash.length ? ` ${shelf.trash.length}` : ""}</button>`;
  draw(places.chips, Object.entries(FILTERS).map(chip).join(""));
  drawMany();
  const rows = shown();
  if (shelf.rows && view.filter !== "trash" && !row(view.selected)) view.selected = rows[0]?.id ?? null;
  const rest = rows.length - most;
  const more = rest > 0 ? `<li class="st-more">${button("more", "", `Show ${Math.min(PAGE, rest)} more of ${rest}`)}</li>` : "";
  draw(places.list, rows.slice(0, most).map(rowHtml).join("") + more || `<li class="st-empty">${emptyText()}</li>`);
  viewer.show(row(view.selected));
}

function drawMany() {
  const names = chosen();
  const trash = view.filter === "trash";
  const undo = undoable().length;
  const count = shown().length;
  const full = trash && count;
  places.many.hidden = !count && !undo;
  const text = names.length ? `${names.length} chosen` : doomed ? `Delete ${recordings(doomed.length)} for good?` : undo ? `${undo} discarded` : "";
  const empty = full === shelf.trash.length ? "Empty the trash" : `Delete these ${full} …`;
  const buttons = !names.length
    ? doomed
      ? [button("spare", "", "Cancel"), button("erase", "", "Delete")] // a double click deletes nothing
      : [undo && button("undo", "", "Undo"), full && button("empty", "", empty)]
    : trash
      ? [button("restore", "", "Take back")]
      : [
          button("train", "", "Train on these", "st-primary"), button("keep", "", "Keep"), button("libero", "", "LIBERO HDF5"),
          button("lerobot", "", "LeRobot v3"), button("discard", "", "Discard"),
        ];
  const every = names.length === count ? "checked" : "";
  const box = count ? `<label class="st-all"><input type="checkbox" data-action="all" ${every}> all ${count}</label>` : "";
  draw(places.many, `${box}<span role="status">${text}</span><span class="st-actions">${buttons.filter(Boolean).join("")}</span>`);
  const input = places.many.querySelector("input");
  if (input) input.indeterminate = names.length > 0 && !every;
}

const recordings = (count) => `${count} recording${count === 1 ? "" : "s"}`;

function emptyText() {
  if (shelf.refused) return escapeHtml(shelf.refused);
  if (shelf.rows === null) return "Looking for recordings …";
  if (view.filter === "trash") return "Nothing was thrown away.";
  if (shelf.rows.length) return "No recording fits.";
  return `Nothing is recorded yet. Drive the arm in ${button("live", "", "Live")} and the episode is here by itself;
    to record what the policy does, tick “Record every episode” there.`;
}

function rowHtml(one) {
  const { id, scene, steps, human, work = shelf.work[id] } = one;
  const picture = one.thumb
    ? `<img alt="" loading="lazy" src="${escapeHtml(url("/thumb.jpg", { name: id, trash: view.filter === "trash", at: one.thumb }))}">` : "<b></b>";
  const about = scene && [
    escapeHtml(`${scene.suite.replace("libero_", "")} ${scene.task}`), `init ${scene.init}`, `${(steps / HZ).toFixed(1)} s`,
    human ? `${Math.round((100 * human) / steps)} % by hand` : "", when(one.begun),
  ];
  const progress = working(id) ? `<small class="st-busy">${work.what === "replay" ? "replaying" : "scoring"} ${work.done || ""}${
    work.total ? ` of ${work.total}` : " …"}</small>` : "";
  const name = view.filter === "trash" ? titleHtml(one)
    : `<button data-action="open" data-name="${id}" aria-label="Look through ${titleHtml(one)}">${titleHtml(one)}</button>`;
  return `<li data-id="${id}" aria-current="${id === view.selected}">
    <label><input type="checkbox" aria-label="Choose ${id}" ${ticked.has(id) ? "checked" : ""}></label>${picture}
    <div><strong title="${titleHtml(one)}">${name}</strong>
      <small>${one.error ? escapeHtml(one.error) : about.filter(Boolean).join(" · ")}</small>
      ${one.error ? "" : driverBar(one)}${progress}</div>
    <span class="st-state">${outcomePill(one)}${one.kept ? `<em title="kept">★ kept</em>` : ""}</span></li>`;
}
