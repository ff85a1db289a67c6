// Plotly, loaded once from this machine, and the page's theme put on its figures.

import { emit, live } from "./bus.js";
import { address } from "./socket.js";

export const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false, // nothing leaves this machine
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
  doubleClick: "reset",
};

const NARROW = 720; // pixels
const RETRY_MS = 5000;
let loading = null;

export function plotly() {
  // here and not once for all: Gradio makes a tab when it is first opened
  document.querySelectorAll("#studio-tabs .tabitem").forEach((tab) => tabs.observe(tab));
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address(live.config.plotly);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      script.remove();
      setTimeout(() => (loading = null), RETRY_MS); // for what is drawn after that
      const message = "plotly.js could not be loaded from the server; there are no plots.";
      emit("error", { message });
      reject(new Error(message));
    };
    document.head.append(script);
  });
  return loading;
}

// Plotly follows the window, but not while a plot is hidden: it is fitted when its tab comes back.
const tabs = new ResizeObserver((entries) => {
  for (const gd of entries.flatMap(({ target }) => [...target.querySelectorAll(".js-plotly-plot")])) {
    const drawn = gd.querySelector(".main-svg")?.getBoundingClientRect().width;
    if (drawn && Math.abs(drawn - gd.clientWidth) > 1) window.Plotly.Plots.resize(gd);
  }
});

export function css(name) {
  return getComputedStyle(document.body).getPropertyValue(name).trim();
}

export function themed(layout) {
  const text = css("--st-ink");
  const grid = css("--st-grid");
  const result = {
    ...layout,
    font: { color: text, family: css("--st-font"), size: 13, ...layout.font },
    hoverlabel: { font: { family: css("--st-font") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--st-muted"), activecolor: text },
  };
  for (const key of Object.keys(result).filter((name) => /^[xy]axis\d*$/.test(name))) {
    result[key] = { gridcolor: grid, linecolor: grid, ...result[key] };
  }
  if (result.scene) {
    const walls = { gridcolor: grid, color: text, showbackground: false, zeroline: false };
    result.scene = { ...result.scene };
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      result.scene[axis] = { ...walls, ...result.scene[axis] };
    }
  }
  return result;
}

// A figure brings overrides for narrow pages in layout.meta.narrow, keyed "xaxis2.domain".
export function fitted(layout, width) {
  const narrow = layout.meta?.narrow;
  if (!narrow || width >= NARROW) return layout;
  const result = structuredClone(layout);
  for (const [path, value] of Object.entries(narrow)) {
    const keys = path.split(".");
    const last = keys.pop();
    keys.reduce((node, key) => (node[key] ??= {}), result)[last] = value;
  }
  return result;
}

// Calls back when the element has become narrow or wide (see `fitted`).
export function onFit(element, callback) {
  let narrow = null;
  new ResizeObserver(([{ contentRect: { width } }]) => {
    if (!width || narrow === (width < NARROW)) return; // hidden, or as before
    narrow = width < NARROW;
    callback();
  }).observe(element);
}

// Calls back when the theme turns dark or light.
export function onTheme(callback) {
  const isDark = () => document.body.classList.contains("dark");
  let dark = isDark();
  new MutationObserver(() => {
    if (isDark() === dark) return; // another class
    dark = !dark;
    callback();
  }).observe(document.body, { attributeFilter: ["class"] });
}
