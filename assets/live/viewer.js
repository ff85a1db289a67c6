// One recording: its pictures step by step, who drove, its energy by any checkpoint, its trim and replay.

import { escapeHtml, on } from "./bus.js";
import { button, draw, onAction } from "./jobs.js";
import { CONFIG, css, onTheme, plotly, themed } from "./plot.js";
import { discard, driverBar, look, outcomePill, read, redo, shelf, tell, titleHtml, url, working } from "./shelf.js";

const HZ = 20;
const CAMERAS = { agentview: "agentview", wrist: "wrist" };
let root = null;
let recording = null; // its row
let step = 0;
let playing = null; // {step, at}: where and when the clock began
let about = null; // {id, plans, comparisons, marks, instructions}
let found = null; // {key, scores, threshold, checkpoint}
let checkpoint = ""; // "": the one that Live uses
const $ = (selector) => root.querySelector(selector);

export function mount(element) {
  root = element;
  root.innerHTML = `<div class="st-title"></div>
    <div class="st-shots">${Object.entries(CAMERAS).map(([name, text]) => `<figure><img data-camera="${name}" alt="${text}"
      width="128" height="128"><figcaption>${text}</figcaption></figure>`).join("")}</div>
    <div class="st-scrub"><button class="st-button" data-action="play" aria-label="Play">▶</button>
      <div><input type="range" id="recordings-step" min="0" value="0" aria-label="Step"><div class="st-under"></div></div>
      <output></output></div>
    <div class="st-cut st-actions"></div><p class="st-verified" role="status"></p>
    <div class="st-scored"></div><div id="recordings-plot" role="img" aria-label="Energy over steps"></div>`;
  $("#recordings-step").addEventListener("input", ({ target }) => jump(Number(target.value)));
  onAction(root, {
    play: toggle, keep: (name) => tell("/keep", { names: [name], kept: !recording.kept }), discard: (name) => discard([name]), redo,
    actions: (name) => replay(name, "actions"), states: (name) => replay(name, "states"), score,
    first: () => trim(step, end()), last: () => trim(recording.first, step + 1), whole: () => trim(0, recording.steps),
  });
  root.addEventListener("change", ({ target }) => target.matches("[data-field=checkpoint]") && choose(target.value));
  onTheme(plot);
  paint();
}

// The recording to look at; drawn again only where it has changed.
export function show(row) {
  const other = row?.id !== recording?.id;
  const developed = row?.demo !== recording?.demo;
  const scored = recording && shelf.work[recording.id]?.what !== "energies" && root?.dataset.scoring === recording.id;
  recording = row;
  if (other) {
    stop();
    [step, about, found] = [row?.first ?? 0, null, null];
    if (row && !row.error && root) describe(row.id);
  }
  if (row && (other || developed || scored)) scores();
  paint();
}

async function describe(id) {
  const answer = await read("/tape", { name: id }).catch(() => null);
  if (recording?.id !== id) return;
  about = answer && { id, ...answer };
  plot();
}

const end = () => recording.last ?? recording.steps;

async function trim(first, last) {
  await tell("/trim", { name: recording.id, first, last });
}

async function replay(name, source) {
  await tell("/replay", { name, source });
}

// -- moving through it ----------------------------------------------------------------------------

function seek(to) {
  step = Math.max(0, Math.min(recording.steps - 1, to));
  paintStep();
}

// A person's choice; what plays goes on from there.
function jump(to) {
  seek(to);
  if (playing) start();
}

function toggle() {
  if (playing) return stop();
  if (step >= end() - 1) seek(recording.first);
  start();
  $("[data-action=play]").textContent = "❚❚";
}

// A step stays until its pictures are seen; those that a slow network leaves no time for are skipped.
async function start() {
  const clock = (playing = { step, at: performance.now() });
  while (step < end() - 1) {
    await Promise.all([untilDue(clock, step + 1), ...images().map((image) => image.decode().catch(() => {}))]);
    if (playing !== clock) return;
    const due = clock.step + Math.floor(((performance.now() - clock.at) * HZ) / 1000);
    seek(Math.min(end() - 1, Math.max(step + 1, due)));
  }
  stop();
}

const untilDue = (clock, next) =>
  new Promise((resolve) => setTimeout(resolve, clock.at + (1000 * (next - clock.step)) / HZ - performance.now()));
const images = () => [...root.querySelectorAll("img[data-camera]")];

function stop() {
  playing = null;
  if (root) $("[data-action=play]").textContent = "▶";
}

// -- energies -------------------------------------------------------------------------------------

function choose(name) {
  checkpoint = name;
  found = null;
  scores();
  paint();
}

async function scores() {
  const key = `${recording.id} ${checkpoint}`;
  const answer = await read("/energies", { name: recording.id, checkpoint }).catch(() => null);
  if (!recording || key !== `${recording.id} ${checkpoint}`) return;
  found = answer?.scores ? { key, ...answer } : null;
  delete root.dataset.scoring;
  paint();
}

// Marked once the server knows of it: an older list that still comes would look like its end.
async function score() {
  const { id } = recording;
  if (!(await tell("/score", { name: id, checkpoint }))) return;
  root.dataset.scoring = id;
  await look();
}

// -- drawing --------------------------------------------------------------------------------------

function paint() {
  if (!root) return;
  root.classList.toggle("st-none", !recording || Boolean(recording.error));
  if (!recording) return draw($(".st-title"), `<div class="st-empty">Choose a recording to look through it.</div>`);
  draw($(".st-title"), titleOf(recording));
  if (recording.error) return;
  const slider = $("#recordings-step");
  slider.max = recording.steps - 1;
  draw($(".st-under"), driverBar(recording));
  draw($(".st-cut"), cutHtml());
  draw($(".st-verified"), verified());
  draw($(".st-scored"), scoredHtml());
  root.dataset.id = recording.id;
  root.dataset.developed = Boolean(recording.demo);
  paintStep();
  plot();
}

function titleOf({ id, error, kept, writing, demo, versions, checkpoint: by, message }) {
  const changed = Object.entries(versions ?? {}).map(([name, [then, now]]) => `${name} ${then} (here ${now ?? "none"})`);
  const actions = [
    !error && `<button class="st-button" data-action="keep" data-name="${id}" aria-pressed="${kept}">${kept ? "★ Kept" : "☆ Keep"}</button>`,
    !writing && !error && button("actions", id, demo ? "Replay again" : "Replay"),
    !writing && !error && button("states", id, "From states"),
    !writing && !error && button("redo", id, "Redo in Live"),
    !writing && button("discard", id, "Discard"),
  ];
  const words = [by && `policy ${by}`, changed.length && `recorded with ${changed.join(", ")}`, writing ? "it goes on in Live" : message];
  return `<header class="st-head"><h3>${titleHtml(recording)}</h3>${outcomePill(recording)}
    <span class="st-actions">${actions.filter(Boolean).join("")}</span></header>
    <p class="st-about">${escapeHtml(error ?? words.filter(Boolean).join(" · "))}</p>`;
}

function cutHtml() {
  const whole = !recording.first && recording.last === null;
  const span = whole ? "all steps count" : `steps ${recording.first} – ${end() - 1} count`;
  const late = step >= end() ? `disabled title="This step lies behind the end."` : "";
  const early = step < recording.first ? `disabled title="This step lies before the beginning."` : "";
  return `<span>${span}</span><button class="st-button" data-action="first" ${late}>Begin here</button>
    <button class="st-button" data-action="last" ${early}>End here</button>
    ${whole ? "" : `<button class="st-button" data-action="whole">All</button>`}`;
}

function verified() {
  const work = shelf.work[recording.id];
  if (work?.problem) return `<b class="bad">${escapeHtml(work.problem)}</b>`;
  if (working(recording.id)) return `${work.what === "replay" ? "Replaying" : "Scoring"} … ${work.done} of ${work.total || "–"}`;
  const report = recording.replay;
  if (!report || !recording.demo) return "Not replayed yet: a replay draws its pictures again and checks each state.";
  if (report.faithful) return `<b class="good">✓</b> Replayed from its actions: all ${Number(report.steps) + 1} states are the recorded ones, bit for bit.`;
  if (report.source === "states") return "Shown from its recorded states; its actions were not tried.";
  return `<b class="bad">≠</b> Its actions lead elsewhere before step ${Number(report.differs)} (by ${Number(report.by).toExponential(1)}); from there on the
    recorded states are shown.`;
}

function scoredHtml() {
  const options = [["", "the checkpoint of Live"], ...shelf.checkpoints.map((path) => [path, path])];
  const list = options.map(([path, text]) => `<option value="${escapeHtml(path)}" ${path === checkpoint ? "selected" : ""}>${escapeHtml(text)}</option>`);
  const ready = recording.demo && !found && !working(recording.id);
  return `<h4>Energy at the starts of its chunks</h4><select data-field="checkpoint" aria-label="Checkpoint">${list.join("")}</select>
    ${ready ? button("score", recording.id, "Score") : ""}`;
}

function paintStep() {
  if (!root || !recording?.steps) return;
  step = Math.min(step, recording.steps - 1);
  const slider = $("#recordings-step");
  slider.value = step;
  draw($(".st-cut"), cutHtml());
  $("output").textContent = `${step} / ${recording.steps - 1}`;
  for (const image of images()) {
    const { camera } = image.dataset;
    const source = recording.demo
      ? url("/picture.jpg", { name: recording.id, camera, step, at: recording.demo })
      : camera === "agentview" && recording.thumb
        ? url("/thumb.jpg", { name: recording.id, at: recording.thumb })
        : "";
    image.closest("figure").hidden = !source;
    if (source && image.src !== source) image.src = source;
  }
  cursor();
}

async function plot() {
  const place = root && $("#recordings-plot");
  if (!place) return;
  const known = about?.id === recording?.id ? about : null;
  const lines = traces(known);
  place.hidden = !lines.length;
  if (!lines.length) return;
  const Plotly = await plotly();
  const first = !place.layout;
  await Plotly.react(place, lines, themed(layout(known)), CONFIG);
  if (first) place.on("plotly_click", ({ points }) => jump(points[0].x));
}

function traces(known) {
  const line = (name, rows, key, colour, more = {}) => ({
    name, x: rows.map((row) => row.step), y: rows.map((row) => row[key]), mode: "lines+markers",
    line: { color: colour, width: 2, ...more }, marker: { color: colour, size: 7 }, hovertemplate: `step %{x}<br>${name} %{y:.2f}<extra></extra>`,
  });
  const made = [];
  if (found) {
    made.push(line("what was done", found.scores, "done", css("--st-human")), line("its own plan", found.scores, "plan", css("--st-in")));
  }
  if (known?.plans.length) made.push(line("at the time", known.plans, "final", css("--st-faint"), { dash: "dot" }));
  if (known?.comparisons.length) {
    const grey = { mode: "markers", marker: { color: css("--st-faint"), size: 9, symbol: "square" } };
    made.push({ ...line("the person's, at the time", known.comparisons, "human", css("--st-faint")), ...grey });
  }
  return made;
}

const marker = () => ({ type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1, line: { color: css("--st-ink"), width: 1.5 } });

function layout(known) {
  const across = { xref: "paper", x0: 0, x1: 1, layer: "below" };
  const limit = found?.threshold ?? null;
  const shapes = [marker()];
  if (limit !== null) shapes.push({ ...across, type: "line", y0: limit, y1: limit, line: { color: css("--st-out"), width: 1.5, dash: "dash" } });
  let from = 0;
  for (const [driver, count] of recording.runs) {
    if (driver !== "policy") {
      shapes.push({ type: "rect", x0: from, x1: from + count, yref: "paper", y0: 0, y1: 1, layer: "below", fillcolor: css("--st-human-soft"), line: { width: 0 } });
    }
    from += count;
  }
  const words = (known?.instructions ?? []).slice(1).map(([at, text]) => ({
    x: at, y: 1, yref: "paper", yanchor: "bottom", xanchor: "left", showarrow: false, font: { size: 11, color: css("--st-muted") },
    text: `✎ ${text.replaceAll("<", "‹").slice(0, 34)}`,
  }));
  return {
    uirevision: `${recording.id} ${checkpoint}`, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 50, r: 12, t: 24, b: 36 }, height: 240, dragmode: "pan", hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 1, xanchor: "right" }, showlegend: true,
    xaxis: { title: { text: "control step", standoff: 2, font: { size: 12 } }, range: [-1, recording.steps + 1], zeroline: false },
    yaxis: { title: { text: "energy" }, zeroline: false, automargin: true }, shapes, annotations: words,
  };
}

// The line of the present step follows the slider.
function cursor() {
  const place = $("#recordings-plot");
  if (place.layout && !place.hidden) window.Plotly.relayout(place, { "shapes[0].x0": step, "shapes[0].x1": step });
}

on("resize", plot);
