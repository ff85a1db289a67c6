// Where the camera stands against nominal: a view from above (x to the right, y up) and from the side.

import { on } from "./bus.js";

const TARGET = [0, 0, 0.8]; // what LIBERO-Plus orbits around, metres
const BASE = [-0.66, 0, 0.8];
const SIZE = 150;

let root;

export function mount(element) {
  root = element;
  root.innerHTML = `<figure><svg id="live-pose-top" viewBox="0 0 ${SIZE} ${SIZE}" role="img"></svg><figcaption>from above</figcaption></figure>
    <figure><svg id="live-pose-side" viewBox="0 0 ${SIZE} ${SIZE}" role="img"></svg><figcaption>from the side</figcaption></figure>`;
  on("state", ({ pose }) => pose && draw(pose));
}

function draw(pose) {
  const reach = Math.max(1.15, ...[pose.position, pose.nominal_position].map((p) =>
    Math.max(Math.abs(p[0]), Math.abs(p[1]), Math.abs(p[2] - TARGET[2])) * 1.18));
  panel("#live-pose-top", pose, [0, 1], reach);
  panel("#live-pose-side", pose, [0, 2], reach);
}

function panel(selector, pose, [a, b], reach) {
  const scale = SIZE / (2 * reach);
  const at = (p) => [SIZE / 2 + p[a] * scale, SIZE / 2 - (p[b] - TARGET[b]) * scale];
  const svg = root.querySelector(selector);
  const [tx, ty] = at(TARGET);
  const [bx, by] = at(BASE);
  const side = b === 2;
  const floor = side
    ? `<line class="st-table" x1="${tx - 0.5 * scale}" y1="${ty}" x2="${tx + 0.5 * scale}" y2="${ty}"/>`
    : `<rect class="st-table" x="${tx - 0.4 * scale}" y="${ty - 0.5 * scale}" width="${0.8 * scale}" height="${scale}" rx="3"/>`;
  const robot = side
    ? `<path class="st-robot" d="M${bx} ${by}v${-0.5 * scale}l${0.4 * scale} ${-0.1 * scale}v${0.25 * scale}"/>`
    : `<path class="st-robot" d="M${bx} ${by}h${0.4 * scale}"/><circle class="st-robot" cx="${bx}" cy="${by}" r="4"/>`;
  svg.innerHTML = `${floor}${robot}<circle class="st-target" cx="${tx}" cy="${ty}" r="2.5"/>
    ${camera(at, pose.nominal_position, pose.nominal_look, "nominal")}
    ${camera(at, pose.position, pose.look, moved(pose) ? "moved" : "here")}`;
  const [x, y, z] = pose.position.map((c) => c.toFixed(2));
  svg.setAttribute("aria-label", `camera at x ${x}, y ${y}, z ${z} metres`);
}

function moved(pose) {
  const distance = (p, q) => Math.hypot(...p.map((c, i) => c - q[i]));
  return distance(pose.position, pose.nominal_position) > 1e-3 || distance(pose.look, pose.nominal_look) > 1e-3;
}

// A wedge that opens along the viewing direction, projected on the panel.
function camera(at, position, look, kind) {
  const [x, y] = at(position);
  const [fx, fy] = at(position.map((c, i) => c + 0.34 * look[i]));
  const [dx, dy] = [fx - x, fy - y];
  const [nx, ny] = [-dy * 0.42, dx * 0.42];
  return `<g class="st-camera ${kind}"><path d="M${x} ${y}L${fx + nx} ${fy + ny}L${fx - nx} ${fy - ny}Z"/>
    <circle cx="${x}" cy="${y}" r="4"/></g>`;
}
