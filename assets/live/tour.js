// A guided tour for a lab meeting: five steps on live runs, one key, large type.

import { latestPlan, live, on, scrolling, select } from "./bus.js";
import { apply, drive, instruct, pause } from "./forms.js";
import { openTab } from "./jobs.js";
import { send } from "./socket.js";

const ORBIT = 45; // degrees, in
const SWEEP_MS = 3000;
const TICK_MS = 100;
const PREFERRED = { libero_goal: [5, 8], libero_object: [0, 3] }; // a task, and another of its scene

const STEPS = [
  {
    title: "A nominal episode",
    text: "Every plan begins as noise and descends the energy. The dots below are where each descent ended: inside the band that calibration episodes left.",
    play() {
      nominal();
      scene(0);
      show("live-stage");
    },
  },
  {
    title: "The camera moves, and the energy answers",
    text: "The same scene, seen from further and further round. No moved camera was ever shown in training: the energy itself tells whether the view is known.",
    play() {
      scene(0);
      show("live-stage");
      const started = performance.now();
      ticking = setInterval(() => {
        const share = Math.min(1, (performance.now() - started) / SWEEP_MS);
        apply("camera", { ...live.config.defaults.camera, orbit_horizontal: Math.round(ORBIT * share) });
        if (share === 1) clearInterval(ticking);
      }, TICK_MS);
    },
  },
  {
    title: "Inside one plan",
    text: "The landscape around the chosen action, and the descent that found it. A known context has a valley; an unknown one is flat and high.",
    play() {
      pause();
      if (latestPlan()) select(latestPlan().index);
      show("live-landscape");
      later(() => document.getElementById("live-descent-play")?.click(), 4000);
    },
  },
  {
    title: "Other words, same scene",
    text: "The instruction is retyped while the robot stands before the same objects. What it does is up to the words.",
    play() {
      nominal();
      scene(0);
      later(() => instruct(words(1)), 1500);
      show("live-stage");
    },
  },
  {
    title: "From energies to a detector",
    text: "Hundreds of episodes later: move k, and watch the operating point walk along the ROC curve.",
    play() {
      pause();
      openTab("OOD lab");
      later(() => show("lab-study"), 300);
    },
  },
];

let at = -1;
let card = null;
let ticking = null;
let waiting = null;

const suite = () => {
  const known = live.checkpoint?.suites ?? [];
  return Object.keys(PREFERRED).find((name) => known.includes(name)) ?? "libero_object";
};
const words = (which) => live.config.suites[suite()][PREFERRED[suite()][which]];

function scene(which) {
  drive({ suite: suite(), task: PREFERRED[suite()][which], init: 40, seed: 0 });
  send("run");
}

function nominal() {
  for (const group of ["camera", "light", "sensor"]) apply(group, live.config.defaults[group]);
}

const show = (id) => document.getElementById(id)?.scrollIntoView({ behavior: scrolling(), block: "start" });

function later(action, ms) {
  waiting = setTimeout(action, ms);
}

export function mount() {
  document.getElementById("live-tour").addEventListener("click", () => (at < 0 ? go(0) : stop()));
  document.addEventListener("keydown", onKey);
  on("connection", ({ up }) => !up && stop());
}

// Arrows and the two keys of a presenter's remote; escape leaves the studio as it stands.
function onKey(event) {
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (event.key !== "Escape" && (!step || event.target.matches?.("input, textarea, select"))) return;
  event.preventDefault();
  if (step) go(at + step);
  else stop();
}

function go(step) {
  clearInterval(ticking);
  clearTimeout(waiting);
  if (step < 0) return;
  if (step >= STEPS.length) return stop();
  at = step;
  draw();
  if (step < STEPS.length - 1) openTab("Live");
  STEPS[at].play();
}

function draw() {
  card ??= document.body.appendChild(Object.assign(document.createElement("aside"), { id: "live-tour-card" }));
  const { title, text } = STEPS[at];
  card.innerHTML = `<div><b>${at + 1} / ${STEPS.length}</b><h2>${title}</h2><p>${text}</p></div>
    <nav><button data-by="-1" aria-label="Back">←</button><button data-by="1" class="st-primary">Next →</button>
    <button data-by="0" aria-label="End the tour">×</button></nav>`;
  card.setAttribute("role", "status");
  card.querySelectorAll("button").forEach((button) =>
    button.addEventListener("click", () => (button.dataset.by === "0" ? stop() : go(at + Number(button.dataset.by)))),
  );
  document.getElementById("live-tour").setAttribute("aria-pressed", "true");
}

function stop() {
  clearInterval(ticking);
  clearTimeout(waiting);
  at = -1;
  card?.remove();
  card = null;
  document.getElementById("live-tour")?.setAttribute("aria-pressed", "false");
}
