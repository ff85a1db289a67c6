// Around the panels: status bar, connection banner, toasts, help, keyboard, theme, downloads.

import { latestPlan, live, on, recall, remember } from "./bus.js";
import { address, token } from "./socket.js";
import { actions } from "./stage.js";

const HEADER = `
  <div class="st-brand"><strong>EB-VLA Studio</strong><span>energy-based vision-language-action</span></div>
  <div class="st-status" id="live-status" aria-label="Status">
    <span id="live-checkpoint" title=""></span>
    <details id="live-versions"><summary>versions</summary><dl></dl></details>
    <span><b id="live-hz">–</b> Hz</span><span>plan <b id="live-latency">–</b> ms</span>
    <span id="live-server" hidden>round trip <b id="live-round-trip">–</b> ms</span>
    <span class="st-link" id="live-link" data-up="false">connecting</span>
  </div>
  <div class="st-tools">
    <button id="live-tour" title="Guided tour: → and ← walk, Esc ends it" aria-label="Guided tour" aria-pressed="false">▷</button>
    <button id="live-theme" title="Dark or light" aria-label="Switch between dark and light">◐</button>
    <button id="live-help" title="Keyboard shortcuts (?)" aria-label="Keyboard shortcuts">?</button>
  </div>`;

const OVERLAYS = `
  <div id="live-banner" role="alert" hidden></div>
  <div id="live-toasts" role="log" aria-live="assertive"></div>
  <dialog id="live-legend" aria-labelledby="live-legend-title">
    <h2 id="live-legend-title">Keyboard</h2>
    <dl>
      <dt><kbd>space</kbd></dt><dd>run or pause</dd>
      <dt><kbd>s</kbd></dt><dd>one control step</dd>
      <dt><kbd>c</kbd></dt><dd>one chunk: on to the next plan</dd>
      <dt><kbd>r</kbd></dt><dd>reset: the same scene again</dd>
      <dt><kbd>n</kbd></dt><dd>next: the task's next initial state</dd>
      <dt><kbd>t</kbd></dt><dd>take the arm over, give it back</dd>
      <dt><kbd>m</kbd></dt><dd>on to the next instruction of a sequence</dd>
      <dt><kbd>→</kbd> <kbd>←</kbd></dt><dd>walk the guided tour, <kbd>esc</kbd> ends it</dd>
      <dt><kbd>?</kbd></dt><dd>this legend</dd>
    </dl>
    <p>While a person drives, the keys shown under the cameras move the arm, and of the others only space, ?, t and m count.</p>
    <h2>Reading the energy</h2>
    <p>Every plan starts from noise a⁽⁰⁾ and descends to a⁽ᴷ⁾. A low final energy means that the action looks like
      the demonstrations. Above μ<sub>v</sub> + kσ<sub>v</sub>, the band of calibration episodes, the plan counts as out of
      distribution and turns orange.</p>
    <form method="dialog"><button class="st-primary">Close</button></form>
  </dialog>`;

const byId = (id) => document.getElementById(id);

export function mount(element) {
  element.innerHTML = HEADER;
  document.body.insertAdjacentHTML("beforeend", `<div class="st-overlays">${OVERLAYS}</div>`);
  byId("live-help").addEventListener("click", legend);
  byId("live-theme").addEventListener("click", switchTheme);
  const stored = recall("studio-theme", "localStorage");
  if (stored) document.body.classList.toggle("dark", stored === "dark");
  on("hello", drawHello);
  on("state", drawState);
  on("plan", drawState);
  on("connection", drawConnection);
  on("queue", () => drawConnection({ up: true }));
  on("idle", () => Object.assign(byId("live-link"), { textContent: "resting" }).setAttribute("data-up", "false"));
  on("error", ({ message }) => toast(message));
  on("renewed", () => toast("The earlier session has ended; this is a new one, with a scene of its own.", "note"));
  document.addEventListener("keydown", onKey);
  // after a click the keys belong to the scene again; who walks by keyboard keeps the focus
  document.addEventListener("click", ({ detail, target }) => detail && target.closest("button")?.blur());
}

function drawHello({ checkpoint, versions }) {
  if (checkpoint) {
    const name = byId("live-checkpoint");
    name.innerHTML = "<b></b> <code></code>";
    name.querySelector("b").textContent = checkpoint.name;
    name.querySelector("code").textContent = (checkpoint.sha256 ?? "").slice(0, 8);
    Object.assign(byId("live-server"), { hidden: !checkpoint.server, title: `planned by ${checkpoint.server}` });
    name.title = `preset ${checkpoint.preset} · ${checkpoint.head} head · sha256 ${checkpoint.sha256}`;
  }
  byId("live-versions").querySelector("dl").replaceChildren(
    ...Object.entries(versions ?? {}).flatMap(([key, value]) => [
      Object.assign(document.createElement("dt"), { textContent: key }),
      Object.assign(document.createElement("dd"), { textContent: String(value) }),
    ]),
  );
}

function drawState() {
  const { state } = live;
  byId("live-hz").textContent = state?.status === "running" ? (state.measured_hz ?? 0).toFixed(1) : "–";
  byId("live-latency").textContent = latestPlan()?.latency_ms.toFixed(0) ?? "–";
  byId("live-round-trip").textContent = latestPlan()?.round_trip_ms?.toFixed(0) ?? "–";
}

function drawConnection({ up, text }) {
  Object.assign(byId("live-banner"), { hidden: up, textContent: text ?? "" });
  const link = byId("live-link");
  link.dataset.up = up;
  link.textContent = up ? "connected" : "offline";
}

export function toast(message, kind = "error") {
  const note = Object.assign(document.createElement("div"), { textContent: message, className: kind });
  const close = Object.assign(document.createElement("button"), { textContent: "×" });
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => note.remove());
  note.append(close);
  byId("live-toasts").append(note);
  setTimeout(() => note.remove(), 9000);
  while (byId("live-toasts").children.length > 4) byId("live-toasts").firstChild.remove();
}

function legend() {
  const dialog = byId("live-legend");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function switchTheme() {
  const dark = document.body.classList.toggle("dark");
  remember("studio-theme", dark ? "dark" : "light", "localStorage");
}

const KEYS = { " ": "run", s: "step", c: "chunk", r: "reset", n: "next" };

const PRESSED = "button, summary, a, input:not([type=range]), [role=tab]";

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented || typingIn(event.target)) return;
  if (event.key === "?") return legend();
  const action = KEYS[event.key];
  const onLive = byId("live-stage")?.offsetParent !== null;
  if (!action || !onLive || byId("live-legend").open) return;
  if (event.key !== " " && document.body.dataset.driver !== "policy") return; // beside the driving keys
  if (event.key === " " && event.target.closest(PRESSED)) return; // it presses that
  event.preventDefault();
  if (!byId(`live-${action}`)?.disabled) actions[action]();
}

export function typingIn(target) {
  if (target.isContentEditable || target.closest("textarea, select, [role=combobox], [role=listbox] input")) return true;
  return target.tagName === "INPUT" && !["range", "radio", "checkbox"].includes(target.type);
}

// Every step is drawn and encoded first: its button says so, and takes no second click meanwhile.
export async function download(kind) {
  const button = byId(`live-export-${kind}`);
  button.disabled = true;
  toast("Preparing this episode …", "note");
  await fetched(address(`live/export/episode.${kind}?token=${token()}&k=${live.k}`), `episode.${kind}`);
  button.disabled = false;
}

const LOST = "It could not be downloaded; is the server running?";

// Fetched first, so that "nothing recorded yet" is a message here and not a page of its own.
export async function fetched(url, otherwise, options = {}) {
  try {
    const response = await fetch(url, options);
    if (!response.ok) return toast((await response.json()).error ?? LOST);
    const name = /filename="?([^";]+)/.exec(response.headers.get("content-disposition") ?? "")?.[1];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name ?? otherwise;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch {
    toast(LOST);
  }
}
