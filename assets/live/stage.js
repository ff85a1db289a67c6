// The stage: both camera views, the transport under them and the verdict beside them.

import { emit, latestPlan, level, live, number, on, planAt, score, scoreLabel, scoreName, setK, threshold, verdict } from "./bus.js";
import { drive, pause } from "./forms.js";
import { connect, send } from "./socket.js";

const ICON = {
  run: "M8 5v14l11-7z",
  pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  step: "M6 5v14l9-7zM16 5h3v14h-3z",
  chunk: "M4 5v14l8-7zM12 5v14l8-7z",
  reset: "M12 5V1L6.5 6.5 12 12V8a5 5 0 1 1-5 5H4a8 8 0 1 0 8-8z",
};
const icon = (name) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICON[name]}"/></svg>`;

const view = (camera, caption) => `
  <figure class="st-view" data-camera="${camera}">
    <canvas id="live-${camera}" width="256" height="256" role="img" aria-label="${caption}"></canvas>
    <canvas id="live-policy-${camera}" class="st-policy" width="128" height="128" role="img"
      aria-label="${caption}, as the policy sees it"></canvas>
    <figcaption>${caption}</figcaption>
  </figure>`;

const TEMPLATE = `
  <div class="st-views">
    ${view("agentview", "agentview")}
    ${view("wrist", "wrist")}
    <div class="st-overlay" id="live-overlay" hidden><i class="st-spinner"></i>
      <strong role="status"></strong><span></span>
      <button id="live-wake" class="st-primary">Start again</button></div>
    <div class="st-outcome" id="live-outcome" role="status" hidden></div>
  </div>
  <aside class="st-verdict" id="live-verdict" data-verdict="unknown">
    <div class="st-verdict-word" aria-live="polite"></div>
    <div class="st-verdict-symbol"></div>
    <div class="st-verdict-number" id="live-energy">–</div>
    <div class="st-gauge" aria-hidden="true"><i class="in"></i><i class="limit"></i><b></b></div>
    <label class="st-k" for="live-k"><span>threshold μ<sub>v</sub> + <output>1.0</output> σ<sub>v</sub></span>
      <span class="st-limit"></span></label>
    <input type="range" id="live-k" min="0" max="3" step="0.1" aria-label="k of the threshold">
    <dl></dl>
  </aside>
  <div class="st-transport" role="toolbar" aria-label="Control loop">
    <button id="live-run" class="st-primary" title="Run or pause (space)">${icon("run")}<span>Run</span></button>
    <button id="live-step" title="One control step (s)">${icon("step")}<span>Step</span></button>
    <button id="live-chunk" title="On to the next plan (c)">${icon("chunk")}<span>Chunk</span></button>
    <button id="live-reset" title="Same scene again (r)">${icon("reset")}<span>Reset</span></button>
    <label class="st-speed">speed <select id="live-speed">
      <option value="2">2 Hz</option><option value="5">5 Hz</option><option value="10">10 Hz</option>
      <option value="20">20 Hz</option><option value="0">no limit</option>
    </select></label>
    <label class="st-toggle"><input type="checkbox" id="live-policy-view"> what the policy sees</label>
    <div class="st-progress"><span id="live-step-count">step –</span><i><b></b></i></div>
  </div>`;

// Each has the button `live-<name>`, whose being disabled counts for the key, too.
export const actions = {
  run: () => (live.state?.status === "running" ? pause() : send("run")),
  step: () => send("advance", { steps: 1, chunk: false }),
  chunk: () => send("advance", { steps: 1, chunk: true }),
  reset: () => send("reset"),
  next: () => {
    const { scene, n_inits } = live.state ?? {};
    if (scene) drive({ ...scene, goal: null, init: (scene.init + 1) % n_inits });
  },
};

let root;
let loadingSince = null;
const $ = (selector) => root.querySelector(selector);

export function mount(element) {
  root = element;
  root.innerHTML = TEMPLATE;
  for (const [name, act] of Object.entries(actions)) $(`#live-${name}`)?.addEventListener("click", act);
  $("#live-speed").addEventListener("change", (e) => send("speed", { hz: Number(e.target.value) }));
  $("#live-policy-view").addEventListener("change", (e) => showPolicyView(e.target.checked));
  $("#live-k").value = live.k;
  $("#live-k").addEventListener("input", (e) => setK(Number(e.target.value)));
  $("#live-wake").addEventListener("click", () => {
    overlay("Connecting …", "", true);
    connect();
  });
  on("frame", drawFrame);
  on("state", drawState);
  on("hello", () => {
    if ($("#live-policy-view").checked) send("view", { policy: true });
    drawVerdict();
  });
  on("queue", drawQueue);
  on("idle", drawIdle);
  for (const kind of ["plan", "episode", "k", "select"]) on(kind, drawVerdict);
  on("episode", () => root.querySelectorAll(".st-policy").forEach(wipe));
  overlay("Connecting …", "", true);
  setInterval(drawLoading, 250);
  drawVerdict();
}

function showPolicyView(shown) {
  root.classList.toggle("st-compare", shown);
  send("view", { policy: shown });
  emit("resize");
}

const wipe = (canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);

function drawFrame({ episode, step, cameras, pictures }) {
  cameras.forEach((camera, i) => {
    const canvas = $(`#live-${camera.replace("_", "-")}`);
    if (!canvas) return;
    const { width, height } = pictures[i];
    if (canvas.width !== width) Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(pictures[i], 0, 0);
  });
  Object.assign(root.dataset, { frameEpisode: episode, frameStep: step });
  root.dataset.frames = 1 + Number(root.dataset.frames ?? 0);
}

const OUTCOMES = {
  success: ["Success", "The goal was reached"],
  timeout: ["Timeout", "The step limit was reached before the goal"],
  stopped: ["Stopped", "The episode was ended by hand"],
  error: ["Error", ""],
};

function drawState(state) {
  root.dataset.status = state.status;
  const running = state.status === "running";
  const ready = ["running", "paused", "ended", "error"].includes(state.status);
  const run = $("#live-run");
  if (run.dataset.running !== String(running)) {
    run.dataset.running = running;
    run.innerHTML = `${icon(running ? "pause" : "run")}<span>${running ? "Pause" : "Run"}</span>`;
  }
  run.disabled = $("#live-reset").disabled = !ready;
  $("#live-step").disabled = $("#live-chunk").disabled = !ready || running;
  $("#live-speed").value = String(state.hz);
  const share = state.max_steps ? Math.min(1, state.step / state.max_steps) : 0;
  $("#live-step-count").textContent = state.max_steps ? `step ${state.step} / ${state.max_steps}` : "step –";
  $(".st-progress b").style.width = `${100 * share}%`;
  drawOutcome(state);
  loadingSince = state.status === "loading" ? (loadingSince ?? performance.now()) : null;
  drawLoading();
}

function drawOutcome(state) {
  const kind = state.status === "error" ? "error" : state.status === "ended" ? state.outcome : null;
  const banner = $("#live-outcome");
  banner.hidden = !OUTCOMES[kind];
  if (banner.hidden) return;
  const [title, words] = OUTCOMES[kind];
  const text = state.message || (kind === "success" ? `${words} in ${state.step} steps` : words);
  const news = `${state.episode} ${kind} ${text}`;
  if (banner.dataset.news === news) return; // its buttons stay while somebody presses them
  Object.assign(banner.dataset, { news, outcome: kind });
  banner.replaceChildren(
    Object.assign(document.createElement("strong"), { textContent: title }),
    Object.assign(document.createElement("span"), { textContent: text }),
    button("live-again", "Again", () => send("run")),
    button("live-next", "Next state", actions.next),
  );
  emit("outcome", banner);
}

function button(id, label, press) {
  const made = Object.assign(document.createElement("button"), { id, textContent: label });
  made.addEventListener("click", press);
  return made;
}

// What is read aloud is written only when it changes.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// An overlay that stands keeps its nodes, or its spinner would start again each time.
function overlay(title, text = "", busy = false, asleep = false) {
  const box = $("#live-overlay");
  box.hidden = !title;
  if (!title) return;
  box.classList.toggle("st-busy", busy);
  say(box.querySelector("strong"), title);
  say(box.querySelector("span"), text);
  $("#live-wake").hidden = !asleep;
}

// The spinner shows at once; after two seconds it says what it is waiting for. A running scene has
// a message only while its policy is away.
function drawLoading() {
  const state = live.state;
  if (!state) return; // queue, rest or first connection: their own words stay
  if (state.status === "empty") return overlay("No scene yet", "Choose a task on the left and press Load scene.");
  const away = state.status === "running" && state.message;
  if (away) return overlay("Waiting for the policy", state.message, true);
  if (loadingSince === null) return overlay(null);
  const seconds = (performance.now() - loadingSince) / 1000;
  const text = seconds > 2 ? `${state.message || "building the simulation"} · ${seconds.toFixed(0)} s` : "";
  overlay("Loading the scene", text, true);
}

function drawIdle() {
  loadingSince = null;
  live.state = null;
  overlay("Resting", "Nothing was asked for a long time, so the simulator was given back.", false, true);
}

function drawQueue({ position, cap }) {
  loadingSince = null;
  live.state = null;
  overlay(
    `Number ${position} in the queue`,
    `All ${cap} simulators are in use. This page starts by itself when one is free.`,
    true,
  );
}

const WORDS = { in: "in distribution", out: "out of distribution", unknown: "not calibrated" };

function drawVerdict() {
  const plan = planAt(live.selected) ?? latestPlan();
  const box = $("#live-verdict");
  const limit = threshold();
  document.body.classList.toggle("st-uncalibrated", limit === null);
  box.dataset.verdict = plan ? verdict(plan) : "unknown";
  say($(".st-verdict-word"), plan ? WORDS[verdict(plan)] : "no plan yet");
  $(".st-verdict-symbol").innerHTML = scoreName() === "final_energy" ? "E(a<sup>(K)</sup>)" : scoreLabel();
  $("#live-energy").textContent = plan ? number(score(plan)) : "–";
  $(".st-k output").textContent = live.k.toFixed(1);
  $(".st-limit").textContent = limit === null ? "" : number(limit);
  drawGauge(plan);
  const rows = plan
    ? [
        ["plan", `${plan.index}${plan.index === live.selected ? " · selected" : ""}`],
        ["start E(a⁽⁰⁾)", number(plan.initial)],
        ["refined E(a⁽ᴷ⁾)", number(plan.final)],
        ["gap to read-out", number(plan.scores.energy_gap, 3)],
        ["latency", `${plan.latency_ms.toFixed(0)} ms`],
      ]
    : [];
  $("dl").innerHTML = rows.map(([term, value]) => `<dt>${term}</dt><dd>${value}</dd>`).join("");
}

// The gauge spans μ - 3σ … μ + 5σ.
function drawGauge(plan) {
  const c = level();
  $(".st-gauge").hidden = !c;
  if (!c) return;
  const place = (z) => `${100 * Math.min(1, Math.max(0, (z + 3) / 8))}%`;
  $(".st-gauge .in").style.width = $(".st-gauge .limit").style.left = place(live.k);
  const value = plan ? score(plan) : null;
  const needle = $(".st-gauge b");
  needle.hidden = value === null || value === undefined;
  if (!needle.hidden) needle.style.left = place((value - c.mu) / c.sigma);
}
