// Inside one plan: the slice of its landscape and the descent that found its action.

import { latestPlan, live, number, on, select } from "./bus.js";
import { CONFIG, fitted, onFit, onTheme, plotly, themed } from "./plot.js";
import { request } from "./socket.js";

const TEMPLATES = {
  landscape: `
    <div class="st-plot" id="live-landscape-plot" role="img" aria-label="Energy landscape around the plan"></div>
    <ul class="st-reading" aria-label="Energies of the marked chunks"></ul>
    <div class="st-empty"></div>
    <div class="st-wait" hidden><i class="st-spinner"></i></div>`,
  descent: `
    <div class="st-plot" id="live-descent-plot" role="img" aria-label="Descent of the plan's action"></div>
    <ul class="st-reading" aria-label="Energies of the marked chunks"></ul>
    <div class="st-empty"></div>
    <div class="st-wait" hidden><i class="st-spinner"></i></div>
    <div class="st-player" hidden>
      <button id="live-descent-play" class="st-primary" aria-label="Play the descent">Play</button>
      <input type="range" id="live-descent-k" min="0" max="15" step="1" aria-label="MCMC iteration">
      <output id="live-descent-label">k = 15</output>
    </div>`,
};

const EMPTY = {
  landscape: "Click a plan in the trace or the filmstrip to see the landscape around it.",
  descent: "The descent of the selected plan, iteration by iteration, will be here.",
};

const FRAME_MS = 240;
const panes = {}; // kind -> {root, stamp, visible, stale, figure}
let query = { timestep: 0, dims: [0, 1], span: 1.5, grid: 50, mode: "contour" };
let chains = 1;
let follow = false;
let timer = null;
let delay = null;

export function mount(kind, element) {
  element.innerHTML = TEMPLATES[kind];
  const pane = { root: element, stamp: null, visible: false, stale: false, figure: null };
  panes[kind] = pane;
  clear(kind);
  new IntersectionObserver(([entry]) => {
    pane.visible = entry.isIntersecting;
    if (pane.visible && pane.stale) ask(kind);
  }).observe(element);
  on(kind === "landscape" ? "slice" : kind, (answer) => show(kind, answer));
  on("select", () => refresh(kind));
  on("hello", () => refresh(kind)); // what was asked before a lost connection is not answered
  on("episode", () => clear(kind));
  const redraw = () => pane.figure && draw(kind);
  onTheme(redraw);
  onFit(element, redraw);
  if (kind === "descent") mountPlayer(element);
  else {
    on("plan", followNewest);
    on("state", selectWhenResting);
  }
}

export function setQuery(fields) {
  query = { ...query, ...fields };
  clearTimeout(delay);
  delay = setTimeout(() => ["landscape", "descent"].forEach(refresh), 250);
}

export function setChains(n) {
  chains = n;
  clearTimeout(delay);
  delay = setTimeout(() => refresh("descent"), 250);
}

export function setFollow(value) {
  follow = value;
  if (follow) followNewest();
}

// One question at a time: the next plan is looked at when the last answer has come.
function followNewest() {
  const newest = latestPlan();
  const busy = Object.values(panes).some((pane) => pane.stamp !== null);
  if (follow && newest && !busy && newest.index !== live.selected) select(newest.index, false);
}

// At rest the newest plan is looked at, unless a person chose one; on the move none is chosen.
function selectWhenResting({ status }) {
  if (live.selected !== null && live.byHand) return;
  const newest = latestPlan()?.index ?? null;
  if (["paused", "ended"].includes(status) && newest !== live.selected) select(newest, false);
  else if (status === "running" && !follow && live.selected !== null) select(null, false);
}

function refresh(kind) {
  const pane = panes[kind];
  if (!pane) return;
  pane.stamp = null; // nobody waits for an earlier answer
  if (live.selected === null) {
    pane.root.querySelector(".st-wait").hidden = true;
    return;
  }
  if (pane.visible) ask(kind);
  else pane.stale = true;
}

function ask(kind) {
  const pane = panes[kind];
  pane.stale = false;
  const fields = { ...query, plan: live.selected };
  if (kind === "descent") fields.chains = chains;
  pane.stamp = request(kind === "landscape" ? "slice" : "descent", fields);
  pane.root.querySelector(".st-wait").hidden = pane.stamp === null;
}

function show(kind, { stamp, figure, reading, expert, error }) {
  const pane = panes[kind];
  if (stamp !== pane.stamp) return; // overtaken
  if (error) clear(kind, error);
  else {
    Object.assign(pane, { stamp: null, figure });
    pane.root.querySelector(".st-wait").hidden = true;
    delete pane.root.dataset.k;
    drawReading(pane.root, reading, expert);
    draw(kind);
  }
  followNewest();
}

// What is marked, with the energy of each whole chunk; the map holds all but two of its numbers.
function drawReading(root, reading, expert) {
  const items = reading.map(({ kind, label, energy, inside }) => {
    const words = kind === "expert" ? `${label}, ${expert.text.replaceAll("_", " ")}` : label;
    return entry(kind, `${words} · E ${number(energy)}${inside ? "" : " · outside of the slice"}`);
  });
  if (!expert.known) items.push(entry("unknown", "expert: not known here", expert.text));
  root.querySelector(".st-reading").replaceChildren(...items);
}

function entry(kind, text, title = "") {
  const item = Object.assign(document.createElement("li"), { textContent: text, title });
  item.dataset.mark = kind;
  return item;
}

async function draw(kind) {
  const { root, figure } = panes[kind];
  const Plotly = await plotly();
  if (panes[kind].figure !== figure) return; // meanwhile another one, or none
  const gd = root.querySelector(".st-plot");
  root.querySelector(".st-empty").hidden = true;
  stop();
  const layout = themed(fitted(figure.layout, root.clientWidth));
  gd.style.height = layout.height ? `${layout.height}px` : "";
  if (kind === "landscape") {
    // the camera and the zoom stay while the plan changes, not when the axes do
    layout.uirevision = JSON.stringify([query.dims, query.mode, query.span]);
  }
  await Plotly.react(gd, { data: figure.data, layout, frames: [], config: CONFIG });
  if (kind === "descent") await loadPlayer(Plotly, gd, figure.frames);
  root.dataset.plan = live.selected;
}

function clear(kind, words = EMPTY[kind]) {
  const pane = panes[kind];
  Object.assign(pane, { stamp: null, stale: false, figure: null });
  delete pane.root.dataset.plan;
  delete pane.root.dataset.k;
  if (kind === "descent") {
    stop();
    pane.root.querySelector(".st-player").hidden = true;
  }
  pane.root.querySelector(".st-wait").hidden = true;
  Object.assign(pane.root.querySelector(".st-empty"), { hidden: false, textContent: words });
  pane.root.querySelector(".st-reading").replaceChildren();
  const gd = pane.root.querySelector(".st-plot");
  if (gd.data) window.Plotly.purge(gd);
  gd.style.height = "";
}

// -- the descent's player -----------------------------------------------------------------------

function mountPlayer(element) {
  element.querySelector("#live-descent-play").addEventListener("click", () => (timer ? stop() : play()));
  element.querySelector("#live-descent-k").addEventListener("input", (event) => {
    stop();
    goTo(Number(event.target.value));
  });
}

async function loadPlayer(Plotly, gd, frames) {
  if (gd._transitionData) await Plotly.deleteFrames(gd);
  await Plotly.addFrames(gd, frames);
  const { root } = panes.descent;
  const last = frames.length - 1;
  const k = Math.min(last, Number(root.dataset.k ?? last)); // the same figure drawn again stays where it was
  Object.assign(root.querySelector("#live-descent-k"), { max: last, value: k });
  label(k, last);
  root.querySelector(".st-player").hidden = false;
  if (k < last) await goTo(k);
}

function label(k, last) {
  panes.descent.root.querySelector("#live-descent-label").textContent = `k = ${k} of ${last}`;
  panes.descent.root.dataset.k = k;
}

// redraw must be true: without it Plotly leaves out heatmaps and contours
function goTo(k) {
  const { root } = panes.descent;
  const slider = root.querySelector("#live-descent-k");
  slider.value = k;
  label(k, Number(slider.max));
  const now = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: true } };
  return window.Plotly.animate(root.querySelector(".st-plot"), [String(k)], now);
}

function play() {
  const { root } = panes.descent;
  const slider = root.querySelector("#live-descent-k");
  const last = Number(slider.max);
  let k = Number(slider.value) >= last ? -1 : Number(slider.value);
  root.querySelector("#live-descent-play").textContent = "Pause";
  const advance = async () => {
    await goTo(++k);
    if (timer && k < last) timer = setTimeout(advance, FRAME_MS);
    else stop();
  };
  timer = setTimeout(advance, 0);
}

function stop() {
  clearTimeout(timer);
  timer = null;
  const button = panes.descent?.root.querySelector("#live-descent-play");
  if (button) button.textContent = "Play";
}
