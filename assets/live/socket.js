// The WebSocket of this tab: one token per tab, credit-based frames, reconnection with back-off.

import { emit, live, recall, remember } from "./bus.js";

const MOST = { plans: 256, comparisons: 5000 }; // that a page shows, as studio/feed.py keeps them
const BACKOFF_S = [0.5, 1, 2, 4, 8];
const decoder = new TextDecoder();
let socket = null;
let attempts = 0;
let retryTimer = null;
let stamps = 0;
let arrived = 0; // frames
let drawn = 0; // the newest of them on the page

export function token(fresh = false) {
  let value = recall("studio-token");
  if (!value || fresh) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    value = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
    remember("studio-token", value);
  }
  return value;
}

export function address(path) {
  return new URL(path, document.baseURI);
}

export function send(type, fields = {}) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify({ ...fields, type }));
  return true;
}

// Whether a scene can be asked for now: this tab has its simulator, and the connection is there.
export function ready() {
  if (live.state && socket?.readyState === WebSocket.OPEN) return true;
  emit("error", { message: "This tab has no simulator at the moment; Live says why." });
  return false;
}

// A request whose answer may be overtaken by a newer one carries a stamp.
export function request(type, fields) {
  const stamp = ++stamps;
  return send(type, { ...fields, stamp }) ? stamp : null;
}

export function connect() {
  clearTimeout(retryTimer);
  const url = address(`live/ws?token=${token()}`);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") receive(JSON.parse(data));
    else drawFrames(data);
  };
  socket.onclose = ({ code }) => retry(code);
}

// Drops the connection; it comes back by itself.
export function disconnect() {
  socket?.close();
}

function retry(code) {
  if (code === 4403) {
    return emit("connection", { up: false, text: "The server refuses pages from this address." });
  }
  if (code === 4408) return emit("idle"); // the page was not used for long; a person asks for it again
  if (code === 4400) token(true);
  const wait = BACKOFF_S[Math.min(attempts++, BACKOFF_S.length - 1)];
  emit("connection", { up: false, text: `Connection lost. Trying again in ${wait} s …` });
  retryTimer = setTimeout(connect, 1000 * wait);
}

function receive({ type, ...message }) {
  if (type === "hello") {
    attempts = 0;
    const { state, ...rest } = message;
    const another = live.state && live.state.episode !== state.episode;
    const lost = ![null, rest.session].includes(recall("studio-session")); // what it was told is gone
    remember("studio-session", rest.session);
    Object.assign(live, rest, { state });
    emit("connection", { up: true });
    if (lost) emit("renewed");
    if (another) {
      live.selected = null;
      emit("episode", state);
    }
    emit("hello", message);
    emit("state", state);
  } else if (type === "state") {
    live.state = { ...live.state, ...message };
    emit("state", live.state);
  } else if (type === "plan") {
    keep("plans", message);
    emit("plan", message);
  } else if (type === "mark") {
    live.marks.push(message);
    emit("mark", message);
  } else if (type === "comparison") {
    keep("comparisons", message);
    emit("comparison", message);
  } else if (type === "episode") {
    Object.assign(live, { plans: [], marks: [], comparisons: [], selected: null });
    emit("episode", message);
  } else {
    if (type === "queue") attempts = 0;
    emit(type, message);
  }
}

// The oldest give way.
function keep(name, item) {
  live[name].push(item);
  if (live[name].length > MOST[name]) live[name].shift();
}

// Two frames may be decoded at once: one that is overtaken is not drawn. All are acknowledged,
// even one that can't be decoded, or no other would come.
async function drawFrames(buffer) {
  const from = socket;
  const number = ++arrived;
  try {
    const { header, jpegs } = unpack(buffer);
    const pictures = await Promise.all(jpegs.map((jpeg) => createImageBitmap(jpeg)));
    if (number > drawn) {
      drawn = number;
      emit("frame", { ...header, pictures });
    }
    pictures.forEach((picture) => picture.close());
  } catch (error) {
    console.warn("a picture could not be drawn:", error);
  } finally {
    if (from.readyState === WebSocket.OPEN) from.send('{"type":"ack"}');
  }
}

// [uint32 n][n bytes of JSON][jpeg][jpeg]…
function unpack(buffer) {
  const headerLength = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, headerLength)));
  let offset = 4 + headerLength;
  const jpegs = header.sizes.map((size) => {
    const jpeg = new Blob([new Uint8Array(buffer, offset, size)], { type: "image/jpeg" });
    offset += size;
    return jpeg;
  });
  return { header, jpegs };
}
