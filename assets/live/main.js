// Entry of the Live page. Gradio's HTML components call `mount`; its listeners call `window.studio`.

import { live, mountPanel } from "./bus.js";
import * as chrome from "./chrome.js";
import * as drive from "./drive.js";
import * as forms from "./forms.js";
import * as guard from "./guard.js";
import * as inside from "./inside.js";
import * as pose from "./pose.js";
import * as sequence from "./sequence.js";
import { connect, disconnect } from "./socket.js";
import * as stage from "./stage.js";
import * as tour from "./tour.js";
import * as trace from "./trace.js";

const PANELS = {
  header: chrome.mount,
  stage: stage.mount,
  drive: drive.mount,
  guard: guard.mount,
  sequence: sequence.mount,
  trace: trace.mount,
  pose: pose.mount,
  landscape: (element) => inside.mount("landscape", element),
  descent: (element) => inside.mount("descent", element),
};
const waiting = new Set(Object.keys(PANELS));
const queue = [];

window.studio = {
  ...forms,
  query: inside.setQuery,
  chains: inside.setChains,
  follow: inside.setFollow,
  download: chrome.download,
  disconnect,
  inputs: drive.counts,
  live,
};

// A panel may come before the configuration: it waits for it.
export function mount(name, root) {
  queue.push([name, root]);
  drain();
}

export function configure(config, refill) {
  live.config = config;
  forms.mount(refill);
  drain();
}

function drain() {
  if (!live.config) return;
  for (const [name, root] of queue.splice(0)) {
    mountPanel(PANELS, name, root);
    waiting.delete(name);
  }
  if (waiting.size) return;
  waiting.add("connected"); // once
  tour.mount();
  connect();
}
