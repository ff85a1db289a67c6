// The recording of Live's episode: whether there is one, and what becomes of it when it has ended.

import { live, on, recall, remember } from "./bus.js";
import { toast } from "./chrome.js";
import { goOn } from "./drive.js";
import { answerOf, button, draw, onAction, refused } from "./jobs.js";
import { send, token } from "./socket.js";

const POLL_MS = 2000;
const ASK_MS = 250; // after an episode's end, until its tape is closed
let root = null;
let tape = null; // {id, episode, steps, human, ended, every, problem}
let kept = null; // id of the recording that was kept last
let last = null;

export function mount(element) {
  root = element;
  root.innerHTML = `<label class="st-check"><input type="checkbox" id="live-record"> Record every episode</label>
    <p role="status"></p><div class="st-actions"></div>`;
  root.querySelector("input").addEventListener("change", ({ target }) => {
    remember("studio-record", target.checked);
    post("", { every: target.checked });
  });
  onAction(root, { keep, discard, redo });
  on("state", ({ status, episode, driver }) => {
    const news = `${status} ${episode} ${driver}`;
    if (news === last) return;
    last = news;
    setTimeout(ask, ASK_MS);
  });
  on("outcome", offer);
  on("renewed", () => recall("studio-record") === "true" && post("", { every: true }));
  setInterval(() => !document.hidden && root.offsetParent && live.state?.status === "running" && ask(), POLL_MS);
  ask();
}

async function ask() {
  tape = await answerOf(`recordings/live?token=${token()}`).catch(() => null);
  paint();
}

async function post(path, fields = {}) {
  try {
    return await answerOf(`recordings/live${path}`, { token: token(), ...fields });
  } catch (error) {
    toast(error.message);
    return null;
  } finally {
    ask();
  }
}

// What is decided is decided of the episode that is shown; the server may be further.
const decide = (what) => post(`/${what}`, { episode: tape?.episode ?? 0 });

async function keep() {
  const found = await decide("keep");
  if (!found) return;
  kept = found.id;
  toast("Kept: it is in Recordings.", "note");
  paint();
}

async function discard() {
  const found = await decide("discard");
  if (found) toast("Discarded; the trash of Recordings has it.", "note");
  return Boolean(found);
}

async function redo() {
  if (tape?.id && tape.id !== kept && !(await discard())) return;
  send("reset");
  goOn();
}

const buttons = () => [
  kept && kept === tape?.id ? "" : button("keep", "", "Keep"),
  tape?.id ? button("discard", "", "Discard") : "",
  tape?.id && tape.ended ? button("redo", "", "Redo") : "",
];

function paint() {
  const every = { checked: Boolean(tape?.every), disabled: Boolean(refused()), title: refused() };
  Object.assign(root.querySelector("input"), every);
  root.dataset.id = tape?.id ?? "";
  document.body.classList.toggle("st-on-tape", Boolean(tape?.id) && !tape.ended && !tape.problem);
  const by = tape?.human ? `, ${tape.human} of them by hand` : "";
  const text = tape?.problem
    ? tape.problem
    : tape?.id
      ? `<i class="${tape.ended ? "" : "on"}"></i>${tape.ended ? "Recorded" : "Recording"}: ${tape.steps} steps${by}.`
      : tape?.discarded
        ? "Discarded. The next episode is recorded again."
        : "An episode that you drive is recorded by itself.";
  root.classList.toggle("st-bad", Boolean(tape?.problem));
  draw(root.querySelector("p"), text);
  draw(root.querySelector(".st-actions"), tape?.steps ? buttons().join("") : "");
}

// The stage says that an episode has ended: what was recorded of it is decided there, too.
async function offer(banner) {
  await new Promise((resolve) => setTimeout(resolve, ASK_MS));
  await ask();
  if (!tape?.id || kept === tape.id || banner.hidden || banner.querySelector("[data-action]")) return;
  const choices = document.createElement("span");
  choices.className = "st-choices";
  choices.innerHTML = `${button("keep", "", "Keep")}${button("discard", "", "Discard")}${button("redo", "", "Redo")}`;
  choices.addEventListener("click", () => choices.remove());
  onAction(choices, { keep, discard, redo });
  banner.append(choices);
}
