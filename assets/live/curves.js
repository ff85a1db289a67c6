// The curves of one run or of several: losses, energy gap, success, speed. A zoom stays as it is.

import { live, recall, remember } from "./bus.js";
import { ask, onWidth } from "./jobs.js";
import { CONFIG, css, onTheme, plotly, themed } from "./plot.js";

// Runs are told apart by colour and by shape; each colour is 3:1 or more on its theme's cards.
const COLOURS = {
  light: ["#0c857d", "#7048c6", "#c2255c", "#1c7ed6", "#8a6d1a", "#5c7c2f", "#495057"],
  dark: ["#35c4b8", "#b197fc", "#f783ac", "#74c0fc", "#e0b84a", "#a9d15f", "#ced4da"],
};
const SHAPES = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", cross: "✚", x: "✖", star: "★" };
const SHAPED = 7; // points of a line that show its run's shape
// Lines: metric, name, dash, drawn with markers (measured now and then), scale
const PLOTS = {
  loss: {
    title: "L1 to the expert", y: "L1", note: "— MCMC &nbsp;⋯ read-out &nbsp;○ held out &nbsp;╌ a denoiser's error", floor: true,
    lines: [["l1", "MCMC", "solid"], ["denoising", "error of the noise", "dash"], ["readout_l1", "read-out", "dot"], ["val_l1", "held out", "solid", true]],
  },
  gap: { title: "Energy gap", y: "energy", note: "E of noise − E of the expert", empty: "Only the energy head has one.", lines: [["energy_gap", "training", "solid"]] },
  success: {
    title: "Success in the simulator", y: "solved", unit: "%", range: [0, 100],
    empty: "Measured in the simulator only when the run is asked to.",
    lines: [["success_rate", "episodes", "solid", true, 100]],
  },
  speed: {
    title: "Speed and use", y: "samples/s", y2: "CPU % of one core, GPU %", note: "— samples/s &nbsp;⋯ CPU &nbsp;╌ GPU",
    lines: [["samples_per_s", "samples/s", "solid"], ["cpu_percent", "CPU, % of one core", "dot", false, 1, "y2"], ["gpu_percent", "GPU %", "dash", false, 1, "y2"]],
  },
};

const rows = new Map(); // run and its start -> {rows, since, complete}
const places = new Map(); // run -> its place among colours and shapes
let root = null;
let runs = [];
let axis = recall("studio-axis") ?? "step";
let busy = false;
let drawn = null; // the state that is on the page

// A run keeps its place while it is shown; the next one gets one that is free.
function place(name) {
  if (!places.has(name)) {
    const free = COLOURS.light.findIndex((_, i) => ![...places.values()].includes(i));
    places.set(name, free < 0 ? places.size % COLOURS.light.length : free);
  }
  return places.get(name);
}

export const colour = (name) => COLOURS[document.body.classList.contains("dark") ? "dark" : "light"][place(name)];
const shape = (name) => Object.keys(SHAPES)[place(name)];

export function mount(element) {
  root = element;
  root.innerHTML = `<header class="st-head st-curves-head"><div class="st-segments" role="group" aria-label="Across">
      <button data-axis="step">steps</button><button data-axis="minutes">minutes</button></div>
      <div class="st-names"></div></header><div class="st-grid">${Object.entries(PLOTS).map(plotHtml).join("")}</div>`;
  root.querySelectorAll("[data-axis]").forEach((segment) =>
    segment.addEventListener("click", () => {
      axis = segment.dataset.axis;
      remember("studio-axis", axis);
      paint();
    }),
  );
  onTheme(paint);
  onWidth(root, paint);
  paint();
}

const plotHtml = ([name, { title, note, empty }]) => `<figure class="st-card" data-plot="${name}">
  <figcaption><h3>${title} <small>${note ?? ""}</small></h3></figcaption>
  <div id="train-plot-${name}" role="img" aria-label="${title}"></div>
  <div class="st-empty" hidden>${empty ?? "Nothing measured yet."}</div></figure>`;

// Draw these runs: fetches what is new of each.
export async function show(list) {
  runs = list;
  const names = list.map(({ name }) => name);
  [...places.keys()].filter((name) => !names.includes(name)).forEach((name) => places.delete(name));
  if (busy) return;
  busy = true;
  await Promise.all(list.map(update));
  busy = false;
  if (drawn !== state()) paint();
}

// What a drawing shows; it stays as it is while this does.
const state = () => JSON.stringify([axis, runs.map((run) => [keyOf(run), rows.get(keyOf(run))?.since])]);

const keyOf = (run) => (run.state === "outside" ? run.name : `${run.name}@${run.started}`);

async function update(run) {
  const key = keyOf(run);
  const known = rows.get(key) ?? { rows: [], since: 0, complete: false };
  if (known.complete && run.state !== "outside") return;
  const query = `/metrics?name=${encodeURIComponent(run.name)}&since=${known.since}`;
  const news = await ask(query).catch(() => null);
  if (!news) return;
  const before = news.since < known.since ? [] : known.rows; // the file was written anew
  rows.set(key, { rows: joined(before, news.rows), since: news.since, complete: run.state !== "running" });
}

// A resumed run goes back to its last save: what came after it is drawn once.
function joined(before, after) {
  const first = after[0]?.step ?? Infinity;
  return [...before.filter((row) => row.step <= first), ...after];
}

async function paint() {
  if (!root || !live.config) return;
  root.hidden = !runs.length;
  root.querySelectorAll("[data-axis]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.axis === axis)));
  root.querySelector(".st-names").replaceChildren(...runs.map(nameTag));
  const Plotly = await plotly();
  if (!root.offsetParent) return; // hidden, a plot has no width
  const shown = state();
  for (const [name, plot] of Object.entries(PLOTS)) {
    const traces = runs.flatMap((run) => plot.lines.map((line) => trace(run, line)).filter((t) => t.x.length));
    const figure = document.getElementById(`train-plot-${name}`);
    figure.hidden = !traces.length;
    figure.nextElementSibling.hidden = traces.length > 0;
    if (traces.length) await Plotly.react(figure, traces, themed(layout(plot)), CONFIG);
  }
  root.dataset.points = runs.length ? measured(runs[0]).length : 0;
  drawn = shown;
}

function nameTag(run) {
  const tag = document.createElement("span");
  tag.textContent = run.name;
  tag.style.setProperty("--tone", colour(run.name));
  tag.dataset.shape = SHAPES[shape(run.name)];
  return tag;
}

const measured = (run) => rows.get(keyOf(run))?.rows ?? [];

function trace(run, [metric, name, dash, markers = false, scale = 1, yaxis = "y"]) {
  const points = measured(run).filter((row) => Number.isFinite(row[metric]));
  const tone = colour(run.name);
  const shaped = runs.length > 1 || points.length < 2;
  const open = { color: css("--st-card"), size: 8, line: { color: tone, width: 2 } };
  return {
    name: runs.length > 1 ? `${run.name} · ${name}` : name,
    x: points.map((row) => (axis === "step" ? row.step : row.elapsed_s / 60)),
    y: points.map((row) => scale * row[metric]),
    yaxis,
    mode: markers || shaped ? "lines+markers" : "lines",
    line: { color: tone, width: markers ? 1 : 2, dash },
    marker: { symbol: shape(run.name), ...(markers ? open : { color: tone, size: 8, maxdisplayed: SHAPED }) },
    opacity: dash === "solid" ? 1 : 0.7,
    hovertemplate: "%{y:.4~g}<extra>%{fullData.name}</extra>",
    showlegend: false,
  };
}

const titled = (text) => ({ title: { text, standoff: 4, font: { size: 12 } }, automargin: true });

function layout({ unit, range, lines, y, y2, floor = false }) {
  const right = lines.some((line) => line[5] === "y2");
  return {
    height: 250,
    margin: { l: 46, r: right ? 44 : 12, t: 8, b: 36 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hovermode: "x unified",
    uirevision: axis, // a zoom survives new points
    xaxis: { title: { text: axis, standoff: 6, font: { size: 13 } }, rangemode: "tozero", zeroline: false, nticks: 6 },
    yaxis: { ...titled(y), ticksuffix: unit ?? "", zeroline: false, rangemode: floor ? "tozero" : "normal", nticks: 6, ...(range && { range }) },
    ...(right && { yaxis2: { ...titled(y2), overlaying: "y", side: "right", rangemode: "tozero", showgrid: false, zeroline: false, nticks: 5, tickmode: "auto" } }),
  };
}
