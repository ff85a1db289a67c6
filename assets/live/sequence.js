// Instructions one after the other: an editable list, and where it stands (studio/sequence.py).

import { live, on } from "./bus.js";
import { toast, typingIn } from "./chrome.js";
import { send } from "./socket.js";

const TEMPLATE = `
  <details id="live-sequence-edit"><summary>Instructions in sequence</summary>
    <textarea id="live-sequence-items" rows="3" aria-label="Instructions, one a line" placeholder="One instruction a line"></textarea>
    <div class="st-sequence-row">
      <label>next after <input type="number" id="live-sequence-after" min="0" max="2000" step="10" value="0"> steps, 0: on success or by hand</label>
      <button id="live-sequence-start" class="st-primary">Start</button>
    </div>
  </details>
  <div class="st-sequence-row" id="live-sequence-now" hidden><ol></ol>
    <button id="live-sequence-next" title="On to the next instruction (m)">Next</button>
    <button id="live-sequence-stop" title="The instructions above end here">End</button></div>`;

let root;
let drawn = "";
const $ = (selector) => root.querySelector(selector);

export function mount(element) {
  root = element;
  root.innerHTML = TEMPLATE;
  $("#live-sequence-start").addEventListener("click", start);
  $("#live-sequence-next").addEventListener("click", () => send("next"));
  $("#live-sequence-stop").addEventListener("click", () => send("sequence", { items: [] }));
  document.addEventListener("keydown", (event) => {
    const plain = !(event.ctrlKey || event.metaKey || event.altKey || event.repeat);
    const here = root.offsetParent !== null && !document.querySelector("dialog[open]");
    if (here && plain && event.code === "KeyM" && !typingIn(event.target) && live.state?.sequence?.items.length) send("next");
  });
  on("state", ({ sequence }) => sequence && draw(sequence));
}

function start() {
  const items = $("#live-sequence-items").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!items.length) return toast("Type the instructions first, one a line.");
  send("sequence", { items, after: Number($("#live-sequence-after").value) || 0 });
  $("#live-sequence-edit").open = false;
}

function draw(sequence) {
  const text = JSON.stringify(sequence);
  if (text === drawn) return;
  drawn = text;
  $("#live-sequence-now").hidden = !sequence.items.length;
  $("#live-sequence-next").disabled = sequence.at + 1 >= sequence.items.length;
  $("ol").replaceChildren(
    ...sequence.items.map((textContent, i) => {
      const item = Object.assign(document.createElement("li"), { textContent });
      item.dataset.place = i < sequence.at ? "done" : i === sequence.at ? "now" : "next";
      if (i === sequence.at) item.title = sequence.tested ? "the simulator tells when it is done" : "no goal that can be tested: go on by hand or after steps";
      return item;
    }),
  );
}
