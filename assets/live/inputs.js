// What a person holds: keys by their place on the keyboard, buttons on the page, a gamepad. One
// listener hears of every change; nothing here knows who drives.

// axis and sign, by the key's place (event.code): the same hands on every layout
export const KEYS = {
  KeyW: ["x", 1], KeyS: ["x", -1], KeyA: ["y", 1], KeyD: ["y", -1], KeyE: ["z", 1], KeyQ: ["z", -1],
  KeyL: ["roll", 1], KeyJ: ["roll", -1], KeyI: ["pitch", 1], KeyK: ["pitch", -1], KeyU: ["yaw", 1], KeyO: ["yaw", -1],
  KeyF: ["gripper", 1], KeyV: ["gripper", -1], KeyG: ["go", 1],
};
const AXES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper", "go"];
const DEAD = 0.15; // of a stick at rest
const clip = (value) => Math.min(1, Math.max(-1, value));

const held = new Map(); // where it comes from -> the code that it stands for
let pad = {}; // axes of the gamepad
let padIndex = null;
let padButtons = {};
let onChange = () => {};
let onPad = () => {};
let last = "";

// changed(axes) at every change; pressed(button) for buttons of a gamepad, null when it is unplugged.
export function mount(changed, pressed) {
  onChange = changed;
  onPad = pressed;
  window.addEventListener("gamepadconnected", ({ gamepad }) => {
    padIndex ??= gamepad.index;
    requestAnimationFrame(poll);
  });
  window.addEventListener("gamepaddisconnected", ({ gamepad }) => {
    if (gamepad.index !== padIndex) return;
    padIndex = null;
    releaseAll();
    onPad(null);
  });
}

export function press(source, code) {
  held.set(source, code);
  tell();
}

export function release(source) {
  if (held.delete(source)) tell();
}

export function releaseAll() {
  held.clear();
  pad = {};
  tell();
}

export const isHeld = (code) => [...held.values()].includes(code);

export function axes() {
  const sum = Object.fromEntries(AXES.map((name) => [name, pad[name] ?? 0]));
  for (const code of new Set(held.values())) {
    const [name, sign] = KEYS[code];
    sum[name] += sign;
  }
  return Object.fromEntries(AXES.map((name) => [name, clip(sum[name])]));
}

function tell() {
  const now = axes();
  const text = JSON.stringify(now);
  if (text === last) return;
  last = text;
  onChange(now);
}

const PAD_BUTTONS = { 2: "frame", 3: "hand over", 4: "slower", 5: "faster" }; // X, Y, LB, RB
const bent = (value) => (Math.abs(value) < DEAD ? 0 : Math.round(50 * value) / 50);

// The standard mapping: left stick moves, right stick lifts and turns, triggers grip, cross tilts.
function poll() {
  const found = padIndex === null ? null : navigator.getGamepads()[padIndex];
  if (!found) return;
  requestAnimationFrame(poll);
  const there = Number(document.hasFocus()); // a window without the focus holds nothing
  const [across, along, turn, lift] = found.axes.map((value) => there * value);
  const down = (index) => there * (found.buttons[index]?.value ?? 0);
  pad = {
    x: -bent(along ?? 0), y: -bent(across ?? 0), z: -bent(lift ?? 0), yaw: -bent(turn ?? 0),
    pitch: down(12) - down(13), roll: down(15) - down(14),
    gripper: bent(down(7)) - bent(down(6)), go: down(0),
  };
  for (const [index, name] of Object.entries(PAD_BUTTONS)) {
    const pressed = down(index) > 0.5;
    if (pressed && !padButtons[name]) onPad(name);
    padButtons[name] = pressed;
  }
  tell();
}
