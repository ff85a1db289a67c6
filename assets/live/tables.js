// Tables of the compared runs: operating points, groups, scores, success, failure prediction.

import { escapeHtml, on, recall, remember } from "./bus.js";
import { toast } from "./chrome.js";
import { draw, Question } from "./jobs.js";
import { question } from "./study.js";

const TABLES = {
  operating: ["Operating points", operatingHtml],
  groups: ["By group", groupsHtml],
  scores: ["Every score", scoresHtml],
  success: ["Success", successHtml],
  failure: ["Failure prediction", failureHtml],
};
let root = null;
const answers = new Question((answer) => {
  found = answer;
  paint();
});
let runs = [];
let progress = "";
let found = null; // the server's answer
let order = null; // {column, down} of our own table's rows; null: as they come
let table = recall("studio-lab-table") ?? "operating";

export function mount(element) {
  root = element;
  root.innerHTML = `<header class="st-head"><div class="st-segments" role="group" aria-label="Table">${Object.entries(TABLES)
    .map(([name, [title]]) => `<button data-table="${name}">${title}</button>`)
    .join("")}</div><span class="st-actions"><button class="st-chip" data-copy>Copy as CSV</button></span></header><div class="st-scroll"></div>`;
  root.querySelectorAll("[data-table]").forEach((segment) =>
    segment.addEventListener("click", () => {
      table = segment.dataset.table;
      remember("studio-lab-table", table);
      order = null;
      paint();
    }),
  );
  root.querySelector("[data-copy]").addEventListener("click", copy);
  root.querySelector(".st-scroll").addEventListener("click", ({ target }) => {
    const column = target.closest("[data-sort]")?.dataset.sort;
    if (!column) return;
    order = { column: Number(column), down: order?.column === Number(column) ? !order.down : true };
    paint();
  });
  on("lab-filter", ask);
  paint();
}

export function show(names, done) {
  [runs, progress] = [names, done];
  if (root && document.getElementById("lab-page").offsetParent) ask();
}

async function ask() {
  if (runs.length) {
    const answered = answers.ask(`lab/tables?${question()}`, `${question()} ${progress}`);
    busy();
    await answered;
  } else {
    answers.drop();
    found = null;
    paint();
  }
  busy();
}

// What stands there is not yet the answer to what is asked.
const busy = () => root.querySelector(".st-scroll").setAttribute("aria-busy", String(Boolean(answers.pending)));

function paint() {
  if (!root) return;
  document.getElementById("lab-tables").hidden = !runs.length;
  root.querySelectorAll("[data-table]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.table === table)));
  const html = found ? TABLES[table][1](found) : "";
  draw(root.querySelector(".st-scroll"), html || `<div class="st-empty">${escapeHtml(found?.problem ?? "Counting …")}</div>`);
}

const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const rowsHtml = (head, rows) =>
  `<table><thead><tr>${head.map((cell) => `<th>${cell}</th>`).join("")}</tr></thead><tbody>${rows
    .map((cells) => `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`)
    .join("")}</tbody></table>`;

// Our own: a click on a column's name sorts by it.
function sortable(head, rows) {
  const title = (cell, i) => `<button data-sort="${i}" data-order="${order?.column === i ? (order.down ? "down" : "up") : ""}">${cell}</button>`;
  if (!order) return rowsHtml(head.map(title), rows);
  const key = (cells) => textOf(String(cells[order.column]));
  const sorted = [...rows].sort((a, b) => compare(key(a), key(b)) * (order.down ? -1 : 1));
  return rowsHtml(head.map(title), sorted);
}

const textOf = (html) => Object.assign(document.createElement("template"), { innerHTML: html }).content.textContent;

// By number where both begin with one; what is none ("–") is the least.
function compare(a, b) {
  const [x, y] = [a, b].map((text) => Number.parseFloat(text.replace("−", "-")));
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b);
  return (Number.isNaN(x) ? -Infinity : x) - (Number.isNaN(y) ? -Infinity : y);
}

async function copy() {
  const shown = root.querySelector(".st-scroll table");
  if (!shown) return;
  const cell = ({ textContent: text }) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [...shown.rows].map(({ cells }) => [...cells].map(cell).join(","));
  try {
    await navigator.clipboard.writeText(lines.join("\n"));
    toast("Copied.", "note");
  } catch {
    getSelection().selectAllChildren(shown);
    toast("The browser keeps its clipboard from this page. The table is selected: copy it.", "note");
  }
}

const area = (g) => (g ? `${g.auroc.toFixed(3)} <small>${g.low.toFixed(3)} – ${g.high.toFixed(3)}</small>` : "–");
const heldOut = (g) => percent(g?.held_out?.balanced_accuracy);

const RATES = ["accuracy", "balanced_accuracy", "true_positive_rate", "false_positive_rate", "f1"];
const ratesOf = (c) => [...RATES.map((name) => percent(c[name])), c.false_positives, c.false_negatives];

// What the paper reports, as printed, under our own.
const printed = ({ title, source, note, columns, rows }) =>
  `<h3>${escapeHtml(title)} <small>${escapeHtml(source)}</small></h3><p class="st-about">${escapeHtml(note)}</p>${rowsHtml(
    columns.map(escapeHtml), rows.map((row) => row.map((cell) => escapeHtml(cell))),
  )}`;

function operatingHtml({ study, published }) {
  if (!study) return "";
  const head = ["k", "threshold", "accuracy", "balanced", "TPR", "FPR", "F1", "FP", "FN"];
  const own = study.operating.map((p) => [`${p.multiplier.toFixed(1)} σ`, p.threshold.toFixed(3), ...ratesOf(p.confusion)]);
  return sortable(head, own) + printed(published.study);
}

function groupsHtml({ study }) {
  if (!study) return "";
  const name = (g) => (g.kind === "all" ? "all" : `${g.kind} ${g.label}`);
  const rows = study.groups.map((g) => [escapeHtml(name(g)), g.nominal, g.perturbed, area(g), heldOut(g)]);
  return sortable(["perturbed episodes", "nominal", "perturbed", "AUROC", "balanced, held out"], rows);
}

function scoresHtml({ scores, labels }) {
  if (!scores?.length) return "";
  const levels = [...new Set(scores.flatMap((line) => Object.keys(line.difficulties)))].sort();
  const head = ["score", "AUROC", "balanced", "AUROC per task", "balanced per task", ...levels.map((d) => `difficulty ${d}`)];
  const rows = scores.map((line) => [
    escapeHtml(labels[line.score]), area(line.pooled), heldOut(line.pooled), area(line.per_task), heldOut(line.per_task),
    ...levels.map((d) => line.difficulties[d]?.toFixed(2) ?? "–"),
  ]);
  return sortable(head, rows);
}

function successHtml({ success, published }) {
  if (!success) return "";
  const line = (side) => (r) => [
    r.task === null ? `<b>${escapeHtml(r.name)}</b>` : escapeHtml(r.name), side, `${r.successes} of ${r.episodes}`,
    percent(r.successes / r.episodes), r.interval.map((edge) => percent(edge)).join(" – "),
  ];
  const rows = [...success.nominal.map(line("nominal")), ...success.perturbed.map(line("perturbed"))];
  if (!rows.length) return "";
  return sortable(["task", "episodes", "solved", "success", "95 % interval"], rows) + printed(published.success);
}

const both = (c) => c.true_positives + c.false_negatives > 0 && c.true_negatives + c.false_positives > 0;

// The step that one half prefers, of each predictor; all of its steps below it, folded.
function failureHtml({ failure, published }) {
  if (!failure) return "";
  const rates = (s) => [
    percent(s.held_out.balanced_accuracy), percent(s.held_out.accuracy), percent(s.held_out.true_positive_rate),
    percent(s.held_out.specificity), both(s.running) ? percent(s.running.balanced_accuracy) : "–",
    percent(s.in_sample.confusion.balanced_accuracy), s.warning_s === null ? "–" : `${s.warning_s.toFixed(1)} s`,
  ];
  const head = ["plan", "window", "k", "balanced", "accuracy", "TPR", "specificity", "still running", "in sample", "warning"];
  const line = (s) => [s.step, s.chosen.window, s.chosen.multiplier, ...rates(s)];
  const known = Object.entries(failure).filter(([, told]) => !told.problem);
  const missing = Object.entries(failure).filter(([, told]) => told.problem);
  const best = known.map(([name, told]) => [escapeHtml(name), ...line(told.steps[told.best - 1])]);
  const told = known[0]?.[1];
  const counted = told
    ? [`${told.failures} failures, ${told.successes} successes. Plan, window and k are chosen on one half of the episodes and reported on the other, but for "in sample".`]
    : [];
  const about = [...counted, ...missing.map(([name, { problem }]) => `${name}: ${problem}.`)].join(" ");
  const every = known.map(
    ([name, { steps }]) => `<details><summary>${escapeHtml(name)}, every plan</summary>${rowsHtml(head, steps.map(line))}</details>`,
  );
  const own = best.length ? sortable(["predictor", ...head], best) + every.join("") : "";
  return `<p class="st-about">${escapeHtml(about)}</p>${own}${printed(published.failure)}`;
}
