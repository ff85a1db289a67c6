// What the Recordings tab and Live know of recordings: the list, its server, and shared pieces of page.

import { emit, escapeHtml } from "./bus.js";
import { toast } from "./chrome.js";
import { goOn } from "./drive.js";
import { answerOf, openTab, Unanswered } from "./jobs.js";
import { address, ready, send } from "./socket.js";

export const shelf = {
  rows: null, // newest first; null before the first answer
  trash: [],
  work: {}, // by recording: {what, done, total, problem}
  checkpoints: [],
  discarded: null, // ids that were thrown away last
  refused: "", // why this studio shows none
};
let asked = 0; // requests for the list so far
let applied = 0; // number of the one whose answer is shown
let underWay = 0;

export const url = (path, fields) => address(`recordings${path}?${new URLSearchParams(fields)}`).href;
export const read = (path, fields) => answerOf(`recordings${path}?${new URLSearchParams(fields)}`);

// A person's request: what goes wrong is told; null then.
export async function tell(path, body) {
  try {
    return await answerOf(`recordings${path}`, body);
  } catch (error) {
    toast(error.message);
    return null;
  } finally {
    await look();
  }
}

// Asks for the list; true once the shelf is at least as new as this request.
export async function look() {
  const mine = ++asked;
  underWay += 1;
  const found = await answerOf("recordings").catch((error) => {
    if (!(error instanceof Unanswered)) shelf.refused = error.message; // and would be again
    return null;
  });
  underWay -= 1;
  if (shelf.refused) emit("recordings", shelf);
  if (found && mine > applied) {
    applied = mine;
    const { recordings, ...rest } = found;
    Object.assign(shelf, rest, { rows: recordings });
    emit("recordings", shelf);
  }
  return mine <= applied;
}

// A look now and then; a slow answer is waited for.
export const poll = () => underWay || shelf.refused || look();

export const row = (id) => shelf.rows?.find((one) => one.id === id) ?? null;
export const working = (id) => Boolean(shelf.work[id] && !shelf.work[id].problem);

export async function discard(names) {
  if (names.length && (await tell("/discard", { names }))) shelf.discarded = names;
  emit("recordings", shelf);
}

export const restore = (names) => tell("/restore", { names });

// What was thrown away last, as far as the trash still has it.
export const undoable = () => (shelf.discarded ?? []).filter((id) => shelf.trash.some((one) => one.id === id));

// The same scene, from its beginning, in Live.
export function redo(id) {
  if (!ready()) return;
  send("load", row(id).scene);
  goOn();
  openTab("Live");
  toast("Once more: this scene is in Live again. The recording stays as it is.", "note");
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Has these recordings replayed where they are not yet; true once all have their pictures.
export async function developed(names) {
  if (!(await tell("/develop", { names }))) return false;
  while (!(await look()) || names.some(working)) await pause(700);
  const failed = names.find((id) => !row(id)?.demo);
  if (failed) toast(shelf.work[failed]?.problem ?? `${failed}: could not be replayed`);
  return !failed;
}

const NAMES = { policy: "the policy", human: "a person", shared: "both" };

// Who drove, over the steps; what is trimmed away is faded.
export function driverBar({ runs, steps, first, last }) {
  const spans = runs.map(([driver, count]) => `<i data-driver="${driver}" style="flex-grow:${count}"></i>`).join("");
  const spoken = runs.map(([driver, count]) => `${NAMES[driver]} ${count} steps`).join(", ");
  const cut = (side, share) => (share ? `<u style="${side}:0;width:${(100 * share).toFixed(2)}%"></u>` : "");
  const left = cut("left", first / steps);
  const right = cut("right", last === null || last === undefined ? 0 : 1 - last / steps);
  return `<span class="st-drivers" role="img" aria-label="${spoken}" title="${spoken}">${spans}${left}${right}</span>`;
}

const OUTCOMES = ["success", "timeout", "stopped", "error"];

export function outcomePill({ writing, outcome, error }) {
  const word = error ? "unreadable" : writing ? "recording" : OUTCOMES.includes(outcome) ? outcome : "cut short";
  return `<span class="st-pill" data-outcome="${word.replace(" ", "-")}">${word}</span>`;
}

export const title = ({ instructions, id }) => (instructions ? instructions.join(" → ") : id);

export const titleHtml = (recording) => escapeHtml(title(recording));
