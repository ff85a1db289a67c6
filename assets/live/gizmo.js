// Which way is forward: the axes of the chosen frame, drawn into the corner of the agentview picture.

import { live } from "./bus.js";

const SIZE = 92;
const ARM = 30; // pixels of an axis that lies in the picture's plane
const NAMES = ["forward", "left", "up"];
const KEY = ["KeyW", "KeyA", "KeyE"];

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const cross = ([a, b, c], [d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d];
const unit = (v) => v.map((value) => value / (Math.hypot(...v) || 1));

// As studio/teleop.py has it: forward, left and up in the world.
function axesOf(frame, { pose, hand }) {
  if (frame === "base") return [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  if (frame === "camera") {
    const forward = unit(pose.look.map((value, i) => (i < 2 ? value + pose.up[i] : 0)));
    return [forward, cross([0, 0, 1], forward), [0, 0, 1]];
  }
  const turned = (v, sign) => rotate(hand.slice(3), v).map((value) => sign * value);
  return [turned([1, 0, 0], 1), turned([0, 1, 0], -1), turned([0, 0, 1], -1)];
}

// Rodrigues: `v` turned by the rotation vector `by`.
function rotate(by, v) {
  const angle = Math.hypot(...by);
  if (!angle) return v;
  const axis = by.map((value) => value / angle);
  const along = dot(axis, v) * (1 - Math.cos(angle));
  const across = cross(axis, v);
  return v.map((value, i) => value * Math.cos(angle) + across[i] * Math.sin(angle) + axis[i] * along);
}

let svg;

export function mount() {
  svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.id = "live-gizmo";
  svg.setAttribute("viewBox", `${-SIZE / 2} ${-SIZE / 2} ${SIZE} ${SIZE}`);
  svg.setAttribute("role", "img");
}

// `frame` null: nobody drives by hand.
export function draw(frame) {
  const place = document.querySelector('#live-stage [data-camera="agentview"]');
  if (!place) return;
  if (svg.parentElement !== place) place.append(svg);
  const state = live.state;
  svg.style.display = frame && state?.pose ? "" : "none";
  if (!frame || !state?.pose) return;
  const right = cross(state.pose.look, state.pose.up);
  const arms = axesOf(frame, state).map((axis, i) => {
    const [x, y, away] = [dot(axis, right) * ARM, -dot(axis, state.pose.up) * ARM, dot(axis, state.pose.look)];
    const label = document.querySelector(`[data-key="${KEY[i]}"]`)?.textContent ?? "";
    return { away, html: arm(x, y, NAMES[i], label) };
  });
  arms.sort((a, b) => b.away - a.away); // the nearest is drawn last
  svg.innerHTML = `<circle r="${SIZE / 2 - 1}"/>${arms.map(({ html }) => html).join("")}`;
  svg.setAttribute("aria-label", `forward, left and up of the ${frame} frame in this picture`);
  svg.dataset.frame = frame;
}

function arm(x, y, name, label) {
  const far = 1 + 9 / Math.max(12, Math.hypot(x, y));
  const aside = { forward: -8, left: 0, up: 8 }[name]; // two axes may lie one behind the other
  return `<g class="${name}" data-x="${x.toFixed(1)}" data-y="${y.toFixed(1)}"><line x2="${x.toFixed(1)}" y2="${y.toFixed(1)}"/>
    <circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3"/><text x="${(x * far + aside).toFixed(1)}" y="${(y * far + 4).toFixed(1)}">${label}</text></g>`;
}
