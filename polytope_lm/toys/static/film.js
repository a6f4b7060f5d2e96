"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const FINE = 65535, HALF = 32767;
const LINES = ["#b9bec4", "#1d2125", "#8f1d6b", "#00724f", "#7a5200"];
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const all = {
  xy: new Uint16Array(bytes(data.xy).buffer), corners: new Uint16Array(bytes(data.corners).buffer),
  sides: bytes(data.sides), layers: bytes(data.layers),
  values: new Int16Array(bytes(data.values).buffer), duals: new Int16Array(bytes(data.duals).buffer),
};
const frames = data.steps.length;
const places = [];
for (let i = 0, v = 0, f = 0, c = 0; i < frames; i++) {
  const [vertices, faces, corners] = data.counts.slice(3 * i, 3 * i + 3);
  places.push({ v, f, c, vertices, faces, corners });
  v += vertices; f += faces; c += corners;
}

// One frame's numbers in the network's own units.
function frame(i) {
  const at = places[i], [x0, x1, y0, y1] = data.window;
  const x = new Float64Array(at.vertices), y = new Float64Array(at.vertices), z = new Float64Array(at.vertices);
  for (let k = 0; k < at.vertices; k++) {
    x[k] = x0 + (all.xy[2 * (at.v + k)] / FINE) * (x1 - x0);
    y[k] = y0 + (all.xy[2 * (at.v + k) + 1] / FINE) * (y1 - y0);
    z[k] = (all.values[at.v + k] / HALF) * data.height;
  }
  const faces = [];
  for (let f = 0, c = at.c; f < at.faces; f++) {
    const size = all.sides[at.f + f];
    faces.push({
      ids: Array.from(all.corners.subarray(c, c + size)), layers: all.layers.subarray(c, c + size),
      slope: [(all.duals[2 * (at.f + f)] / HALF) * data.reach, (all.duals[2 * (at.f + f) + 1] / HALF) * data.reach],
    });
    c += size;
  }
  return { x, y, z, faces };
}

function colour(value) {
  const share = Math.min(1, Math.abs(value)) * 0.8, end = value > 0 ? [0, 114, 178] : [213, 94, 0];
  return "rgb(" + end.map((e) => Math.round(255 + share * (e - 255))).join(",") + ")";
}
const mean = (ids, of) => ids.reduce((sum, id) => sum + of[id], 0) / ids.length;

const outline = (path, ids, px, py) => {
  path.moveTo(px[ids[0]], py[ids[0]]);
  for (let k = 1; k < ids.length; k++) path.lineTo(px[ids[k]], py[ids[k]]);
  path.closePath();
};
// Where the output is 0 in a face: it is linear there.
function zero(path, ids, px, py, z) {
  let drawing = false;
  ids.forEach((id, k) => {
    const next = ids[(k + 1) % ids.length];
    if (z[id] > 0 === z[next] > 0) return;
    const t = z[id] / (z[id] - z[next]);
    path[drawing ? "lineTo" : "moveTo"](px[id] + t * (px[next] - px[id]), py[id] + t * (py[next] - py[id]));
    drawing = true;
  });
}
const stroke = (g, path, shade, width) => { g.strokeStyle = shade; g.lineWidth = width; g.stroke(path); };

const canvas = (id) => document.getElementById(id).getContext("2d");
const [flat, folded, dual, curve] = ["regions", "surface", "duals", "curve"].map(canvas);
let turn = 0.6;
const S = 520;

function drawRegions(now) {
  const [x0, x1, y0, y1] = data.window;
  const px = now.x.map((v) => ((v - x0) / (x1 - x0)) * S), py = now.y.map((v) => S - ((v - y0) / (y1 - y0)) * S);
  flat.clearRect(0, 0, S, S);
  const fills = new Map(), edges = LINES.map(() => new Path2D()), line = new Path2D();
  for (const one of now.faces) {
    const shade = colour(mean(one.ids, now.z));
    if (!fills.has(shade)) fills.set(shade, new Path2D());
    outline(fills.get(shade), one.ids, px, py);
    one.ids.forEach((id, k) => {
      const next = one.ids[(k + 1) % one.ids.length];
      if (id > next && one.layers[k]) return; // the face beyond draws it
      const path = edges[Math.min(one.layers[k], LINES.length - 1)];
      path.moveTo(px[id], py[id]); path.lineTo(px[next], py[next]);
    });
    zero(line, one.ids, px, py, now.z);
  }
  for (const [shade, path] of fills) { flat.fillStyle = shade; flat.fill(path); stroke(flat, path, shade, 0.5); }
  edges.forEach((path, k) => stroke(flat, path, LINES[k], k === 1 ? 1.6 : 1.2));
  stroke(flat, line, "#000", 3.5);
  for (const [sign, shade] of [[1, "#003e66"], [-1, "#7a3200"]]) {
    flat.fillStyle = shade;
    data.points.forEach(([x, y], k) => {
      if (data.classes[k] === sign) flat.fillRect(((x - x0) / (x1 - x0)) * S - 1, S - ((y - y0) / (y1 - y0)) * S - 1, 2.4, 2.4);
    });
  }
}

function drawSurface(now) {
  const [x0, x1, y0, y1] = data.window, c = Math.cos(turn), s = Math.sin(turn), tall = Math.max(1e-9, ...now.z.map(Math.abs));
  const along = new Float64Array(now.x.length), px = new Float64Array(now.x.length), py = new Float64Array(now.x.length);
  for (let k = 0; k < px.length; k++) {
    const u = (2 * (now.x[k] - x0)) / (x1 - x0) - 1, v = (2 * (now.y[k] - y0)) / (y1 - y0) - 1;
    along[k] = s * u + c * v;
    px[k] = S / 2 + (c * u - s * v) * 0.33 * S;
    py[k] = S / 2 - along[k] * 0.17 * S - (now.z[k] / tall) * 0.25 * S;
  }
  folded.clearRect(0, 0, S, S);
  const far = now.faces.map((one) => [mean(one.ids, along), one]).sort((a, b) => b[0] - a[0]);
  for (const [, one] of far) {
    const path = new Path2D(), line = new Path2D();
    outline(path, one.ids, px, py);
    folded.fillStyle = colour(mean(one.ids, now.z));
    folded.fill(path);
    stroke(folded, path, "#3a4148", 0.8);
    zero(line, one.ids, px, py, now.z);
    stroke(folded, line, "#000", 3);
  }
}

function drawDuals(now) {
  dual.clearRect(0, 0, S, S);
  dual.strokeStyle = "#d9d6cd"; dual.lineWidth = 1;
  dual.beginPath(); dual.moveTo(0, S / 2); dual.lineTo(S, S / 2); dual.moveTo(S / 2, 0); dual.lineTo(S / 2, S); dual.stroke();
  const reach = Math.max(1e-9, ...now.faces.map((one) => Math.max(Math.abs(one.slope[0]), Math.abs(one.slope[1])))) * 1.1;
  const [x0, x1, y0, y1] = data.window, whole = (x1 - x0) * (y1 - y0);
  for (const one of now.faces) {
    let area = 0;
    one.ids.forEach((id, k) => {
      const next = one.ids[(k + 1) % one.ids.length];
      area += now.x[id] * now.y[next] - now.x[next] * now.y[id];
    });
    dual.beginPath();
    dual.arc(S / 2 + (one.slope[0] / reach) * S / 2, S / 2 - (one.slope[1] / reach) * S / 2,
      2 + 60 * Math.sqrt(Math.abs(area) / 2 / whole), 0, 7);
    dual.fillStyle = colour(mean(one.ids, now.z)); dual.fill();
    dual.strokeStyle = "#1d2125"; dual.lineWidth = 0.8; dual.stroke();
  }
  dual.fillStyle = "#59626b"; dual.font = "13px sans-serif";
  dual.fillText("the frame's edge: ±" + reach.toPrecision(2), S - 180, S - 12);
  dual.fillText("across: slope in x; up: slope in y", 12, S - 12);
}

function drawCurve(i) {
  const most = Math.max(...places.map((p) => p.faces)), last = data.steps[frames - 1];
  const left = 46, right = S - 52, top = 16, bottom = S - 40;
  const px = (k) => left + (data.steps[k] / last) * (right - left);
  curve.clearRect(0, 0, S, S);
  curve.font = "13px sans-serif"; curve.lineWidth = 1; curve.strokeStyle = "#d9d6cd"; curve.fillStyle = "#59626b";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const y = bottom - share * (bottom - top);
    curve.beginPath(); curve.moveTo(left, y); curve.lineTo(right, y); curve.stroke();
    curve.fillStyle = "#0072b2"; curve.fillText(share.toFixed(2), 10, y + 4);
    curve.fillStyle = "#8f1d6b"; curve.fillText(String(Math.round(share * most)), right + 8, y + 4);
  }
  curve.fillStyle = "#59626b"; curve.fillText("updates: " + last, right - 80, S - 14);
  curve.fillStyle = "#0072b2"; curve.fillText("accuracy (solid)", left, S - 14);
  curve.fillStyle = "#8f1d6b"; curve.fillText("regions (dashed)", left + 130, S - 14);
  for (const [of, shade, dash] of [[data.accuracy, "#0072b2", []], [places.map((p) => p.faces / most), "#8f1d6b", [6, 4]]]) {
    curve.beginPath(); curve.setLineDash(dash); curve.strokeStyle = shade; curve.lineWidth = 2;
    of.forEach((value, k) => curve[k ? "lineTo" : "moveTo"](px(k), bottom - value * (bottom - top)));
    curve.stroke(); curve.setLineDash([]);
    curve.beginPath(); curve.arc(px(i), bottom - of[i] * (bottom - top), 5, 0, 7); curve.fillStyle = shade; curve.fill();
  }
}

const button = document.getElementById("play"), slider = document.getElementById("frame"), told = document.getElementById("told");
slider.max = frames - 1;
const film = { frames, at: 0, playing: false, drawn: 0, frame };
window.film = film;

film.show = (i) => {
  film.at = i;
  const now = frame(i);
  drawRegions(now); drawSurface(now); drawDuals(now); drawCurve(i);
  slider.value = i;
  told.textContent = `update ${data.steps[i]}: ${places[i].faces} regions, accuracy ${(100 * data.accuracy[i]).toFixed(1)} %`;
  film.drawn++;
};
film.play = (on) => {
  film.playing = on;
  button.textContent = on ? "Pause" : "Play";
  button.setAttribute("aria-pressed", String(on));
  if (!on) return;
  if (film.at === frames - 1) film.show(0);
  let before = performance.now();
  const step = (now) => {
    if (!film.playing) return;
    if (now - before >= 1000 / 60 - 2) {
      before = now;
      if (film.at + 1 < frames) film.show(film.at + 1);
      if (film.at + 1 >= frames) return film.play(false);
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
};
button.addEventListener("click", () => film.play(!film.playing));
slider.addEventListener("input", () => { film.play(false); film.show(Number(slider.value)); });
let held = null;
const surface = document.getElementById("surface");
surface.style.touchAction = "none";
surface.addEventListener("pointerdown", (e) => { held = [e.clientX, turn]; surface.setPointerCapture(e.pointerId); });
surface.addEventListener("pointermove", (e) => {
  if (held) { turn = held[1] + (e.clientX - held[0]) / 120; drawSurface(frame(film.at)); }
});
surface.addEventListener("pointerup", () => { held = null; });
film.show(frames - 1);
