// The guard: when the policy is to stop and ask, and the answers that it may get (studio/guard.py).

import { edits, level, live, on, scoreName, threshold, number } from "./bus.js";
import { choose } from "./drive.js";
import { send } from "./socket.js";

const CHAINS = 8; // of a plan that is made again
const TEMPLATE = `
  <label class="st-toggle"><input type="checkbox" id="live-guard-on"> ask for help</label>
  <span class="st-guard-rule">when <select id="live-guard-rule" aria-label="By what the guard judges">
      <option value="either">level or slope</option><option value="level">the level</option><option value="slope">the slope</option></select>
    of <input type="number" id="live-guard-plans" min="1" max="20" step="1" aria-label="Plans in a row"> plans is above <output></output></span>
  <span class="st-hint" id="live-guard-none" hidden>The guard needs a calibrated checkpoint (studio.evaluate --calibrate).</span>`;

const ANSWERS = [
  ["live-help-continue", "Continue", () => send("run")],
  ["live-help-replan", `Replan, ${CHAINS} chains`, () => send("replan", { chains: CHAINS })],
  ["live-help-retype", "Retype", retype],
  ["live-help-take", "Take over", () => choose("human")],
];

let root;
let banner = null;
const edited = edits(draw);
const $ = (selector) => root.querySelector(selector);

export function mount(element) {
  root = element;
  root.innerHTML = TEMPLATE;
  for (const id of ["-on", "-rule", "-plans"]) $(`#live-guard${id}`).addEventListener("change", tell);
  $("#live-guard-plans").addEventListener("input", () => edited.touch());
  on("state", draw);
  on("k", () => (live.state?.guard?.on ? tell() : live.state && draw(live.state)));
}

function tell() {
  const plans = Math.min(20, Math.max(1, Math.round(Number($("#live-guard-plans").value)) || 1));
  send("guard", { on: $("#live-guard-on").checked, rule: $("#live-guard-rule").value, plans, k: live.k, score: scoreName() });
  edited.touch();
}

function draw(state) {
  const { guard } = state;
  if (!guard) return;
  if (edited.settled()) {
    $("#live-guard-on").checked = guard.on;
    $("#live-guard-rule").value = guard.rule;
    const plans = $("#live-guard-plans");
    if (plans !== document.activeElement) plans.value = guard.plans; // a number in the making stays
  }
  $("output").textContent = number(threshold());
  $("#live-guard-on").disabled = !level();
  $(".st-guard-rule").hidden = !level();
  $("#live-guard-none").hidden = Boolean(level());
  drawHelp(state.help);
}

function drawHelp(reason) {
  banner ??= makeBanner();
  if (!banner || banner.dataset.reason === reason) return; // its buttons stay while somebody presses them
  banner.dataset.reason = reason;
  banner.hidden = !reason;
  banner.querySelector("span").textContent = reason;
}

function makeBanner() {
  const views = document.querySelector("#live-stage .st-views");
  if (!views) return null;
  const box = Object.assign(document.createElement("div"), { id: "live-ask", className: "st-outcome", hidden: true });
  box.dataset.outcome = "help";
  box.setAttribute("role", "alert");
  box.append(Object.assign(document.createElement("strong"), { textContent: "The policy asks for help" }), document.createElement("span"));
  for (const [id, textContent, press] of ANSWERS) {
    const button = Object.assign(document.createElement("button"), { id, textContent });
    button.addEventListener("click", press);
    box.append(button);
  }
  views.append(box);
  return box;
}

function retype() {
  const box = document.querySelector("#live-instruction textarea, #live-instruction input");
  box.focus();
  box.select();
}
