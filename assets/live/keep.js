// What can be kept of the ticked runs: every plan as CSV, the report, their level as a calibration.

import { escapeHtml, live, number } from "./bus.js";
import { fetched, toast } from "./chrome.js";
import { answerOf, button, draw, onAction } from "./jobs.js";
import { address } from "./study.js";

const KEPT = {
  csv: ["CSV", "CSV …", () => save("plans.csv")],
  report: ["Report", "Report …", () => save("report.html")],
  calibrate: ["Save as calibration", "Saving …", () => calibrate(false)],
  replace: ["Replace", "Saving …", () => calibrate(true)],
};
const busy = new Set(); // what is being kept just now
let asked = null; // the calibration that would replace another: the server's answer
let ticked = []; // names of runs
let nominal = []; // those of them without a perturbation: what a calibration is of
let root = null;

export function mount(element) {
  root = element;
  onAction(root, {
    ...Object.fromEntries(Object.keys(KEPT).map((action) => [action, () => keeping(action)])),
    spare: () => {
      asked = null;
      paint();
      focusOn("calibrate");
    },
  });
  paint();
}

// Keep these runs, of which the `unperturbed` make a calibration; `any`: whether there are runs to tick.
export function show(names, unperturbed, any) {
  [ticked, nominal] = [names, unperturbed];
  if (!root) return;
  root.hidden = !any;
  paint();
}

const counted = () => `${ticked.length} ${ticked.length === 1 ? "run" : "runs"}`;
const level = ({ mu, sigma, episodes }) => `μ ${number(mu)}, σ ${number(sigma)} of ${episodes} episodes`;

function paint() {
  const about = ticked.length
    ? `A calibration is of the nominal runs: ${nominal.join(", ") || "tick one"}`
    : "Tick runs to compare";
  draw(root, `<header class="st-head"><h3>Study</h3><span class="st-about">${escapeHtml(about)}</span>
    <span role="status">${asked ? escapeHtml(`Replace ${level(asked.before)} by ${level(asked)}?`) : ""}</span>
    <span class="st-actions">${(asked ? replacing() : keeps()).join("")}</span></header>`);
}

// The buttons change with the question: what a keyboard would press next.
const focusOn = (action) => root.querySelector(`[data-action="${action}"]`)?.focus();

const keeps = () => [
  keepButton("csv", ticked, ` of ${counted()}`),
  keepButton("report", ticked, ` of ${counted()}`),
  keepButton("calibrate", nominal),
];

const replacing = () => [button("spare", "", "Cancel"), keepButton("replace", asked.runs)];

function keepButton(action, runs, of = "") {
  const [idle, working] = KEPT[action];
  const text = busy.has(action) ? working : idle + (runs.length ? of : "");
  return button(action, "", text, "", !runs.length);
}

async function keeping(action) {
  if (busy.has(action)) return;
  busy.add(action);
  paint();
  try {
    await KEPT[action][2]();
  } finally {
    busy.delete(action);
    paint();
    if (asked && action === "calibrate") focusOn("spare");
  }
}

const save = (what) => fetched(address(what), what);

// A calibration that is there already is replaced only by who has seen the numbers of both.
async function calibrate(replace) {
  const runs = replace ? asked.runs : nominal; // those that the question was about
  const found = await answerOf("lab/calibrate", { runs, replace }).catch((error) => toast(error.message));
  asked = found?.before ? { ...found, runs } : null;
  if (!found || asked) return;
  const used = found.used ? "Live uses it from its next episode on" : `Live still plans with ${live.checkpoint?.name ?? "another"}`;
  toast(`${found.checkpoint} is calibrated over ${found.episodes} episodes: μ ${number(found.mu)}, σ ${number(found.sigma)}. ${used}.`, "note");
}
