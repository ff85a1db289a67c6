// The curves of one run or of several: losses, energy gap, success, speed. A zoom stays as it is.

import { live, recall, remember } from "./bus.js";
import { ask, onWidth } from "./jobs.js";
import { CONFIG, css, onTheme, plotly, themed } from "./plot.js";

const COLOURS = ["#0f9d94", "#7048c6", "#c2255c", "#1c7ed6", "#8a6d1a", "#5c7c2f", "#495057"];
// Lines: metric, name, dash, drawn with markers (measured now and then), scale
const PLOTS = {
  loss: {
    title: "L1 to the expert", note: "— MCMC &nbsp;⋯ read-out &nbsp;○ held out &nbsp;╌ a denoiser's error", floor: true,
    lines: [["l1", "MCMC", "solid"], ["denoising", "error of the noise", "dash"], ["readout_l1", "read-out", "dot"], ["val_l1", "held out", "solid", true]],
  },
  gap: { title: "Energy gap", note: "E of noise − E of the expert", empty: "Only the energy head has one.", lines: [["energy_gap", "training", "solid"]] },
  success: {
    title: "Success in the simulator", unit: "%", range: [0, 100],
    empty: "Measured in the simulator only when the run is asked to.",
    lines: [["success_rate", "episodes", "solid", true, 100]],
  },
  speed: {
    title: "Speed and use", note: "— samples/s &nbsp;⋯ CPU % &nbsp;╌ GPU %",
    lines: [["samples_per_s", "samples/s", "solid"], ["cpu_percent", "CPU %", "dot", false, 1, "y2"], ["gpu_percent", "GPU %", "dash", false, 1, "y2"]],
  },
};

const rows = new Map(); // run and its start -> {rows, since, complete}
const tones = new Map();
let root = null;
let runs = [];
let axis = recall("studio-axis") ?? "step";
let busy = false;

// A run keeps its colour while it is shown; the next one gets one that is free.
export function colour(name) {
  if (!tones.has(name)) {
    const free = COLOURS.filter((tone) => ![...tones.values()].includes(tone));
    tones.set(name, free[0] ?? COLOURS[tones.size % COLOURS.length]);
  }
  return tones.get(name);
}

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
  [...tones.keys()].filter((name) => !names.includes(name)).forEach((name) => tones.delete(name));
  if (busy) return;
  busy = true;
  await Promise.all(list.map(update));
  busy = false;
  paint();
}

const keyOf = (run) => `${run.name}@${run.started}`;

async function update(run) {
  const key = run.state === "outside" ? run.name : keyOf(run);
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
  for (const [name, plot] of Object.entries(PLOTS)) {
    const traces = runs.flatMap((run) => plot.lines.map((line) => trace(run, line)).filter((t) => t.x.length));
    const place = document.getElementById(`train-plot-${name}`);
    place.hidden = !traces.length;
    place.nextElementSibling.hidden = traces.length > 0;
    if (traces.length) await Plotly.react(place, traces, themed(layout(plot)), CONFIG);
  }
  root.dataset.points = runs.length ? measured(runs[0]).length : 0;
}

function nameTag(run) {
  const tag = document.createElement("span");
  tag.textContent = run.name;
  tag.style.setProperty("--tone", colour(run.name));
  return tag;
}

const measured = (run) => rows.get(run.state === "outside" ? run.name : keyOf(run))?.rows ?? [];

function trace(run, [metric, name, dash, markers = false, scale = 1, yaxis = "y"]) {
  const points = measured(run).filter((row) => Number.isFinite(row[metric]));
  const tone = colour(run.name);
  return {
    name: runs.length > 1 ? `${run.name} · ${name}` : name,
    x: points.map((row) => (axis === "step" ? row.step : row.elapsed_s / 60)),
    y: points.map((row) => scale * row[metric]),
    yaxis,
    mode: markers ? "lines+markers" : points.length > 1 ? "lines" : "markers",
    line: { color: tone, width: markers ? 1 : 2, dash },
    marker: { color: css("--st-card"), size: 8, line: { color: tone, width: 2 } },
    opacity: dash === "solid" ? 1 : 0.7,
    hovertemplate: "%{y:.4~g}<extra>%{fullData.name}</extra>",
    showlegend: false,
  };
}

function layout({ unit, range, lines, floor = false }) {
  const right = lines.some((line) => line[5] === "y2");
  return {
    height: 250,
    margin: { l: 46, r: right ? 44 : 12, t: 8, b: 36 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hovermode: "x unified",
    uirevision: axis, // a zoom survives new points
    xaxis: { title: { text: axis, standoff: 6, font: { size: 13 } }, rangemode: "tozero", zeroline: false, nticks: 6 },
    yaxis: { ticksuffix: unit ?? "", zeroline: false, rangemode: floor ? "tozero" : "normal", nticks: 6, ...(range && { range }) },
    ...(right && { yaxis2: { overlaying: "y", side: "right", rangemode: "tozero", showgrid: false, zeroline: false, nticks: 5, tickmode: "auto" } }),
  };
}
