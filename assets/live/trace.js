// The energy of every plan of the episode: the trace with its calibrated band, and the filmstrip.

import { escapeHtml, level, live, number, on, score, scoreLabel, scoreName, select, setScore, threshold, verdict } from "./bus.js";
import { CONFIG, css, onTheme, plotly, themed } from "./plot.js";

const MOST_POINTS = 400; // of a person's chunks that are drawn; more are thinned out
const MOST_MARKS = 100; // drawn, the newest

const TEMPLATE = `
  <header class="st-head"><h3>Energy trace</h3>
    <div class="st-segments" role="group" aria-label="What the trace shows">
      <button id="live-trace-energy" aria-pressed="true">E(a⁽ᴷ⁾)</button>
      <button id="live-trace-both" aria-pressed="false">with E(a⁽⁰⁾)</button>
    </div>
    <select id="live-trace-score" aria-label="Score that verdicts go by"></select>
    <div class="st-legend"><span class="in">in distribution</span><span class="out">out of distribution</span></div>
  </header>
  <div id="live-trace-plot" role="img" aria-label="Energy per plan over control steps"></div>
  <div class="st-empty" id="live-trace-empty">Each plan will be a point here. Press <kbd>space</kbd> to run.</div>
  <div id="live-filmstrip" role="listbox" aria-label="Plans of this episode" tabindex="-1"></div>`;

let root;
let both = false; // the energies that plans begin with too
let pending = false;
const $ = (selector) => root.querySelector(selector);

export function mount(element) {
  root = element;
  root.innerHTML = TEMPLATE;
  for (const name of ["energy", "both"]) {
    $(`#live-trace-${name}`).addEventListener("click", () => {
      both = name === "both";
      setScore("final_energy");
    });
  }
  $("#live-trace-score").addEventListener("change", ({ target }) => setScore(target.value));
  $("#live-filmstrip").addEventListener("click", (event) => {
    const cell = event.target.closest("[data-plan]");
    if (cell) toggle(Number(cell.dataset.plan));
  });
  $("#live-filmstrip").addEventListener("keydown", walk);
  on("plan", (plan) => {
    addCell(plan);
    const strip = $("#live-filmstrip");
    while (strip.children.length > live.plans.length) strip.firstChild.remove();
    mark(strip.firstChild);
    fillBars();
    draw();
  });
  for (const kind of ["hello", "episode"]) {
    on(kind, () => {
      fillStrip();
      draw();
    });
  }
  on("k", () => {
    live.plans.forEach((plan, i) => judge($("#live-filmstrip").children[i], plan));
    fillBars();
    draw();
  });
  on("mark", draw);
  on("comparison", draw);
  on("resize", () => window.dispatchEvent(new Event("resize")));
  on("select", () => {
    markCells();
    draw();
  });
  onTheme(draw);
}

// At most one drawing per animation frame, whatever arrives.
function draw() {
  if (pending || !live.config) return;
  pending = true;
  requestAnimationFrame(async () => {
    const Plotly = await plotly().finally(() => (pending = false));
    const gd = $("#live-trace-plot");
    const first = !gd.layout;
    await Plotly.react(gd, traces(), themed(layout()), CONFIG);
    if (first) {
      gd.on("plotly_click", ({ points }) => points[0].customdata !== undefined && toggle(points[0].customdata));
    }
    for (const name of ["energy", "both"]) {
      $(`#live-trace-${name}`).setAttribute("aria-pressed", String(isPaper() && both === (name === "both")));
    }
    drawScores();
    $("#live-trace-empty").hidden = live.plans.length + live.comparisons.length > 0;
    root.dataset.points = live.plans.length;
  });
}

const isPaper = () => scoreName() === "final_energy";

// The scores that the checkpoint is calibrated for; their list is left out where there is one.
function drawScores() {
  const names = Object.keys(live.calibration?.levels ?? {}).filter((name) => name in live.config.scores);
  const list = $("#live-trace-score");
  list.hidden = names.length < 2;
  list.innerHTML = names
    .map((name) => `<option value="${name}" ${name === scoreName() ? "selected" : ""}>${escapeHtml(live.config.scores[name] ?? name)}</option>`)
    .join("");
}

function traces() {
  const { plans } = live;
  const x = plans.map((plan) => plan.step);
  const customdata = plans.map((plan) => plan.index);
  const colors = { in: css("--st-in"), out: css("--st-out"), unknown: css("--st-ink") };
  const kinds = plans.map(verdict);
  const chosen = plans.filter((plan) => plan.index === live.selected);
  const hover = "step %{x} · plan %{customdata}<br>%{text}<extra></extra>";
  const text = plans.map((p) => `E(a⁽⁰⁾) ${number(p.initial)} → E(a⁽ᴷ⁾) ${number(p.final)}<br>${scoreLabel()} ${number(score(p), 3)}`);
  const initial = {
    x, customdata, text, y: plans.map((plan) => plan.initial), mode: "lines+markers", hovertemplate: hover,
    line: { color: css("--st-faint"), width: 1.5, dash: "dot" },
    marker: { color: css("--st-faint"), size: 6, symbol: "circle-open" },
    visible: isPaper() && both,
  };
  const final = {
    x, customdata, text, y: plans.map(score), mode: "lines+markers", hovertemplate: hover,
    line: { color: css("--st-faint"), width: 2, shape: "linear" },
    marker: {
      color: kinds.map((kind) => colors[kind]),
      symbol: kinds.map((kind) => (kind === "out" ? "diamond" : "circle")),
      size: kinds.map((kind) => (kind === "out" ? 11 : 8)),
      line: { width: 0 },
      opacity: 1,
    },
  };
  const ring = {
    x: chosen.map((p) => p.step), y: chosen.map(score), customdata: chosen.map((p) => p.index),
    mode: "markers", hoverinfo: "skip",
    marker: { symbol: "circle-open", size: 19, color: css("--st-ink"), line: { width: 2.5 } },
  };
  return [initial, final, ring, ...byHand()];
}

// What a person did beside what the policy would have done there; energies, like the paper's score.
function byHand() {
  const told = live.comparisons;
  const visible = isPaper() && told.length > 0;
  const every = 2 ** Math.max(0, Math.ceil(Math.log2(told.length / MOST_POINTS)));
  const some = told.filter((_, i) => i % every === 0 || i === told.length - 1);
  const apart = (every + 1.5) * (live.checkpoint?.horizon ?? 8); // control steps: another intervention
  const points = some.flatMap((c, i, all) => (i && c.step - all[i - 1].step > apart ? [{ step: null }, c] : [c]));
  const x = points.map(({ step }) => step);
  const hovertemplate = "step %{x}<br>%{text} %{y:.2f}<extra></extra>";
  const series = (name, text, marker, dash) => ({
    x, y: points.map((point) => point[name]), text, mode: "lines+markers", hovertemplate, visible, connectgaps: false, marker, line: { color: marker.color, width: 1.5, dash },
  });
  return [
    series("policy", "the policy's own chunk: E(a⁽ᴷ⁾)", { color: css("--st-muted"), size: 7, symbol: "circle-open" }, "dot"),
    series("human", "the person's chunk: E", { color: css("--st-human"), size: 9, symbol: "square" }),
  ];
}

function layout() {
  const last = Math.max(live.plans.at(-1)?.step ?? 0, live.comparisons.at(-1)?.step ?? 0, live.marks.at(-1)?.step ?? 0);
  const end = Math.max(48, last * 1.04 + 4);
  const { shapes, annotations } = decorations(end);
  const title = !isPaper() ? scoreLabel() : both ? "energy" : "E(a⁽ᴷ⁾)";
  return {
    uirevision: `${live.state?.episode ?? 0} ${title}`,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 58, r: 74, t: 24, b: 36 },
    showlegend: false,
    hovermode: "closest",
    dragmode: "pan",
    xaxis: { title: { text: "control step", standoff: 2, font: { size: 12 } }, range: [-1.5, end], zeroline: false },
    yaxis: { title: { text: title }, range: extent(), zeroline: false, automargin: true },
    shapes,
    annotations,
  };
}

// Room for every value and for the band, with a margin.
function extent() {
  const values = live.plans.flatMap((p) => (isPaper() && both ? [p.initial, p.final] : [score(p)]));
  if (isPaper()) values.push(...live.comparisons.flatMap((c) => [c.human, c.policy]));
  const known = level();
  if (known) values.push(known.mu, known.mu - known.sigma, threshold());
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return [0, 1];
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const margin = 0.12 * (high - low || 1);
  return [low - margin, high + margin];
}

function decorations(end) {
  const shapes = [];
  const annotations = [];
  if (level()) {
    const { mu } = level();
    const limit = threshold();
    const across = { xref: "paper", x0: 0, x1: 1, layer: "below" };
    shapes.push(
      { ...across, type: "rect", y0: mu, y1: limit, fillcolor: css("--st-in-soft"), line: { width: 0 } },
      { ...across, type: "line", y0: mu, y1: mu, line: { color: css("--st-in"), width: 1.5, dash: "dash" } },
      { ...across, type: "line", y0: limit, y1: limit, line: { color: css("--st-out"), width: 2 } },
    );
    const label = { xref: "paper", x: 1.005, xanchor: "left", showarrow: false };
    const near = Math.abs(limit - mu) < 0.09 * (extent()[1] - extent()[0]);
    annotations.push(
      { ...label, y: mu, yshift: near ? -9 : 0, text: "μ<sub>v</sub>", font: { color: css("--st-in"), size: 13 } },
      { ...label, y: limit, yshift: near ? 9 : 0, text: `μ<sub>v</sub>+${live.k.toFixed(1)}σ<sub>v</sub>`, font: { color: css("--st-out"), size: 13 } },
    );
  }
  shapes.push(...bands(end));
  let free = -Infinity; // labels that would overlap are left to the hover
  // of a slider's many marks at one step only the last counts
  const marks = live.marks
    .filter(({ step, kind }, i, all) => kind === "help" || step !== all[i + 1]?.step || kind !== all[i + 1].kind)
    .slice(-MOST_MARKS);
  for (const mark of marks) {
    shapes.push({
      type: "line", x0: mark.step, x1: mark.step, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { color: css("--st-muted"), width: 1.2, dash: "dot" },
    });
    const text = mark.text.length > 34 ? `${mark.text.slice(0, 33)}…` : mark.text;
    const fits = mark.step >= free;
    annotations.push({
      x: mark.step, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, bgcolor: "rgba(0,0,0,0)",
      xanchor: mark.step > 0.7 * end ? "right" : "left", font: { size: 11, color: css("--st-muted") },
      text: fits ? `${{ instruction: "✎", camera: "◉", light: "☀", sensor: "≋", sampler: "∿", driver: "⇄", help: "?" }[mark.kind] ?? "•"} ${plain(text)}` : "·",
      hovertext: plain(`step ${mark.step}: ${mark.text}`), captureevents: true,
    });
    if (fits) free = mark.step + end * Math.min(0.3, 0.011 * text.length);
  }
  return { shapes, annotations };
}

// Where a person drove, alone or with the policy.
function bands(end) {
  const turns = live.marks.filter(({ kind }) => kind === "driver").slice(-MOST_MARKS);
  return turns.flatMap(({ step, text }, i) => {
    if (text === "policy") return [];
    const x1 = turns[i + 1]?.step ?? end;
    return [{
      type: "rect", x0: step, x1, yref: "paper", y0: 0, y1: 1, layer: "below", line: { width: 0 },
      fillcolor: css("--st-human-soft"), opacity: text === "shared" ? 0.55 : 1, name: text,
    }];
  });
}

// Plotly reads a subset of HTML in its labels; what a person typed is not markup.
const plain = (text) => text.replaceAll("<", "‹").replaceAll(">", "›");

function fillStrip() {
  $("#live-filmstrip").replaceChildren();
  live.plans.forEach(addCell);
  fillBars();
}

// Heights of the bars: μ - 2σ … μ + 4σ of the calibration, or the episode's own range without one.
function fillBars() {
  const c = level();
  const values = live.plans.map(score).filter(Number.isFinite);
  const low = c ? c.mu - 2 * c.sigma : Math.min(...values);
  const high = c ? c.mu + 4 * c.sigma : Math.max(...values);
  [...$("#live-filmstrip").children].forEach((cell, i) => {
    const share = (score(live.plans[i]) - low) / (high - low || 1);
    cell.style.setProperty("--fill", `${Math.round(100 * Math.min(1, Math.max(0.12, share)))}%`);
  });
}

function addCell(plan) {
  const strip = $("#live-filmstrip");
  const atEnd = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 40;
  const cell = document.createElement("button");
  cell.dataset.plan = plan.index;
  cell.role = "option";
  cell.title = `step ${plan.step}: ${plan.instruction}`;
  const image = Object.assign(new Image(), { alt: "", src: plan.thumb, draggable: false });
  cell.append(document.createElement("i"), image, document.createElement("span"));
  judge(cell, plan);
  strip.append(cell);
  mark(cell);
  if (atEnd) strip.scrollLeft = strip.scrollWidth;
}

// What a plan's cell says of its score.
function judge(cell, plan) {
  const kind = verdict(plan);
  const spoken = { in: "in distribution", out: "out of distribution", unknown: "" }[kind];
  cell.dataset.verdict = kind;
  cell.setAttribute("aria-label", `plan ${plan.index}, step ${plan.step}, ${number(score(plan))} ${spoken}`);
  cell.querySelector("span").textContent = number(score(plan));
}

// One cell is in the order of tabs; the arrows walk on from it.
function mark(cell) {
  const chosen = Number(cell.dataset.plan) === live.selected;
  const first = live.selected === null && !cell.previousSibling;
  cell.setAttribute("aria-selected", String(chosen));
  cell.tabIndex = chosen || first ? 0 : -1;
  return chosen;
}

function walk(event) {
  const step = { ArrowLeft: "previousSibling", ArrowRight: "nextSibling" }[event.key];
  const cell = step && event.target.closest("[data-plan]")?.[step];
  if (!cell) return;
  event.preventDefault();
  event.stopPropagation();
  select(Number(cell.dataset.plan));
  cell.focus({ preventScroll: true });
}

// A second click lets go what the first one chose.
const toggle = (index) => select(index === live.selected && live.byHand ? null : index);

function markCells() {
  const strip = $("#live-filmstrip");
  for (const cell of strip.children) {
    if (!mark(cell)) continue;
    // not scrollIntoView: that would scroll the page as well
    const left = cell.offsetLeft - strip.offsetLeft;
    const hidden = left < strip.scrollLeft || left + cell.offsetWidth > strip.scrollLeft + strip.clientWidth;
    if (hidden) strip.scrollLeft = left - strip.clientWidth / 2;
  }
}
