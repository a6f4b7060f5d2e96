"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const NEAR = 1e-9;
let layer;

const apply = (x) => layer.weights.reduce((sum, w, i) => sum + layer.out[i] * Math.max(w * (x - layer.bends[i]), 0), 0);

// The layer applied `depth` times, piece by piece: between neighbouring points everything so far is linear, so the next
// application bends it where the line between two values passes a neuron's bend.
function folded(depth) {
  let points = data.span.map((x) => ({ x, y: x, layer: -1 }));
  for (let d = 0; d < depth; d++) {
    const more = [points[0]];
    for (let k = 1; k < points.length; k++) {
      const a = points[k - 1], b = points[k], inner = [];
      layer.bends.forEach((p, i) => {
        const t = (p - a.y) / (b.y - a.y);
        if (layer.weights[i] !== 0 && t > 0 && t < 1) inner.push({ x: a.x + t * (b.x - a.x), y: p, layer: d });
      });
      inner.sort((one, other) => one.x - other.x);
      more.push(...inner, b);
    }
    // A bend that rounding has put beside another one, or beside an end, is that one.
    const apart = more.filter((p, k) => k === 0 || p.x - more[k - 1].x > NEAR);
    if (apart[apart.length - 1].x !== data.span[1]) apart[apart.length - 1] = more[more.length - 1];
    points = apart.map((p) => ({ x: p.x, y: apply(p.y), layer: p.layer }));
  }
  return points;
}

function pieces(points) {
  const slopes = points.slice(1).map((p, k) => (p.y - points[k].y) / (p.x - points[k].x));
  const most = Math.max(1, ...slopes.map(Math.abs));
  return 1 + slopes.slice(1).filter((s, k) => Math.abs(s - slopes[k]) > 1e-6 * most).length;
}

function draw() {
  const depth = Number(by("depth").value), points = folded(depth), g = by("graph").getContext("2d");
  const W = 1040, H = 460, left = 50, right = W - 16, top = 14, bottom = H - 34;
  let low = Math.min(0, ...points.map((p) => p.y)), high = Math.max(1, ...points.map((p) => p.y));
  const px = (x) => left + ((x - data.span[0]) / (data.span[1] - data.span[0])) * (right - left);
  const py = (y) => bottom - ((y - low) / (high - low)) * (bottom - top);
  g.clearRect(0, 0, W, H);
  g.font = "14px sans-serif"; g.lineWidth = 1; g.strokeStyle = "#ecebe6"; g.fillStyle = "#59626b";
  for (let k = 0; k <= 4; k++) {
    const y = low + (k / 4) * (high - low), x = data.span[0] + (k / 4) * (data.span[1] - data.span[0]);
    g.beginPath(); g.moveTo(left, py(y)); g.lineTo(right, py(y)); g.stroke();
    g.fillText(y.toFixed(2), 6, py(y) + 5); g.fillText(x.toFixed(2), px(x) - 14, H - 10);
  }
  g.setLineDash([5, 5]); g.strokeStyle = "#8a929a";
  layer.bends.forEach((p, i) => {
    if (layer.weights[i] === 0 || layer.out[i] === 0) return;
    g.beginPath(); g.moveTo(px(p), top); g.lineTo(px(p), bottom); g.stroke();
  });
  g.setLineDash([]); g.strokeStyle = "#0072b2"; g.lineWidth = 3; g.lineJoin = "round"; g.beginPath();
  points.forEach((p, k) => g[k ? "lineTo" : "moveTo"](px(p.x), py(p.y)));
  g.stroke();
  const slope = (k) => (points[k + 1].y - points[k].y) / (points[k + 1].x - points[k].x);
  points.forEach((p, k) => {
    if (p.layer < 0 || Math.abs(slope(k) - slope(k - 1)) < 1e-6) return;
    g.fillStyle = p.layer === 0 ? "#d55e00" : "#1d2125";
    if (p.layer === 0) { g.beginPath(); g.arc(px(p.x), py(p.y), 5, 0, 7); g.fill(); }
    else g.fillRect(px(p.x) - 3.5, py(p.y) - 3.5, 7, 7);
  });
  const n = pieces(points);
  by("told").textContent = `${n} ${n === 1 ? "piece" : "pieces"} at depth ${depth}`;
  window.fold = { points, pieces: n };
}

const names = { weight: "weights", bend: "bends", out: "out" };
function chosen() {
  const i = Number(by("neuron").value);
  for (const [id, list] of Object.entries(names)) { by(id).value = layer[list][i]; by(`${id}-told`).textContent = layer[list][i].toFixed(2); }
  by("depth-told").textContent = by("depth").value;
  draw();
}
for (const [id, list] of Object.entries(names))
  by(id).addEventListener("input", () => { layer[list][Number(by("neuron").value)] = Number(by(id).value); chosen(); });
by("neuron").addEventListener("change", chosen);
by("depth").addEventListener("input", chosen);
by("again").addEventListener("click", start);
by("depth").max = data.deepest;
data.weights.forEach((_, i) => by("neuron").add(new Option(String(i + 1), String(i))));
function start() {
  layer = { weights: [...data.weights], bends: [...data.bends], out: [...data.out] };
  by("neuron").value = "1"; by("depth").value = "1";
  chosen();
}
start();
