// Gradio's widgets and the server: what a widget says goes out at once, what the server says comes
// back into the widgets through one hidden listener (see studio/ui/widgets.py).

import { live, on } from "./bus.js";
import { send } from "./socket.js";

const INTERVAL_MS = { camera: 66, light: 66 }; // what is seen at once follows the slider
const PATIENCE_MS = 350; // the rest waits until the slider rests
const SETTLE_MS = 1500; // after a person's own edit the server's echo is left alone for so long

let refill = () => {}; // triggers the hidden listener
let due = new Set(); // groups of widgets that the next listener run fills
const edited = {}; // group -> time of the last edit by hand
let shown = null; // state that the widgets show
let paused = false; // by a person, or was before the scene that loads now
let pausing = null; // step at which a pause was asked for; the loop may be at its last plan still
const draft = { scene: {}, camera: {}, light: {}, sensor: {}, robot: {}, sampler: {} };
const FORMS = Object.keys(draft).slice(1);
const timers = {};
const restoring = {};

export function mount(trigger) {
  refill = trigger;
  on("hello", ({ state }) => sync(state, true));
  on("state", (state) => sync(state, false));
  on("error", refused);
}

// How the robot starts belongs to the scene, the other forms to the way it is seen and solved.
const formOf = (state, group) => (group === "robot" ? state.scene.robot : state[group]);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const settled = (group) => performance.now() - (edited[group] ?? -Infinity) > SETTLE_MS;

function sync(state, all) {
  if (!state?.scene) return;
  // Somebody else may run the scene again before this page has seen it stand.
  if (all || state.status !== "running" || state.step > pausing + 2) pausing = null;
  // An episode that a load cuts off is "stopped" for a moment before the load shows.
  if (pausing === null && state.status !== "loading" && state.outcome !== "stopped") paused = ["paused", "empty"].includes(state.status);
  const before = shown ?? {};
  const parts = {
    scene: [state.scene, state.n_inits],
    instruction: [state.instruction, state.task_instruction],
    ...Object.fromEntries(FORMS.map((group) => [group, formOf(state, group)])),
    slice: live.checkpoint?.horizon,
  };
  for (const [group, value] of Object.entries(parts)) {
    const reset = all && (settled(group) || group !== "instruction"); // a sentence in the making stays
    const changed = !same(before[group], value);
    if (reset || (changed && (settled(group) || group === "scene"))) due.add(group);
    else if (changed && !same(draft[group], value)) {
      parts[group] = before[group]; // a person is at it, and sees this later
      restore(group);
    }
  }
  shown = parts;
  draft.scene = { ...state.scene };
  for (const group of FORMS) if (due.has(group)) draft[group] = { ...parts[group] };
  markDisturbed(state);
  if (due.size) refill();
}

// What the server refused is not sent again with the next edit of its form.
function refused({ refused: type }) {
  if (type === "pause") pausing = null;
  if (!live.state?.scene) return;
  for (const group of type === "load" ? ["scene", "robot"] : [type]) {
    if (!(group in draft)) continue;
    draft[group] = { ...formOf(live.state, group) };
    restore(group);
  }
}

// The widgets follow once the person rests, who may be in the middle of a number.
function restore(group) {
  clearTimeout(restoring[group]);
  if (!settled(group)) {
    restoring[group] = setTimeout(restore, SETTLE_MS, group);
    return;
  }
  due.add(group);
  sync(live.state, false);
}

// The closed accordion and the switch of the policy's view show that something is not nominal.
function markDisturbed(state) {
  const { light, robot } = live.config.defaults;
  const noisy = state.sensor.kind !== "none";
  const moved = state.scene.robot.offset !== robot.offset || state.scene.layout !== "libero";
  const { intensity, hue, saturation } = state.light;
  const brightness = Math.min(1, intensity / 100) * (100 - saturation / 2);
  document.body.style.setProperty("--st-lamp", `hsl(${hue} 100% ${brightness}%)`);
  document.body.classList.toggle("st-noisy", noisy);
  document.body.classList.toggle("st-disturbed", noisy || moved || !same(state.light, light));
}

// -- called by the hidden listener and by listeners of the forms (see `window.studio`) ------------

const update = (fields) => ({ ...fields, __type__: "update" });
const taskChoices = (suite) => live.config.suites[suite].map((text, i) => [`${i} · ${text}`, i]);

function valueOf(name) {
  const { state, config } = live;
  const [group, field] = name.split(".");
  if (!due.has(group) || !state?.scene) return undefined;
  if (name === "camera.view") return update({ choices: viewChoices(), value: null });
  if (FORMS.includes(group)) return formOf(state, group)[field];
  if (name === "slice.timestep") return update({ maximum: live.checkpoint.horizon });
  const instructions = config.suites[state.scene.suite];
  if (name === "scene.task") return update({ choices: taskChoices(state.scene.suite), value: state.scene.task });
  if (name === "scene.init") return update({ maximum: Math.max(1, (state.n_inits || 50) - 1), value: state.scene.init });
  if (name === "scene.layout") return update({ choices: config.layouts[state.scene.suite], value: state.scene.layout });
  if (name === "instruction.text") return state.instruction;
  if (name === "instruction.suite") return update({ choices: [...new Set(instructions)], value: null });
  return state.scene[field];
}

export function widgets() {
  const values = live.config.widgets.map(valueOf);
  due = new Set();
  return values;
}

export function suite(name) {
  draft.scene = { ...draft.scene, suite: name, task: 0, init: 0 };
  return [update({ choices: taskChoices(name), value: 0 }), 0];
}

export function load(suiteName, task, init, seed) {
  for (const group of ["instruction", ...FORMS]) edited[group] = undefined;
  cancel("robot"); // its start goes out with the scene
  const own = live.config.layouts[suiteName].some(([, value]) => value === draft.scene.layout);
  drive({
    suite: suiteName, task: Number(task), init: Number(init), seed: Number(seed ?? 0),
    robot: draft.robot, layout: own ? draft.scene.layout : undefined,
  });
}

const changeScene = (changes) => live.state?.scene && drive({ ...live.state.scene, ...changes });

export const layout = (name) => changeScene({ layout: name });

// Another scene: it runs at once, unless a person had paused this one.
export function drive(scene) {
  send("load", scene);
  if (!paused) send("run");
}

// The next scene is to stand, too, even if it is asked for before this one has paused.
export function pause() {
  paused = send("pause");
  pausing = paused ? (live.state?.step ?? 0) : null;
}

export function instruct(text) {
  if (!text?.trim()) return;
  edited.instruction = undefined;
  send("instruction", { text });
}

export function typing() {
  edited.instruction = performance.now() + 60_000; // an unfinished sentence is not overwritten
}

// Another robot start is another scene; the other forms have messages of their own.
function tell(group) {
  cancel(group);
  if (group === "robot") changeScene({ robot: draft.robot });
  else send(group, draft[group]);
}

function cancel(group) {
  clearTimeout(timers[group]);
  timers[group] = null;
}

// Sends the newest values at the end of the interval, or once nothing has been edited for a while.
function later(group) {
  edited[group] = performance.now();
  const interval = INTERVAL_MS[group];
  if (interval && timers[group]) return;
  cancel(group);
  timers[group] = setTimeout(tell, interval ?? PATIENCE_MS, group);
}

export function set(group, field, value) {
  if (value === null || value === undefined || Number.isNaN(value)) return;
  draft[group][field] = value;
  later(group);
}

// Sets a whole group at once; returns the values of its fields in the order of the form.
export function setAll(group, values) {
  draft[group] = { ...values };
  edited[group] = performance.now();
  tell(group);
  return Object.keys(live.config.defaults[group]).map((field) => draft[group][field]);
}

// The same by somebody else than a person at the widgets, which therefore follow at once.
export function apply(group, values) {
  setAll(group, values);
  edited[group] = undefined;
}

export const reset = (group) => setAll(group, live.config.defaults[group]);

const FIELDS = ["orbit_horizontal", "orbit_vertical", "distance", "turn_horizontal", "turn_vertical", "fov"];

function views() {
  const { suite: name, task } = live.state?.scene ?? {};
  const own = live.config.views[name]?.[task] ?? [];
  return own.length ? own : Object.values(live.config.views).flatMap((tasks) => Object.values(tasks).flat());
}

const describe = ([h, v, d, th, tv, difficulty]) =>
  `${difficulty} · orbit ${h}°, ${v}° · ${d}% · turn ${th}°, ${tv}°`;

function viewChoices() {
  const { suite: name, task } = live.state?.scene ?? {};
  const own = live.config.views[name]?.[task] ?? [];
  return own.map((view, i) => [describe(view), i]).sort((a, b) => a[0].localeCompare(b[0]));
}

const asCamera = (view) => ({
  ...live.config.defaults.camera,
  ...Object.fromEntries(FIELDS.slice(0, 5).map((field, i) => [field, view[i]])),
});

export function preset(index) {
  const view = views()[index];
  return view ? setAll("camera", asCamera(view)) : FIELDS.map(() => undefined);
}

// A perturbation of this difficulty (1 … 5), or of any, drawn by chance; its difficulty comes last.
export function draw(group, difficulty) {
  const fields = Object.keys(live.config.defaults[group]);
  const all = group === "camera" ? views() : live.config.presets[group];
  const pool = all.filter((preset) => !difficulty || preset.at(-1) === difficulty);
  if (!pool.length) return fields.map(() => undefined);
  const chosen = pool[Math.floor(Math.random() * pool.length)];
  if (group === "camera") return setAll(group, asCamera(chosen));
  return setAll(group, Object.fromEntries(fields.map((field, i) => [field, chosen[i]])));
}
