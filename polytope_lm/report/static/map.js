"use strict";
/* Maps of the tokens, by code and by direction, side by side: what is picked on one side shows on the other. Drawn on
   canvas: 20,000 marks of SVG would make the page wait. */

function tokenMaps() {
  const state = { layer: DATA.layers.findIndex((layer) => layer.maps.length), colour: "label", row: null, picked: [], picks: 0 };
  const choosers = { layer: byId("map-layer"), colour: byId("map-colour") };
  const list = byId("map-tokens");
  const places = DATA.layers.map((layer) => lazily(() => layer.maps.map((one) => unpack(one.places))));
  const assigned = DATA.layers.map((layer) => layer.clusterings.map((one) => lazily(() => unpack(one.cluster))));
  const near = DATA.layers.map((layer) =>
    lazily(() => Object.fromEntries(layer.neighbours.map((side) => [side.key, unpack(side.index)]))),
  );
  const sides = [...document.querySelectorAll("#panel-map canvas")].map((canvas, index) => ({ canvas, index, from: null, to: null }));
  const MARGIN = 10;
  const REACH = 8;

  function hues() {
    const styles = getComputedStyle(document.documentElement);
    const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
    return { of: [...Array(8).keys()].map((hue) => colour(`hue-${hue}`)), rest: colour("hue-rest"), ink: colour("ink"), band: colour("code-soft") };
  }

  /** The colour's number of every token: its label's place in the sample, or its cluster's, largest first. */
  function groups() {
    if (state.colour === "label") return LABELS.of();
    const clusters = assigned[state.layer][Number(state.colour)]();
    const sizes = new Map();
    for (const cluster of clusters) sizes.set(cluster, (sizes.get(cluster) || 0) + 1);
    const rank = new Map([...sizes].sort((x, y) => y[1] - x[1] || x[0] - y[0]).map(([cluster], place) => [cluster, place]));
    // Largest first, colours go round: neighbours on the map rarely share one.
    return clusters.map((cluster) => (cluster < 0 ? 8 : rank.get(cluster) % 8));
  }

  /** Every token's place in the canvas's pixels, computed once for each size and layer. */
  function located(side) {
    const { width, height } = side.canvas;
    const key = `${state.layer} ${width} ${height}`;
    if (side.key !== key) {
      const half = Math.min(width, height) / 2 - MARGIN * devicePixelRatio;
      const [x, y] = [width / 2, height / 2];
      side.at = Float32Array.from(places[state.layer]()[side.index], (value, index) =>
        index % 2 ? y - (value / 1000) * half : x + (value / 1000) * half,
      );
      side.key = key;
    }
    return side.at;
  }

  /** One shape for each hue, so that the map is read without colours; the style sheet's legend has the same. */
  const SHAPES = [
    (pen, x, y, r) => (pen.moveTo(x + r, y), pen.arc(x, y, r, 0, 2 * Math.PI)),
    (pen, x, y, r) => pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r),
    ...[
      [[0, -1.2], [1.1, 0.9], [-1.1, 0.9]],
      [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
      [[0, 1.2], [1.1, -0.9], [-1.1, -0.9]],
      [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
      [[-1.3, -0.5], [1.3, -0.5], [1.3, 0.5], [-1.3, 0.5]],
      [[-0.5, -1.3], [0.5, -1.3], [0.5, 1.3], [-0.5, 1.3]],
    ].map((corners) => (pen, x, y, r) => {
      corners.forEach(([dx, dy], index) => (index ? pen.lineTo(x + dx * r, y + dy * r) : pen.moveTo(x + dx * r, y + dy * r)));
      pen.closePath();
    }),
    (pen, x, y, r) => pen.rect(x - 0.45 * r, y - 0.45 * r, 0.9 * r, 0.9 * r),
  ];

  function dots(pen, at, rows, hue, colour, size) {
    pen.fillStyle = colour;
    pen.beginPath();
    for (const row of rows) SHAPES[Math.min(hue, 8)](pen, at[2 * row], at[2 * row + 1], 0.6 * size);
    pen.fill();
  }

  /** All tokens, those that are picked in front; kept until they look otherwise. */
  function backdrop(side, colours) {
    const { width, height } = side.canvas;
    const looks = [state.layer, state.colour, width, height, state.picks, colours.ink].join(" ");
    if (side.looks === looks) return side.backdrop;
    const kept = new OffscreenCanvas(width, height);
    const pen = kept.getContext("2d");
    const [at, group, picked] = [located(side), groups(), new Set(state.picked)];
    const size = (TOKENS.token.length > 4000 ? 4 : 6) * devicePixelRatio;
    const byColour = [...Array(9)].map(() => []);
    for (let row = 0; row < TOKENS.token.length; row += 1) if (!picked.has(row)) byColour[Math.min(group[row], 8)].push(row);
    pen.globalAlpha = picked.size ? 0.18 : 0.75;
    for (let hue = 8; hue >= 0; hue -= 1) dots(pen, at, byColour[hue], hue, colours.of[hue] || colours.rest, size);
    pen.globalAlpha = 1;
    for (const row of state.picked) dots(pen, at, [row], group[row], colours.of[group[row]] || colours.rest, 1.6 * size);
    [side.looks, side.backdrop] = [looks, kept];
    return kept;
  }

  function neighbours(side, pen, colours) {
    const at = located(side);
    const place = (row) => [at[2 * row], at[2 * row + 1]];
    const key = DATA.layers[state.layer].maps[side.index].key;
    pen.strokeStyle = colours.ink;
    pen.lineWidth = devicePixelRatio;
    pen.globalAlpha = 0.45;
    for (const row of near[state.layer]()[key].row(state.row)) {
      if (row < 0) continue;
      pen.beginPath();
      pen.moveTo(...place(state.row));
      pen.lineTo(...place(row));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    pen.beginPath();
    pen.arc(...place(state.row), 6 * devicePixelRatio, 0, 2 * Math.PI);
    pen.stroke();
  }

  function paint(side) {
    const box = side.canvas.getBoundingClientRect();
    const [width, height] = [box.width, box.height].map((length) => Math.round(length * devicePixelRatio));
    if (side.canvas.width !== width || side.canvas.height !== height) Object.assign(side.canvas, { width, height });
    const pen = side.canvas.getContext("2d");
    const colours = hues();
    pen.clearRect(0, 0, width, height);
    pen.drawImage(backdrop(side, colours), 0, 0);
    if (state.row !== null) neighbours(side, pen, colours);
    if (side.from && side.to) {
      pen.fillStyle = colours.band;
      pen.fillRect(side.from[0], side.from[1], side.to[0] - side.from[0], side.to[1] - side.from[1]);
    }
  }

  const paintAll = () => sides.forEach(paint);

  function nearest(side, [x, y]) {
    const at = located(side);
    let best = null;
    let least = (REACH * devicePixelRatio) ** 2;
    for (let row = 0; row < TOKENS.token.length; row += 1) {
      const away = (at[2 * row] - x) ** 2 + (at[2 * row + 1] - y) ** 2;
      if (away < least) [best, least] = [row, away];
    }
    return best;
  }

  function tell() {
    const rows = state.row === null ? state.picked : [state.row, ...state.picked.filter((row) => row !== state.row)];
    byId("map-picked").textContent = state.picked.length
      ? `${plural(state.picked.length, "token")} picked`
      : "Click a token, or draw a frame around several; the other side shows where they are.";
    cappedList(list, rows, (row) =>
      el(
        "li",
        { "data-row": row },
        el(
          "button",
          { type: "button", onclick: () => choose(row) },
          el("span", { class: row === state.row ? "dot shared" : "dot" }),
          inContext(row, el("span", { class: "tag" }, bdi(labelOf(row)))),
        ),
      ),
    );
  }

  function pick(rows) {
    state.picked = rows;
    state.picks += 1;
  }

  function choose(row) {
    state.row = row;
    if (row !== null) address("map", DATA.layers[state.layer].layer, row);
    tell();
    paintAll();
  }

  function frame(side) {
    const [left, right] = [side.from[0], side.to[0]].sort((x, y) => x - y);
    const [top, bottom] = [side.from[1], side.to[1]].sort((x, y) => x - y);
    const at = located(side);
    const inside = [];
    for (let row = 0; row < TOKENS.token.length; row += 1) {
      const [x, y] = [at[2 * row], at[2 * row + 1]];
      if (x >= left && x <= right && y >= top && y <= bottom) inside.push(row);
    }
    pick(inside);
    choose(null);
  }

  const pointer = (side, event) => {
    const box = side.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
  };
  /** From the chosen token to the nearest one in the direction of an arrow key. */
  function step(side, [dx, dy]) {
    const at = located(side);
    const from = state.row === null ? 0 : state.row;
    let best = from;
    let least = Infinity;
    for (let row = 0; row < TOKENS.token.length; row += 1) {
      const [x, y] = [at[2 * row] - at[2 * from], at[2 * row + 1] - at[2 * from + 1]];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy - y * dx);
      if (ahead > aside && ahead + aside < least) [best, least] = [row, ahead + aside];
    }
    choose(best);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  for (const side of sides) {
    side.canvas.addEventListener("keydown", (event) => {
      if (!(event.key in ARROWS)) return;
      event.preventDefault();
      step(side, ARROWS[event.key]);
    });
    side.canvas.addEventListener("pointerdown", (event) => {
      side.canvas.setPointerCapture(event.pointerId);
      side.from = pointer(side, event);
    });
    side.canvas.addEventListener("pointermove", (event) => {
      if (side.from) {
        side.to = pointer(side, event);
        paint(side);
        return;
      }
      const row = nearest(side, pointer(side, event));
      side.canvas.title = row === null ? "" : `${TOKENS.left[row].slice(-24)}[${TOKENS.token[row]}]${TOKENS.right[row].slice(0, 24)} (${labelOf(row)})`;
    });
    side.canvas.addEventListener("pointerup", (event) => {
      const to = pointer(side, event);
      const moved = side.from && Math.hypot(to[0] - side.from[0], to[1] - side.from[1]) > 4 * devicePixelRatio;
      if (moved) {
        side.to = to;
        frame(side);
      } else {
        if (state.picked.length) pick([]);
        choose(nearest(side, to));
      }
      side.from = side.to = null;
      paint(side);
    });
  }
  choosers.layer.addEventListener("change", () => {
    state.layer = Number(choosers.layer.value);
    colours();
    choose(state.row);
  });
  choosers.colour.addEventListener("change", () => {
    state.colour = choosers.colour.value;
    paintAll();
  });
  addEventListener("resize", () => byId("panel-map").hidden || paintAll());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => byId("panel-map").hidden || paintAll());

  function colours() {
    const wanted = [["label", TOKENS.label_name], ...DATA.layers[state.layer].clusterings.map((one, index) => [String(index), `cluster by ${one.name}`])];
    choosers.colour.replaceChildren(...wanted.map(([value, name]) => el("option", { value }, name)));
    choosers.colour.value = state.colour;
  }

  onVisit("map", ([layer, row]) => {
    const position = DATA.layers.findIndex((item) => String(item.layer) === layer);
    if (position >= 0 && DATA.layers[position].maps.length) state.layer = position;
    choosers.layer.value = String(state.layer);
    colours();
    state.row = /^\d+$/.test(row || "") && Number(row) < TOKENS.token.length ? Number(row) : state.row;
    tell();
    paintAll();
  });
}

if (TOKENS && byId("map-layer")) tokenMaps();
