"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const W = 340, H = 210, LEFT = 52, RIGHT = W - 10, TOP = 8, BOTTOM = H - 24;
const hidden = new Set();
let drawn = [];

function element(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "g"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const network = () => data.networks[by("network").value];
const superscript = (text) => [...text].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)] || "").join("");
function told(value) {
  if (value === null) return "–";
  const text = value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1).replace(/(\.0)?e(.*)/, (_, __, e) => `·10${superscript(e)}`) : String(Number(value.toPrecision(3)));
  return text.replace("-", "−");
}
const layerOf = (title) => (/, layer (\d+)/.exec(title) || [null, null])[1];
const familyOf = (title) => title.split(", ")[0];

// Which panels are shown: those of the family, and of the layer if they belong to one.
function shown() {
  const family = by("family").value, layer = by("layer").value;
  return Object.entries(network().panels).filter(([title]) =>
    (family === "" || familyOf(title) === family) && (layer === "" || layerOf(title) === null || layerOf(title) === layer));
}

const across = (steps) => steps.map((s) => Math.log2(1 + s)).map((x, _, all) => LEFT + (x / (all[all.length - 1] || 1)) * (RIGHT - LEFT));

// The vertical axis: from 0 where values are counts or sizes, with room for what is below 0; or logarithmic.
function axis(values) {
  const positive = values.filter((v) => v > 0);
  const log = by("log").checked && positive.length === values.filter((v) => v !== 0).length && positive.length > 0;
  const of = (v) => (log ? Math.log10(Math.max(v, Math.min(...positive))) : v);
  let low = log ? of(Math.min(...positive)) : Math.min(0, ...values), high = of(Math.max(...values));
  if (high <= low) high = low + 1;
  const place = (v) => BOTTOM - ((of(v) - low) / (high - low)) * (BOTTOM - TOP);
  // Round numbers: 1, 2 or 5 times a power of ten apart.
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough)), gap = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  const ticks = [];
  for (let k = Math.ceil(low / gap - 1e-9); k * gap <= high + 1e-9 * gap; k++) ticks.push(log ? 10 ** (k * gap) : k * gap);
  return { place, ticks };
}

// Runs of checkpoints that follow one another: one without the number breaks the line and the band.
const runs = (there) => there.reduce((found, i, k) => {
  if (k && there[k - 1] === i - 1) found[found.length - 1].push(i);
  else found.push([i]);
  return found;
}, []);

function panel([title, curves]) {
  const steps = network().steps, xs = across(steps);
  const seen = curves.filter((c) => !hidden.has(c.name));
  const y = axis(seen.flatMap((c) => [...c.values, ...(c.low || []), ...(c.high || [])]).filter((v) => v !== null));
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title, "font-size": 11 });
  y.ticks.forEach((v) => svg.append(
    element("line", { x1: LEFT, x2: RIGHT, y1: y.place(v), y2: y.place(v), stroke: v === 0 ? "#8a929a" : "#e4e1d8" }),
    element("text", { x: LEFT - 4, y: y.place(v) + 4, "text-anchor": "end", fill: "#59626b" }, told(v))));
  let last = -99;
  xs.forEach((x, i) => {
    if (x - last < 34 || (i < xs.length - 1 && xs[xs.length - 1] - x < 34)) return;
    svg.append(element("text", { x, y: H - 8, "text-anchor": i ? (i < xs.length - 1 ? "middle" : "end") : "start", fill: "#59626b" }, steps[i].toLocaleString("en")));
    last = x;
  });
  const cursor = element("line", { y1: TOP, y2: BOTTOM, stroke: "#59626b", "stroke-dasharray": "3 3" });
  const keys = element("div", { class: "keys" });
  const outputs = [], dots = [];
  curves.forEach((curve, k) => {
    const colour = data.colours[k % data.colours.length], dash = data.dashes[k % data.dashes.length], on = !hidden.has(curve.name);
    const there = xs.map((x, i) => i).filter((i) => curve.values[i] !== null);
    if (on && curve.low) runs(there).forEach((run) => {
      const ends = run.map((i) => `${xs[i]},${y.place(curve.high[i])}`).concat([...run].reverse().map((i) => `${xs[i]},${y.place(curve.low[i])}`));
      svg.append(element("path", { d: `M${ends.join("L")}Z`, fill: colour, opacity: 0.18 }));
    });
    const d = runs(there).map((run) => "M" + run.map((i) => `${xs[i].toFixed(1)} ${y.place(curve.values[i]).toFixed(1)}`).join("L")).join("");
    if (on && d) svg.append(element("path", { d, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }));
    if (on) runs(there).filter((run) => run.length === 1)
      .forEach(([i]) => svg.append(element("circle", { cx: xs[i], cy: y.place(curve.values[i]), r: 2, fill: colour })));
    const dot = element("circle", { r: 3.5, fill: colour, stroke: "#fff" });
    if (on) dots.push([dot, curve]);
    const mark = element("svg", { viewBox: "0 0 24 8", width: 24, height: 8, style: "flex:none;width:24px", "aria-hidden": "true" },
      element("path", { d: "M0 4H24", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash }));
    const output = element("output");
    const key = element("button", { type: "button", "aria-pressed": String(on), title: "show or hide" }, mark, curve.name, output);
    key.addEventListener("click", () => { if (!hidden.delete(curve.name)) hidden.add(curve.name); draw(); });
    outputs.push([output, curve]);
    keys.append(key);
  });
  svg.append(cursor, ...dots.map(([dot]) => dot));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * W;
    const nearest = xs.reduce((best, each, i) => (Math.abs(each - x) < Math.abs(xs[best] - x) ? i : best), 0);
    by("step").value = nearest;
    move();
  });
  const moved = (i) => {
    cursor.setAttribute("x1", xs[i]); cursor.setAttribute("x2", xs[i]);
    outputs.forEach(([output, curve]) => {
      const v = curve.values[i], interval = curve.low && v !== null ? ` [${told(curve.low[i])}, ${told(curve.high[i])}]` : "";
      output.textContent = told(v) + interval;
    });
    dots.forEach(([dot, curve]) => {
      const v = curve.values[i];
      dot.setAttribute("visibility", v === null ? "hidden" : "visible");
      if (v !== null) { dot.setAttribute("cx", xs[i]); dot.setAttribute("cy", y.place(v)); }
    });
  };
  return [element("figure", {}, element("h2", {}, title), svg, keys), moved];
}

function move() {
  const i = Number(by("step").value);
  by("step-told").textContent = network().steps[i].toLocaleString("en");
  drawn.forEach((moved) => moved(i));
}

function draw() {
  const made = shown().map(panel);
  by("panels").replaceChildren(...made.map(([figure]) => figure));
  drawn = made.map(([, moved]) => moved);
  move();
}

// Families and layers are this network's; a family that was chosen stays so where there is one, and the middle layer is shown.
function choose() {
  const titles = Object.keys(network().panels), family = by("family").value;
  const families = [...new Set(titles.map(familyOf))], layers = [...new Set(titles.map(layerOf).filter((l) => l !== null))];
  by("family").replaceChildren(new Option("everything", ""), ...families.map((f) => new Option(f, f)));
  by("family").value = families.includes(family) ? family : "";
  by("layer").replaceChildren(new Option("all", ""), ...layers.map((l) => new Option(l, l)));
  by("layer").value = layers.length ? layers[Math.floor(layers.length / 2)] : "";
  by("step").max = network().steps.length - 1;
  by("step").value = network().steps.length - 1;
  by("settled").textContent = "settled by update: " + Object.entries(network().settled).map(([name, step]) => `${name} ${step.toLocaleString("en")}`).join(", ");
  draw();
}
Object.keys(data.networks).forEach((name) => by("network").add(new Option(name, name)));
by("network").addEventListener("change", choose);
for (const id of ["family", "layer", "log"]) by(id).addEventListener("change", draw);
by("step").addEventListener("input", move);
choose();
