// Entry of the Recordings tab: the library with its filters, and what can be done with many at once.

import { escapeHtml, mountPanel, on, recall, remember } from "./bus.js";
import { fetched, toast } from "./chrome.js";
import { button, draw, follow, onAction, openTab } from "./jobs.js";
import * as viewer from "./viewer.js";
import * as record from "./record.js";
import { developed, discard, driverBar, outcomePill, poll, restore, row, shelf, tell, title, titleHtml, undoable, url, working } from "./shelf.js";
import { trainOn } from "./train.js";

const PANELS = { library: mountLibrary, viewer: viewer.mount, record: record.mount };
const FILTERS = { all: "all", human: "driven by hand", kept: "kept", trash: "trash" };
const HZ = 20; // control steps a second
const NARROW = "(max-width: 860px)"; // where the viewer is below the list
const remembered = JSON.parse(recall("studio-recordings") ?? "{}");
const view = { filter: "all", words: "", selected: null, ...remembered };
const ticked = new Set();
let emptying = false; // whether the trash is to be emptied is asked
const places = {};

export const mount = (name, root) => mountPanel(PANELS, name, root);

function mountLibrary(element) {
  element.innerHTML = `<header class="st-head"><h3>Recordings</h3><div class="st-chips" role="group" aria-label="Which"></div>
      <input type="search" placeholder="words of the task" aria-label="Filter by words"></header>
    <div class="st-many" role="status" hidden></div><ol class="st-list" role="listbox" aria-label="Recordings"></ol>`;
  [places.chips, places.search] = [element.querySelector(".st-chips"), element.querySelector("input")];
  [places.many, places.list] = [element.querySelector(".st-many"), element.querySelector("ol")];
  places.search.value = view.words;
  places.search.addEventListener("input", () => keep({ words: places.search.value }));
  places.list.addEventListener("click", choose);
  places.list.addEventListener("keydown", (event) => event.key === "Enter" && choose(event));
  onAction(element, {
    filter: (name) => {
      emptying = false;
      keep({ filter: name });
    },
    train, keep: () => tell("/keep", { names: chosen() }),
    libero: () => save("libero"), lerobot: () => save("lerobot"),
    discard: () => discard(chosen()), restore: () => restore(chosen()), undo: () => restore(undoable()),
    empty: () => confirmed(true), spare: () => confirmed(false), erase,
    live: () => openTab("Live"),
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

function choose({ target }) {
  const item = target.closest("[data-id]");
  if (!item) return;
  const { id } = item.dataset;
  if (target.closest("label")) {
    if (target.tagName !== "INPUT") return;
    if (!ticked.delete(id)) ticked.add(id);
    drawAll();
  } else if (view.filter !== "trash") {
    keep({ selected: id });
    if (matchMedia(NARROW).matches) document.getElementById("recordings-viewer").scrollIntoView({ behavior: "smooth" });
  }
}

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
  await trainOn(found.data);
  const warning = found.held_out
    ? ` ${found.held_out} of the recordings begin from the initial states 40–49, which evaluations are made on: leave them out there.` : "";
  toast(`${found.demonstrations} demonstrations are in ${found.data}.${warning}`, "note");
}

async function save(format) {
  const names = chosen();
  if (!(await developed(names))) return;
  toast("Preparing these recordings …", "note");
  await fetched(url("/export", { names: names.join(), format }), `recordings-${format}.zip`);
}

// Asked in the page: where it is framed, browsers refuse a dialog of their own.
function confirmed(asking) {
  emptying = asking;
  drawAll();
  places.many.querySelector("[data-action=spare]")?.focus();
}

function erase() {
  emptying = false;
  return tell("/empty", {});
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
  draw(places.list, rows.map(rowHtml).join("") || `<li class="st-empty">${emptyText()}</li>`);
  viewer.show(row(view.selected));
}

function drawMany() {
  const names = chosen();
  const trash = view.filter === "trash";
  const undo = undoable().length;
  const full = trash && shelf.trash.length;
  places.many.hidden = !names.length && !undo && !full;
  const text = names.length ? `${names.length} chosen` : full && emptying ? `Delete ${recordings(full)} for good?` : undo ? `${undo} discarded` : "";
  const buttons = !names.length
    ? full && emptying
      ? [button("spare", "", "Cancel"), button("erase", "", "Delete")] // a double click deletes nothing
      : [undo && button("undo", "", "Undo"), full && button("empty", "", "Empty the trash")]
    : trash
      ? [button("restore", "", "Take back")]
      : [
          button("train", "", "Train on these", "st-primary"), button("keep", "", "Keep"), button("libero", "", "LIBERO HDF5"),
          button("lerobot", "", "LeRobot v3"), button("discard", "", "Discard"),
        ];
  draw(places.many, `<span>${text}</span><span class="st-actions">${buttons.filter(Boolean).join("")}</span>`);
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

const stamp = (seconds) => {
  const date = new Date(1000 * seconds);
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.toLocaleDateString([], { day: "numeric", month: "short" })} `;
  return day + date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
};

function rowHtml(one) {
  const { id, scene, steps, human, work = shelf.work[id] } = one;
  const picture = one.thumb
    ? `<img alt="" loading="lazy" src="${escapeHtml(url("/thumb.jpg", { name: id, trash: view.filter === "trash", at: one.thumb }))}">` : "<b></b>";
  const about = scene && [
    escapeHtml(`${scene.suite.replace("libero_", "")} ${scene.task}`), `init ${scene.init}`, `${(steps / HZ).toFixed(1)} s`,
    human ? `${Math.round((100 * human) / steps)} % by hand` : "", stamp(one.begun),
  ];
  const progress = working(id) ? `<small class="st-busy">${work.what === "replay" ? "replaying" : "scoring"} ${work.done || ""}${
    work.total ? ` of ${work.total}` : " …"}</small>` : "";
  return `<li data-id="${id}" tabindex="0" role="option" aria-selected="${id === view.selected}">
    <label><input type="checkbox" aria-label="Choose ${id}" ${ticked.has(id) ? "checked" : ""}></label>${picture}
    <div><strong title="${titleHtml(one)}">${titleHtml(one)}</strong>
      <small>${one.error ? escapeHtml(one.error) : about.filter(Boolean).join(" · ")}</small>
      ${one.error ? "" : driverBar(one)}${progress}</div>
    <span class="st-state">${outcomePill(one)}${one.kept ? `<em title="kept">★ kept</em>` : ""}</span></li>`;
}
