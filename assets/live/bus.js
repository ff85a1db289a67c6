// What the panels share: the latest state, the episode's plans and marks, and a tiny event bus.

const listeners = new Map();

export function on(kind, handler) {
  if (!listeners.has(kind)) listeners.set(kind, []);
  listeners.get(kind).push(handler);
}

export function emit(kind, value) {
  for (const handler of listeners.get(kind) ?? []) handler(value);
}

// Denied to a page that another site frames, where cookies are: then a value lasts as long as the page.
const kept = new Map();

export function recall(name, area = "sessionStorage") {
  try {
    return window[area].getItem(name);
  } catch {
    return kept.get(name) ?? null;
  }
}

export function remember(name, value, area = "sessionStorage") {
  try {
    window[area].setItem(name, value);
  } catch {
    kept.set(name, String(value));
  }
}

export const live = {
  config: null, // from Python: suites, views, defaults, widget order, addresses
  state: null, // STATE of the protocol, merged over its updates
  checkpoint: null,
  calibration: null,
  versions: {},
  plans: [],
  marks: [],
  comparisons: [], // of what a person did with what the policy would have done
  selected: null, // index of the plan that the panels below explain
  byHand: false, // whether a person chose it
  k: Number(recall("studio-k") ?? 1),
  score: recall("studio-score"), // null: the one that the checkpoint was calibrated for
};

// A person's edit on its way to the server is not undone by older news: for a moment after `touch`
// nothing has `settled`, and then the newest state is drawn once more.
const SETTLE_MS = 1000;

export function edits(draw) {
  let last = -Infinity;
  return {
    touch() {
      last = performance.now();
      setTimeout(() => live.state && draw(live.state), 1.1 * SETTLE_MS);
    },
    settled: () => performance.now() > last + SETTLE_MS,
  };
}

// The score that verdicts go by: the paper's, unless a person chose another that is calibrated.
const hasEnergy = () => (live.checkpoint?.head ?? "energy") === "energy";
const usual = () => live.calibration?.score ?? (hasEnergy() ? "final_energy" : "context_distance");
export const scoreName = () => (live.calibration?.levels?.[live.score] ? live.score : usual());
export const scoreLabel = () => live.config?.scores[scoreName()] ?? scoreName();
export const score = (plan) => plan.scores[scoreName()];

export function setScore(name) {
  live.score = name;
  remember("studio-score", name);
  emit("k", live.k);
}

// {mu, sigma} of that score over calibration episodes, or null.
export function level() {
  const c = live.calibration;
  if (!c) return null;
  const [mu, sigma] = c.levels?.[scoreName()] ?? [c.mu, c.sigma];
  return { mu, sigma };
}

export function threshold() {
  const known = level();
  return known && known.mu + live.k * known.sigma;
}

export function verdict(plan) {
  const limit = threshold();
  const value = plan ? score(plan) : null;
  if (limit === null || value === null || value === undefined) return "unknown";
  return value > limit ? "out" : "in";
}

export function setK(k) {
  live.k = k;
  remember("studio-k", k);
  emit("k", k);
}

export function select(index, byHand = true) {
  Object.assign(live, { selected: index, byHand });
  emit("select", index);
}

export function planAt(index) {
  return live.plans.find((plan) => plan.index === index) ?? null;
}

export function latestPlan() {
  return live.plans.at(-1) ?? null;
}

export const number = (value, digits = 2) =>
  value === null || value === undefined || !Number.isFinite(value)
    ? "–"
    : value.toFixed(digits).replace("-", "−");

export const escapeHtml = (text) => {
  const node = document.createElement("span");
  node.textContent = text ?? "";
  return node.innerHTML.replaceAll('"', "&quot;");
};

// How to scroll for who wants less motion.
export const scrolling = () => (matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");

// Draws the panel called `name` into the element that Gradio made for it.
export function mountPanel(panels, name, root) {
  const element = document.createElement("div");
  element.className = `st-${name}`;
  root.replaceChildren(element);
  panels[name](element);
}
