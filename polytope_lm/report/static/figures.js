"use strict";
/* Figures come from Python without colours of their own: "var(--code)" is looked up in the style sheet when a figure
   is drawn, and again when the reader's system turns dark or light. */

const drawn = new Map();

function themed(value, styles) {
  if (typeof value === "string") {
    return value.startsWith("var(--") ? styles.getPropertyValue(value.slice(4, -1)).trim() : value;
  }
  if (Array.isArray(value)) return value.map((item) => themed(item, styles));
  if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, styles)]));
  }
  return value;
}

const pairs = DATA.crossings.map((packed) =>
  lazily(() => Object.fromEntries(Object.entries(packed).map(([name, array]) => [name, unpack(array)]))),
);

/** A comb of all crossings for every layer and direction: neurons that turn on point up from the row's middle, others
 * down. A comb is one path; a path for each tick would be thousands of elements. Crossings come ordered by layer and t. */
function strips({ pair, layers, yaxis }) {
  const { t, layer, neuron, on } = pairs[pair]();
  const rowOf = new Map(layers.map((one, row) => [one, row]));
  const blank = (direction, colour) => ({
    type: "scatter", mode: "lines", x: [], y: [], text: [], yaxis, xaxis: "x", hoverinfo: "text",
    name: direction, line: { color: `var(${colour})`, width: 1, simplify: false }, opacity: 0.75, connectgaps: false, row: null,
  });
  const traces = [blank("off", "--off"), blank("on", "--on")];
  for (let index = 0; index < t.length; index += 1) {
    const row = rowOf.get(layer[index]);
    if (row === undefined) continue;
    const trace = traces[on[index]];
    const text = `layer ${layer[index]}, neuron ${neuron[index]} turns ${trace.name} at t = ${fixed(t[index], 4)}`;
    const [near, far] = on[index] ? [row - 0.04, row - 0.42] : [row + 0.04, row + 0.42];
    if (trace.row !== null && trace.row !== row) {
      trace.x.push(null);
      trace.y.push(null);
      trace.text.push("");
    }
    trace.row = row;
    trace.x.push(t[index], t[index], t[index]);
    trace.y.push(near, far, near);
    trace.text.push(text, text, text);
  }
  return traces.map(({ row, ...trace }) => trace);
}

/** Draw (or redraw) a figure into the element. Nothing on the page is fetched, so the mode bar has no links. */
function draw(target, figure) {
  drawn.set(target, figure);
  const styles = getComputedStyle(document.documentElement);
  const complete = figure.strips ? { ...figure, data: [...figure.data, ...strips(figure.strips)] } : figure;
  const { data, layout } = themed({ data: complete.data, layout: complete.layout }, styles);
  return Plotly.react(target, data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
}

/** Draw the figures of a panel that is now visible, but for those that are still folded away. */
function drawVisible(panel) {
  for (const target of panel.querySelectorAll("[data-figure]")) {
    if (target.closest("[hidden], details:not([open])")) continue;
    if (!drawn.has(target)) draw(target, DATA.figures[target.dataset.figure]);
    else Plotly.Plots.resize(target);
  }
}

for (const folded of document.querySelectorAll("details")) {
  folded.addEventListener("toggle", () => drawVisible(folded));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [target, figure] of drawn) draw(target, figure);
});
