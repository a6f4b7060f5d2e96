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

/** Fill the two last traces, the combs, with the ticks of all crossings: neurons that turn on point up from the row's
 * middle, others down. A row's comb is one path, along its back; a path for each tick would be thousands of elements. */
function strips({ data, strips: { pair, layers } }) {
  const { t, layer, neuron, on } = pairs[pair]();
  const rowOf = new Map(layers.map((one, row) => [one, row]));
  const combs = data.slice(-2).map((trace) => ({ ...trace, x: [], y: [], text: [], hoverinfo: "text" }));
  const rows = [null, null];
  for (let index = 0; index < t.length; index += 1) {
    const row = rowOf.get(layer[index]);
    if (row === undefined) continue;
    const comb = combs[on[index]];
    const [near, far] = on[index] ? [row - 0.04, row - 0.42] : [row + 0.04, row + 0.42];
    const text = `layer ${layer[index]}, neuron ${neuron[index]} turns ${comb.name} at t = ${fixed(t[index], 4)}`;
    const gap = rows[on[index]] !== null && rows[on[index]] !== row ? [null] : [];
    rows[on[index]] = row;
    comb.x.push(...gap, t[index], t[index], t[index]);
    comb.y.push(...gap, near, far, near);
    comb.text.push(...gap, text, text, text);
  }
  return [...data.slice(0, -2), ...combs];
}

/** Draw (or redraw) a figure into the element. Nothing on the page is fetched, so the mode bar has no links. */
function draw(target, figure, width = null) {
  drawn.set(target, figure);
  const styles = getComputedStyle(document.documentElement);
  const complete = figure.strips ? strips(figure) : figure.data;
  const { data, layout } = themed({ data: complete, layout: { ...figure.layout, height: null, width } }, styles);
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
