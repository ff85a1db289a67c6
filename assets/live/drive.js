// Driving by hand: who drives, what is held, and how it goes out: on every change, and again ten
// times a second while anything is held (see studio/teleop.py).

import { edits, live, number, on, recall, remember } from "./bus.js";
import { toast, typingIn } from "./chrome.js";
import * as gizmo from "./gizmo.js";
import * as inputs from "./inputs.js";
import { send } from "./socket.js";

const HEARTBEAT_MS = 100;
const ASK_MS = 1000;
const FRAMES = ["base", "effector", "camera"];
const DRIVERS = { policy: "Policy", human: "You", shared: "Shared" };
const COMMANDS = { KeyT: handOver, KeyB: nextFrame, KeyZ: () => faster(-0.1), KeyX: () => faster(0.1) };

const PADS = [
  ["Move", [["KeyQ", "↓", "down"], ["KeyW", "↑", "forward"], ["KeyE", "⤒", "up"], ["KeyA", "←", "left"], ["KeyS", "↓", "back"], ["KeyD", "→", "right"]]],
  ["Turn", [["KeyU", "↺", "turn left"], ["KeyI", "⤴", "tip forward"], ["KeyO", "↻", "turn right"], ["KeyJ", "⟲", "lean left"], ["KeyK", "⤵", "tip back"], ["KeyL", "⟳", "lean right"]]],
  ["Grip", [["KeyF", "▸◂", "close"], ["KeyV", "◂▸", "open"], ["KeyG", "▶", "go: lets a gated policy go on"]]],
];
const segments = (id, choices) =>
  `<div class="st-segments" id="${id}" role="group">${Object.entries(choices)
    .map(([value, label]) => `<button data-value="${value}" aria-pressed="false">${label}</button>`)
    .join("")}</div>`;
const pad = ([title, keys]) => `<fieldset><legend>${title}</legend><div class="st-keys st-keys-${keys.length}">${keys
  .map(([code, sign, name]) => `<button data-code="${code}" title="${name}" aria-label="${name}"><b>${sign}</b><kbd data-key="${code}"></kbd><span>${name.split(":")[0]}</span></button>`)
  .join("")}</div></fieldset>`;
const check = (id, label) => `<label class="st-toggle"><input type="checkbox" id="${id}"> ${label}</label>`;

const TEMPLATE = `
  <header class="st-head"><h3>Who drives</h3>
    ${segments("live-driver", DRIVERS)}
    <span class="st-hint"><kbd data-key="KeyT"></kbd> takes over and gives back</span>
    <output id="live-drive-energy" aria-live="off"></output>
  </header>
  <div class="st-wheel" id="live-wheel" role="status" hidden><span></span><button></button></div>
  <div class="st-drive-body" id="live-drive-body" hidden>
    <div class="st-drive-options">
      <span>frame <kbd data-key="KeyB"></kbd></span>${segments("live-frame", { base: "base", effector: "hand", camera: "camera" })}
      <label>speed <kbd data-key="KeyZ"></kbd> <kbd data-key="KeyX"></kbd>
        <input type="range" id="live-drive-speed" min="0.1" max="1" step="0.05" aria-label="Speed"></label>
      ${check("live-upright", "keep vertical")} ${check("live-workspace", "stay over the table")}
      <label class="st-toggle">limit <select id="live-limit" aria-label="Speed limit">
        <option value="0.25">¼</option><option value="0.5">½</option><option value="1">none</option></select></label>
      ${check("live-gate", "policy goes only while a key is held")}
    </div>
    <div class="st-pads">${PADS.map(pad).join("")}</div>
    <p class="st-hint"><span id="live-drive-hint"></span> <span id="live-hand"></span></p>
  </div>`;

let root;
let speed = Number(recall("studio-speed") ?? 0.5);
let frame = recall("studio-frame") ?? "camera";
let count = Math.floor(Math.random() * 2 ** 30); // numbers of one page tell its inputs from another's
let wheel = { mine: false, taken: false, asking: false, asked: false };
let asking = null;
const edited = edits(draw);
let sent = 0; // changes told to the loop, for whoever counts
const $ = (selector) => root.querySelector(selector);

const shown = () => root?.offsetParent !== null; // nobody drives what they don't see
export const driving = () => Boolean(live.state) && live.state.driver !== "policy" && !wheel.taken && shown();
export const counts = () => ({ sent, heard: live.state?.inputs });

export function mount(element) {
  root = element;
  root.innerHTML = TEMPLATE;
  inputs.mount(tell, padPressed);
  $("#live-driver").addEventListener("click", ({ target }) => choose(target.dataset.value));
  $("#live-frame").addEventListener("click", ({ target }) => setFrame(target.dataset.value));
  $("#live-drive-speed").addEventListener("input", ({ target }) => setSpeed(Number(target.value)));
  for (const id of ["upright", "workspace", "gate", "limit"]) $(`#live-${id}`).addEventListener("change", tellAssists);
  $(".st-wheel button").addEventListener("click", () => (wheel.asked ? send("wheel", { ask: false }) : ask()));
  mountKeys();
  mountPads();
  gizmo.mount();
  on("state", draw);
  on("wheel", drawWheel);
  on("comparison", drawEnergy);
  on("episode", drawEnergy);
  on("hello", drawEnergy);
  on("connection", ({ up }) => up || inputs.releaseAll());
  setInterval(() => driving() && anything() && send("drive", message()), HEARTBEAT_MS);
  setSpeed(speed);
  setFrame(frame);
}

// -- what is held ---------------------------------------------------------------------------------

const anything = () => Object.values(inputs.axes()).some(Boolean);
const message = () => {
  const { go, ...axes } = inputs.axes();
  return { ...axes, go: Boolean(go), speed, frame, number: count };
};

function tell() {
  for (const button of root.querySelectorAll("[data-code]")) button.classList.toggle("held", inputs.isHeld(button.dataset.code));
  if (!driving()) return;
  count += 1;
  if (send("drive", message())) sent += 1;
}

function mountKeys() {
  const open = () => document.querySelector("dialog[open]");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typingIn(event.target) || !shown() || open()) return;
    const command = COMMANDS[event.code];
    const mine = event.code === "KeyT" ? live.state && !wheel.taken : driving() && (command || inputs.KEYS[event.code]);
    if (!mine) return;
    event.preventDefault();
    if (event.repeat) return;
    if (command) command();
    else inputs.press(event.code, event.code);
  }, true); // before the page's other shortcuts
  document.addEventListener("keyup", ({ code }) => {
    if (code.startsWith("Meta")) inputs.releaseAll(); // macOS keeps silent about keys that went up meanwhile
    else inputs.release(code);
  }, true);
  document.addEventListener("visibilitychange", () => document.hidden && inputs.releaseAll());
  window.addEventListener("blur", () => {
    inputs.releaseAll();
    drawFocus(false);
  });
  window.addEventListener("focus", () => drawFocus(true));
  document.addEventListener("focusin", ({ target }) => typingIn(target) && inputs.releaseAll());
  nameKeys();
}

// The places have other letters on other keyboards; browsers that know them say so.
async function nameKeys() {
  const layout = await navigator.keyboard?.getLayoutMap?.().catch(() => null);
  for (const cap of document.querySelectorAll("[data-key]")) {
    const { key } = cap.dataset;
    cap.textContent = (layout?.get(key) ?? key.replace("Key", "")).toUpperCase();
  }
}

// Fingers and mice: a button is held until its pointer goes up, wherever that is.
function mountPads() {
  for (const button of root.querySelectorAll("[data-code]")) {
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      inputs.press(`pointer ${event.pointerId}`, button.dataset.code);
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      button.addEventListener(kind, ({ pointerId }) => inputs.release(`pointer ${pointerId}`));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }
}

function padPressed(name) {
  if (name === null) return toast("The gamepad is gone; everything is released.");
  if (!shown() || wheel.taken) return;
  if (name === "hand over") handOver();
  else if (driving()) ({ frame: nextFrame, slower: () => faster(-0.1), faster: () => faster(0.1) })[name]();
}

// -- who drives -----------------------------------------------------------------------------------

export function choose(driver) {
  if (!driver || !live.state) return;
  inputs.releaseAll();
  send("driver", { driver });
  if (driver !== "policy" && live.state.status === "paused" && !live.state.help) send("run");
}

// The same scene once more: whoever drives by hand drives on.
export function goOn() {
  if (live.state?.driver !== "policy") send("run");
}

function handOver() {
  choose(live.state?.driver === "policy" ? "human" : "policy");
}

function ask() {
  const wish = () => send("wheel", { ask: true });
  clearInterval(asking);
  asking = setInterval(wish, ASK_MS);
  wish();
}

function drawWheel(state) {
  wheel = state;
  if (!wheel.taken) {
    clearInterval(asking);
    asking = null;
  }
  const words = wheel.asked
    ? ["Another tab asks for the wheel.", "Hand it over"]
    : ["Another tab drives this arm; this one watches.", wheel.asking ? "Asked … it is yours after 10 s without a key there" : "Ask for the wheel"];
  $("#live-wheel").hidden = !wheel.taken && !wheel.asked;
  [$(".st-wheel span").textContent, $(".st-wheel button").textContent] = words;
  if (wheel.taken) inputs.releaseAll();
  if (live.state) draw(live.state);
}

// -- options --------------------------------------------------------------------------------------

function nextFrame() {
  setFrame(FRAMES[(FRAMES.indexOf(frame) + 1) % FRAMES.length]);
}

function setFrame(name) {
  if (!FRAMES.includes(name)) return;
  frame = name;
  remember("studio-frame", name);
  press("#live-frame", name);
  gizmo.draw(driving() ? frame : null);
}

const faster = (by) => setSpeed(Math.min(1, Math.max(0.1, speed + by)));

function setSpeed(value) {
  speed = Math.round(100 * value) / 100;
  remember("studio-speed", speed);
  $("#live-drive-speed").value = speed;
}

function tellAssists() {
  const [upright, workspace, gate] = ["upright", "workspace", "gate"].map((id) => $(`#live-${id}`).checked);
  send("assists", { upright, workspace, gate, limit: Number($("#live-limit").value) });
  edited.touch();
}

// -- drawing --------------------------------------------------------------------------------------

function press(selector, value) {
  for (const button of $(selector).children) button.setAttribute("aria-pressed", String(button.dataset.value === value));
}

const HINTS = {
  human: ["Your keys move the arm.", "Hold a key: the scene waits for you and uses no steps."],
  shared: ["Your keys are added to the policy's actions.", "Hold a key, and the policy goes on."],
};

const hint = ({ driver, status, resting }) => {
  if (status === "running") return HINTS[driver]?.[Number(resting)] ?? "";
  if (status === "loading") return "";
  return status === "ended" ? "The episode is over: space begins it again." : "Paused: press space to drive.";
};

function draw(state) {
  const { driver, assists } = state;
  press("#live-driver", driver);
  document.body.dataset.driver = driver;
  $("#live-drive-body").hidden = driver === "policy" || wheel.taken;
  for (const button of $("#live-driver").children) button.disabled = wheel.taken;
  if (assists && edited.settled()) {
    for (const id of ["upright", "workspace", "gate"]) $(`#live-${id}`).checked = assists[id];
    $("#live-limit").value = String(assists.limit);
  }
  $("#live-gate").parentElement.hidden = driver !== "shared";
  root.querySelector('[data-code="KeyG"]').hidden = driver !== "shared";
  $("#live-drive-hint").textContent = hint(state);
  const [x, y, z] = (state.hand ?? []).map((value) => number(value, 3));
  $("#live-hand").textContent = `The hand is at ${x}, ${y}, ${z} m.`;
  gizmo.draw(driving() ? frame : null);
  drawFocus(document.hasFocus());
}

function drawEnergy() {
  const latest = live.comparisons.at(-1);
  $("#live-drive-energy").innerHTML = latest
    ? `<i class="human"></i>you <b>${number(latest.human)}</b> <i class="policy"></i>policy <b>${number(latest.policy)}</b>`
    : "";
}

// A page in a frame gets no keys before it is clicked.
function drawFocus(focused) {
  const views = document.querySelector("#live-stage .st-views");
  if (!views) return;
  let note = document.getElementById("live-focus");
  if (!note) {
    note = Object.assign(document.createElement("button"), { id: "live-focus", textContent: "Click to drive" });
    note.addEventListener("click", () => {
      window.focus();
      drawFocus(true);
    });
    views.append(note);
  }
  note.hidden = focused || !driving();
}
