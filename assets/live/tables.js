// Tables of the compared runs: operating points, groups, scores, success, failure prediction.

import { escapeHtml, on, recall, remember } from "./bus.js";
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
let table = recall("studio-lab-table") ?? "operating";

export function mount(element) {
  root = element;
  root.innerHTML = `<header class="st-head"><div class="st-segments" role="group" aria-label="Table">${Object.entries(TABLES)
    .map(([name, [title]]) => `<button data-table="${name}">${title}</button>`)
    .join("")}</div></header><div class="st-scroll"></div>`;
  root.querySelectorAll("[data-table]").forEach((segment) =>
    segment.addEventListener("click", () => {
      table = segment.dataset.table;
      remember("studio-lab-table", table);
      paint();
    }),
  );
  on("lab-filter", ask);
  paint();
}

export function show(names, done) {
  [runs, progress] = [names, done];
  if (root && document.getElementById("lab-page").offsetParent) ask();
}

function ask() {
  if (runs.length) return answers.ask(`lab/tables?${question()}`, `${question()} ${progress}`);
  answers.drop();
  paint();
}

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
const area = (g) => (g ? `${g.auroc.toFixed(3)} <small>${g.low.toFixed(2)} – ${g.high.toFixed(2)}</small>` : "–");
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
  return rowsHtml(head, own) + printed(published.study);
}

function groupsHtml({ study }) {
  if (!study) return "";
  const name = (g) => (g.kind === "all" ? "all" : `${g.kind} ${g.label}`);
  const rows = study.groups.map((g) => [escapeHtml(name(g)), g.nominal, g.perturbed, area(g), heldOut(g)]);
  return rowsHtml(["perturbed episodes", "nominal", "perturbed", "AUROC", "balanced, held out"], rows);
}

function scoresHtml({ scores, labels }) {
  if (!scores?.length) return "";
  const levels = [...new Set(scores.flatMap((line) => Object.keys(line.difficulties)))].sort();
  const head = ["score", "AUROC", "balanced", "AUROC per task", "balanced per task", ...levels.map((d) => `difficulty ${d}`)];
  const rows = scores.map((line) => [
    escapeHtml(labels[line.score]), area(line.pooled), heldOut(line.pooled), area(line.per_task), heldOut(line.per_task),
    ...levels.map((d) => line.difficulties[d]?.toFixed(2) ?? "–"),
  ]);
  return rowsHtml(head, rows);
}

function successHtml({ success, published }) {
  if (!success) return "";
  const line = (side) => (r) => [
    r.task === null ? `<b>${escapeHtml(r.name)}</b>` : escapeHtml(r.name), side, `${r.successes} of ${r.episodes}`,
    percent(r.successes / r.episodes), r.interval.map((edge) => percent(edge)).join(" – "),
  ];
  const rows = [...success.nominal.map(line("nominal")), ...success.perturbed.map(line("perturbed"))];
  if (!rows.length) return "";
  return rowsHtml(["task", "episodes", "solved", "success", "95 % interval"], rows) + printed(published.success);
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
  const own = best.length ? rowsHtml(["predictor", ...head], best) + every.join("") : "";
  return `<p class="st-about">${escapeHtml(about)}</p>${own}${printed(published.failure)}`;
}
