// What the tabs with runs share: the list of jobs, kept fresh while one of them is looked at,
// questions to the server, a form with its command, and pieces of page.

import { emit, escapeHtml, live, number, on, recall, remember, scrolling } from "./bus.js";
import { toast } from "./chrome.js";
import { explain } from "./hints.js";
import { patch } from "./patch.js";
import { address } from "./socket.js";

const POLL_MS = 1500;
const SETTLE_MS = 250; // after typing, before the command is asked for

export const jobs = { all: null }; // newest first; null before the first answer
const looking = []; // elements of these tabs, each with a line above it for what is wrong
export const NARROW = "(max-width: 860px)"; // where what belongs to a list or a form is below it
const PATIENCE = 2; // looks in a row that may fail untold
const COPY = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M5.5 5.5V2.5h8v8h-3M2.5 5.5h8v8h-8z"/></svg>`;
let timer = null;
let turns = 0; // of asking
let failed = 0; // looks in a row

// -- asking the server ----------------------------------------------------------------------------

export const ask = (path, body) => answerOf(`jobs${path}`, body);

// The server was not reached, or failed without a word: the same may be asked again.
export class Unanswered extends Error {}

export const posting = (body) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

// The JSON that the server answers; what it refuses is thrown with its own words.
export async function answerOf(path, body) {
  const reply = await fetch(address(path), body ? posting(body) : {}).catch(() => null);
  const answer = await reply?.json().catch(() => null);
  if (!reply) throw new Unanswered("The studio does not answer; is it running?");
  if (answer?.error && !reply.ok) throw new Error(answer.error);
  if (!answer || reply.status >= 500) throw new Unanswered(`The studio answered ${reply.status}.`);
  if (!reply.ok) throw new Error(`The studio answered ${reply.status}.`);
  return answer;
}

// A question is asked again once it has changed or was left unanswered; the newest answer counts.
export class Question {
  constructor(tell) {
    Object.assign(this, { tell, pending: null, answered: null });
  }

  // `key`: what the answer depends on. Tells {problem} where the server refuses.
  async ask(path, key = path) {
    if (key === this.pending || (key === this.answered && !this.pending)) return;
    this.pending = key;
    const answer = await answerOf(path).catch((error) => error);
    if (key !== this.pending) return;
    this.pending = null;
    this.answered = answer instanceof Unanswered ? null : key;
    this.tell(answer instanceof Error ? { problem: answer.message } : answer, path);
  }

  drop() {
    this.pending = this.answered = null;
  }
}

// Something a person asked for: what goes wrong is told, what goes well is seen at once.
export async function act(path, body) {
  try {
    return await ask(path, body);
  } catch (error) {
    toast(error.message);
    return null;
  } finally {
    refresh();
  }
}

export function follow(element) {
  const problem = Object.assign(document.createElement("p"), { className: "st-unlisted", hidden: true });
  problem.setAttribute("role", "alert");
  element.before(problem);
  looking.push({ element, problem });
  new IntersectionObserver(() => refresh()).observe(element);
  refresh();
}

async function refresh() {
  clearTimeout(timer);
  const turn = ++turns;
  try {
    if (document.hidden || !looking.some(({ element }) => element.offsetParent)) return;
    const answer = await ask("").catch((error) => error);
    if (turn !== turns) return; // asked again meanwhile
    tell(answer);
    emit("jobs", jobs.all);
  } finally {
    if (turn === turns) timer = setTimeout(refresh, POLL_MS);
  }
}

// The banner of the live connection tells when the server is away; this line, that the list fails.
function tell(answer) {
  const missing = answer instanceof Error;
  if (!missing) jobs.all = answer.jobs;
  failed = missing ? failed + 1 : 0;
  for (const { problem } of looking) {
    problem.hidden = failed < PATIENCE;
    if (missing) draw(problem, `${escapeHtml(answer.message)} The runs can't be listed; asking again …`);
  }
}

// -- a form ---------------------------------------------------------------------------------------

// `kind` names the jobs that it launches and its button, "<kind>-launch"; `lists` are the fields of
// several words, which a draft has with commas.
// What is filled in outlives a reload of the page.
export class Form {
  constructor(kind, { lists = [] } = {}) {
    Object.assign(this, { kind, lists, defaults: {}, draft: {}, fields: [], due: {}, hurry: null });
    this.ready = new Promise((resolve) => (this.configured = resolve));
    on("jobs", () => this.unanswered && this.preview());
  }

  // What a person has typed by now counts more than the defaults and what was left before.
  configure(config, refill) {
    const early = config.widgets.filter((name) => name in (window.typed ?? {}));
    const typed = Object.fromEntries(early.map((name) => [name.split(".")[1], window.typed[name]]));
    this.defaults = config.defaults;
    this.draft = { ...config.defaults, ...typed };
    this.fields = config.widgets.map((name) => name.split(".")[1]);
    this.refill = refill;
    const empty = Object.entries(config.defaults).filter(([, value]) => value === null);
    const left = JSON.parse(recall(`studio-form-${this.kind}`) ?? "{}");
    const begin = { ...Object.fromEntries(empty), ...left }; // Gradio's number boxes begin with 0 instead of nothing
    this.fill(Object.fromEntries(Object.entries(begin).filter(([name]) => !(name in typed))));
    this.configured();
  }

  mount(element) {
    this.element = element;
    explain(element.closest(".st-controls"));
    element.innerHTML = `<code></code><button title="Copy the command" aria-label="Copy the command">${COPY}</button>`;
    element.querySelector("button").addEventListener("click", () => copy(element.querySelector("code")));
    this.preview();
  }

  set(name, value) {
    this.draft[name] = value;
    delete this.due[name]; // it is typed over
    this.keep();
    clearTimeout(this.hurry);
    this.hurry = setTimeout(() => this.preview(), SETTLE_MS);
  }

  // Remembers what differs from the defaults.
  keep() {
    if (!this.fields.length) return; // what was left before is not read yet
    const changed = Object.entries(this.draft).filter(([name, value]) => value !== this.defaults[name]);
    remember(`studio-form-${this.kind}`, JSON.stringify(Object.fromEntries(changed)));
  }

  // Fills widgets: values by field, or {choices, value} for a list.
  fill(values) {
    for (const [name, value] of Object.entries(values)) {
      const listed = value !== null && typeof value === "object";
      const shown = this.lists.includes(name) ? (value ?? "").split(",").filter(Boolean) : value;
      this.due[name] = listed ? { ...value, __type__: "update" } : shown;
      if (!listed) this.draft[name] = value;
      else if ("value" in value) this.draft[name] = value.value;
    }
    this.keep();
    this.refill?.();
    this.preview();
  }

  // Back to the defaults, but for the fields `kept`.
  async reset(...kept) {
    await this.ready;
    this.fill(Object.fromEntries(Object.entries(this.defaults).filter(([name]) => !kept.includes(name))));
  }

  // As this job was launched; the next one gets a name of its own.
  reuse({ name, values }) {
    const known = Object.entries(values).filter(([field]) => field in this.defaults);
    if (!known.length) return toast(`Nothing is known of the settings of ${name}.`);
    this.fill({ ...this.defaults, ...Object.fromEntries(known), name: "" });
    toast(`The form has the settings of ${name}.`, "note");
  }

  widgets() {
    const values = this.fields.map((name) => (name in this.due ? this.due[name] : { __type__: "update" })); // none
    this.due = {};
    return values;
  }

  async preview() {
    if (!this.element || !this.fields.length) return;
    const mine = (this.asked = Symbol());
    const answer = await ask("/preview", this.body()).catch((error) => error);
    if (mine !== this.asked) return;
    this.unanswered = answer instanceof Unanswered;
    if (answer instanceof Error) answer.error = answer.message;
    this.element.dataset.state = answer.error ? "bad" : "good";
    const words = (answer.error ?? answer.command).split(" ").map((word) => `<span>${escapeHtml(word)}</span>`);
    draw(this.element.querySelector("code"), words.join(" "));
    const launch = document.getElementById(`${this.kind}-launch`);
    if (launch && !this.unanswered) launch.disabled = Boolean(answer.error || refused());
  }

  async launch() {
    if (this.launching) return undefined; // a double click is one run
    this.launching = true;
    try {
      await this.ready;
      const job = await act("/launch", this.body());
      if (job) this.fill({ name: "" });
      if (job && matchMedia(NARROW).matches) this.element.closest(".st-page").querySelector(".st-main").scrollIntoView({ behavior: scrolling() });
      return job;
    } finally {
      this.launching = false;
    }
  }

  body() {
    return { kind: this.kind, values: this.draft };
  }
}

// Browsers lend the clipboard to https and this machine alone: elsewhere a person copies.
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    toast("Copied.", "note");
  } catch {
    getSelection().selectAllChildren(code);
    toast("The browser keeps its clipboard from this page. The command is selected: copy it.", "note");
  }
}

// -- pieces of page -------------------------------------------------------------------------------

// Only what has changed is drawn: selection, focus and a click under way survive the next look.
export function draw(element, html) {
  if (element.drawn === html) return;
  element.drawn = html;
  patch(element, html);
}

// Draws once more whenever the element has another width, as it has when its tab is opened.
export function onWidth(element, redraw) {
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    if (width) redraw();
  }).observe(element);
}

const STATES = { outside: "command line", shipped: "comes with the studio" };

export function pill({ state, stopping }) {
  const word = stopping ? "stopping" : (STATES[state] ?? state);
  return `<span class="st-pill" data-state="${stopping ? "stopping" : state}">${word}</span>`;
}

export function bar({ name, summary, state }) {
  const done = state === "finished" ? 1 : (summary.progress ?? 0);
  return `<div class="st-bar" data-state="${state}" role="progressbar" aria-label="Progress of ${escapeHtml(name)}" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow="${Math.round(100 * done)}"><b style="width:${(100 * Math.min(1, done)).toFixed(1)}%"></b></div>`;
}

// What a running job has printed last.
export const says = ({ says: line }) => (line ? `<p class="st-says">${escapeHtml(line)}</p>` : "");

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (h) return `${h} h ${String(m).padStart(2, "0")} min`;
  return m ? `${m} min ${String(s).padStart(2, "0")} s` : `${s} s`;
}

const launchedHere = ({ state }) => !(state in STATES);

// Seconds that a job has run, as its machine counts them; null where nobody saw its end.
export const took = ({ elapsed_s: seconds }) => seconds;

// A moment in short; in full and with its zone for who points at it.
export function when(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const date = new Date(1000 * seconds);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : date.toLocaleDateString([], { day: "numeric", month: "short" }) + " ";
  const full = date.toLocaleString([], { dateStyle: "full", timeStyle: "long" });
  return `<time datetime="${date.toISOString()}" title="${escapeHtml(full)}">${
    day + date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}</time>`;
}

// Title of a job: its name, its state, what it is about, and buttons; stop and resume first.
export function headHtml(job, about, more = []) {
  const actions = [
    job.state === "running" && button("stop", job.name, job.stopping ? "Stopping …" : "Stop"),
    job.resumable && button("resume", job.name, "Resume"),
    ...more,
  ];
  const words = about.filter(Boolean).map(escapeHtml);
  if (launchedHere(job)) words.push(`started ${when(job.started)}`);
  return `<header class="st-head"><h3 title="${escapeHtml(job.name)}">${escapeHtml(job.name)}</h3>${pill(job)}
    <span class="st-about">${words.join(" · ")}</span>
    <span class="st-actions">${actions.filter(Boolean).join("")}</span></header>`;
}

// What a studio that is open to everyone refuses its visitors; a page says so before they ask.
const OWNERS = new Set(["stop", "resume", "use", "keep", "discard", "redo", "calibrate", "replace"]);
export const refused = () => live.config?.owners ?? "";

export function button(action, name, text, kind = "", idle = false) {
  const why = OWNERS.has(action) ? refused() : "";
  return `<button class="st-button ${kind}" data-action="${action}" data-name="${escapeHtml(name)}"
    ${why || idle ? "disabled" : ""} ${why ? `title="${escapeHtml(why)}"` : ""}>${text}</button>`;
}

export const tile = (label, value, unit = "") =>
  `<div><dt>${label}</dt><dd>${value}${value === "–" || !unit ? "" : ` <small>${unit}</small>`}</dd></div>`;

export const figure = (value, digits) => number(value ?? null, digits);

// Output and command of a job, folded; the output opens by itself when the job failed.
export class Details {
  constructor(element) {
    element.innerHTML = `<p class="st-problem" role="alert" hidden></p>
      <details class="st-log"><summary>Output</summary><pre tabindex="0"></pre></details>
      <details class="st-log"><summary>Command</summary><pre></pre></details>`;
    [this.output, this.command] = element.querySelectorAll("details");
    this.problem = element.querySelector(".st-problem");
    this.output.addEventListener("toggle", () => this.read());
    this.shown = null;
  }

  show(job) {
    if (job.name !== this.shown?.name || job.started !== this.shown.started) this.output.open = false;
    const failed = Boolean(job.problem) && this.shown?.problem !== job.problem;
    this.shown = job;
    this.problem.hidden = !job.problem;
    draw(this.problem, escapeHtml(job.problem));
    draw(this.command.querySelector("pre"), escapeHtml(job.command || (job.state === "shipped" ? "" : "This run was started on the command line.")));
    if (failed) this.output.open = true;
    this.read();
  }

  async read() {
    if (!this.output.open || !this.shown) return;
    const found = await ask(`/log?name=${encodeURIComponent(this.shown.name)}`).catch(() => null);
    if (!found) return;
    const pre = this.output.querySelector("pre");
    const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 8 || !pre.textContent;
    const text = found.lines.join("\n") || "Nothing was printed.";
    if (pre.textContent === text) return;
    pre.textContent = text;
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }
}

// Buttons anywhere below `element`: stop and resume here, the rest by the caller.
export function onAction(element, handlers = {}) {
  element.addEventListener("click", (event) => {
    const hit = event.target.closest("[data-action]");
    if (!hit) return;
    const { action, name } = hit.dataset;
    if (handlers[action]) handlers[action](name, hit);
    else act(`/${action}`, { name });
  });
}

// Rows that can be chosen are chosen by key, too.
export function onPress(element, rows, choose) {
  element.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(event.key) || !event.target.matches(rows)) return;
    event.preventDefault(); // space would scroll
    choose(event.target.dataset);
  });
}

// On a narrow page Gradio keeps some tabs in its menu "More tabs", where they have no role.
export function openTab(name) {
  const tabs = document.querySelectorAll("#studio-tabs :is([role=tab], .overflow-dropdown button)");
  [...tabs].find((tab) => tab.textContent.trim() === name)?.click();
}
