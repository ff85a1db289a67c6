// The Episodes plot: a dot is an episode. The chosen one is described, and can be played in Live.

import { escapeHtml, live, number, on } from "./bus.js";
import { toast } from "./chrome.js";
import { draw, openTab } from "./jobs.js";
import { ready, send } from "./socket.js";

const OTHERS = { marker: { opacity: 0.3 } }; // beside the chosen one
let root = null;
let redraw = null;
let dots = []; // {id, text, score, trace, point}: column by column, the lowest first
let chosen = null; // id
let checkpoint = null; // that made them

// `again` draws the plot once another dot is chosen.
export function mount(element, again) {
  [root, redraw] = [element, again];
  root.addEventListener("click", ({ target }) => {
    if (target.dataset.step) step(Number(target.dataset.step));
    if (target.dataset.play) replay(JSON.parse(chosen));
  });
  paint();
}

on("hello", () => root && paint()); // with the checkpoint that Live plans with

// The figure with its chosen dot set off; `of` is the checkpoint of its episodes.
export function figure({ data, layout }, of) {
  checkpoint = of;
  dots = data.flatMap(({ customdata, text, y }, trace) =>
    customdata.map((id, point) => ({ id, text: text[point], score: y[point], trace, point })).sort((a, b) => a.score - b.score),
  );
  const dot = dots[place()];
  paint();
  if (!dot) return { data, layout };
  const selected = (trace) => (trace === dot.trace ? [dot.point] : []);
  return { data: data.map((one, trace) => ({ ...one, selectedpoints: selected(trace), unselected: OTHERS })), layout };
}

const place = () => dots.findIndex(({ id }) => id === chosen);

function step(by) {
  const from = by < 0 && place() < 0 ? 0 : place();
  if (dots.length) choose(dots[(from + by + dots.length) % dots.length].id);
}

export function choose(id) {
  chosen = id;
  redraw();
}

function paint() {
  const dot = dots[place()];
  const other = dot && live.checkpoint && live.checkpoint.sha256 !== checkpoint;
  const told = dot ? `${dot.text} · ${number(dot.score, 3)}` : "Click a dot, or walk with ‹ and ›, to see which episode it is.";
  const warning = other ? ` Live plans with another checkpoint, ${live.checkpoint.name}: it will go its own way there.` : "";
  draw(root, `<button class="st-chip" data-step="-1" aria-label="Previous episode">‹</button>
    <button class="st-chip" data-step="1" aria-label="Next episode">›</button>
    <p role="status">${escapeHtml(told)}<em>${escapeHtml(warning)}</em></p>
    ${dot ? `<button class="st-button" data-play="yes">Play in Live</button>` : ""}`);
}

// The same scene, seen and asked for in the same way: the episode happens again in Live.
function replay({ scene, instruction, camera, light, sensor }) {
  if (!ready()) return;
  const nominal = live.config.defaults;
  send("camera", camera ?? nominal.camera);
  send("light", light ?? nominal.light);
  send("sensor", sensor ?? nominal.sensor);
  send("load", scene);
  send("instruction", { text: instruction });
  send("run");
  openTab("Live");
  toast("This episode runs again in Live.", "note");
}
