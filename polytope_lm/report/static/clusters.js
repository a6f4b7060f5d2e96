"use strict";
/* Two clusterings of the same tokens side by side. Opening a cluster on one side opens, on the other, the cluster that
   holds most of its tokens. */

function clusterBrowser() {
  const state = { layer: 0 };
  const layerChooser = byId("cluster-layer");
  const sides = ["a", "b"].map((name) => ({
    name,
    chooser: byId(`cluster-by-${name}`),
    table: byId(`cluster-table-${name}`),
    tokens: byId(`cluster-tokens-${name}`),
    title: byId(`cluster-title-${name}`),
    order: byId(`cluster-order-${name}`),
    filter: byId(`cluster-filter-${name}`),
    flows: byId(`cluster-flows-${name}`),
    open: null,
    groups: [],
  }));
  const unpacked = DATA.layers.map((layer) => layer.clusterings.map((one) => lazily(() => unpack(one.cluster))));

  /** Rows of each cluster, largest first, with the count of every label. */
  function group(assigned) {
    const groups = new Map();
    assigned.forEach((cluster, row) => {
      if (cluster < 0) return;
      if (!groups.has(cluster)) groups.set(cluster, { cluster, rows: [], labels: new Map() });
      const one = groups.get(cluster);
      one.rows.push(row);
      one.labels.set(LABELS.of()[row], (one.labels.get(LABELS.of()[row]) || 0) + 1);
    });
    for (const one of groups.values()) one.mix = [...one.labels].sort((x, y) => y[1] - x[1]);
    return [...groups.values()].sort((x, y) => y.rows.length - x.rows.length || x.cluster - y.cluster);
  }

  /** A bar of the label mix. The colours follow the label's place in the whole sample; the rest is grey. */
  function mixBar(one) {
    const text = one.mix.map(([label, count]) => `${LABELS.names[label]} ${count}`).join(", ");
    const bar = el("span", { class: "mix", role: "img", "aria-label": text, title: text });
    for (const [label, count] of one.mix) {
      const part = el("i", { "data-hue": label < 8 ? label : "rest" });
      part.style.flexGrow = count;
      bar.append(part);
    }
    return bar;
  }

  function frequent(rows, limit) {
    const counts = new Map();
    for (const row of rows) counts.set(TOKENS.token[row].trim(), (counts.get(TOKENS.token[row].trim()) || 0) + 1);
    return [...counts].sort((x, y) => y[1] - x[1]).slice(0, limit);
  }

  function summary(side, one) {
    const words = frequent(one.rows, 6).flatMap(([word], index) => (index ? [" · ", bdi(word)] : [bdi(word)]));
    const share = Math.round((100 * one.mix[0][1]) / one.rows.length);
    return el(
      "li",
      { "data-cluster": one.cluster },
      el(
        "button",
        { type: "button", "aria-pressed": String(side.open === one.cluster), onclick: () => open(side, one.cluster, true) },
        el("span", { class: "number" }, `#${one.cluster}`),
        el("span", { class: "size" }, String(one.rows.length)),
        mixBar(one),
        el("span", { class: "top" }, `${share}% `, bdi(LABELS.names[one.mix[0][0]])),
        el("span", { class: "words" }, words),
      ),
    );
  }

  const purity = (one) => one.mix[0][1] / one.rows.length;
  const orders = {
    size: () => 0, // as they come
    purity: (x, y) => purity(y) - purity(x),
    mixed: (x, y) => purity(x) - purity(y),
    label: (x, y) => x.mix[0][0] - y.mix[0][0],
    number: (x, y) => x.cluster - y.cluster,
  };

  /** Whether a cluster has the number, a label or a token that begins as somebody typed. */
  function matches(one, query) {
    if (!query || query === `#${one.cluster}`) return true;
    if (query.startsWith("#")) return false;
    const begins = (text) => text.trim().toLowerCase().startsWith(query);
    return one.mix.some(([label]) => begins(LABELS.names[label])) || one.rows.some((row) => begins(TOKENS.token[row]));
  }

  function list(side) {
    const query = side.filter.value.trim().toLowerCase();
    const shown = side.groups.filter((one) => matches(one, query)).sort(orders[side.order.value]);
    cappedList(side.table, shown, (one) => summary(side, one), 40);
    if (!shown.length) side.table.append(el("li", { class: "none" }, "no cluster has this"));
  }

  function fill(side) {
    side.groups = group(unpacked[state.layer][Number(side.chooser.value)]());
    list(side);
  }

  /** Where the open cluster's tokens are on the other side, most first. */
  function flows(side, one, other) {
    const assigned = unpacked[state.layer][Number(other.chooser.value)]();
    const counts = new Map();
    for (const row of one.rows) counts.set(assigned[row], (counts.get(assigned[row]) || 0) + 1);
    const parts = [...counts].sort((x, y) => y[1] - x[1] || x[0] - y[0]).map(([cluster, count]) => {
      if (cluster < 0) return `${count} in none `;
      const name = `${count} of these tokens are in #${cluster} of the other side`;
      const part = el(
        "button",
        { type: "button", title: name, "aria-label": name, "aria-pressed": String(other.open === cluster), onclick: () => open(other, cluster, false) },
        `#${cluster} ${count}`,
      );
      part.style.setProperty("--share", `${(100 * count) / one.rows.length}%`);
      return part;
    });
    side.flows.replaceChildren("went to ", ...parts);
  }

  function render(side, other) {
    const one = side.groups.find((item) => item.cluster === side.open);
    if (!one) return;
    for (const item of side.table.children) {
      const button = item.querySelector("button[aria-pressed]");
      if (button) button.setAttribute("aria-pressed", String(Number(item.dataset.cluster) === side.open));
    }
    const partner = other.groups.find((item) => item.cluster === other.open);
    const theirs = new Set(partner ? partner.rows : []);
    const common = one.rows.filter((row) => theirs.has(row));
    const apart = one.rows.filter((row) => !theirs.has(row));
    const mix = one.mix.slice(0, 3).flatMap(([label, count], index) => [index ? ", " : "", bdi(LABELS.names[label]), ` ${count}`]);
    side.title.replaceChildren(
      el("strong", {}, `#${one.cluster}`),
      ` ${plural(one.rows.length, "token")}, ${common.length} of them also in the other side's cluster. `,
      el("span", { class: "labels" }, mix),
    );
    flows(side, one, other);
    cappedList(side.tokens, [...common, ...apart], (row) =>
      el(
        "li",
        { "data-row": row },
        el(
          "button",
          { type: "button", onclick: () => follow(side, row), title: "show this token's cluster on the other side" },
          el("span", { class: theirs.has(row) ? "dot shared" : "dot" }),
          inContext(row, el("span", { class: "tag" }, bdi(labelOf(row)))),
        ),
      ),
    );
  }

  function open(side, cluster, partnerToo) {
    const other = sides[0] === side ? sides[1] : sides[0];
    side.open = cluster;
    const one = side.groups.find((item) => item.cluster === cluster);
    if (!one) return;
    if (partnerToo) {
      const assigned = unpacked[state.layer][Number(other.chooser.value)]();
      const votes = new Map();
      for (const row of one.rows) votes.set(assigned[row], (votes.get(assigned[row]) || 0) + 1);
      votes.delete(-1);
      const best = [...votes].sort((x, y) => y[1] - x[1] || x[0] - y[0])[0];
      other.open = best ? best[0] : null;
    }
    render(side, other);
    render(other, side);
    address("clusters", DATA.layers[state.layer].layer, sides[0].open, sides[1].open);
  }

  function follow(side, row) {
    const other = sides[0] === side ? sides[1] : sides[0];
    open(other, unpacked[state.layer][Number(other.chooser.value)]()[row], false);
  }

  function layout() {
    const { clusterings, direction } = DATA.layers[state.layer];
    for (const [index, side] of sides.entries()) {
      const wanted = side.chooser.dataset.touched ? side.chooser.value : String(index === 0 ? 0 : direction);
      side.chooser.replaceChildren(...clusterings.map((one, position) => el("option", { value: position }, one.name)));
      side.chooser.value = wanted;
      fill(side);
    }
  }

  layerChooser.addEventListener("change", () => {
    state.layer = Number(layerChooser.value);
    layout();
    open(sides[0], sides[0].groups[0].cluster, true);
  });
  for (const side of sides) {
    side.chooser.addEventListener("change", () => {
      side.chooser.dataset.touched = "yes";
      fill(side);
      open(side, side.groups[0].cluster, true);
    });
    side.order.addEventListener("change", () => list(side));
    side.filter.addEventListener("input", () => list(side));
  }
  onVisit("clusters", ([layer, first, second]) => {
    const position = DATA.layers.findIndex((item) => String(item.layer) === layer);
    if (position >= 0) state.layer = position;
    layerChooser.value = String(state.layer);
    layout();
    const has = (side, cluster) => side.groups.some((one) => String(one.cluster) === cluster);
    const start = has(sides[0], first) ? Number(first) : sides[0].groups[Math.floor(sides[0].groups.length / 2)].cluster;
    open(sides[0], start, true);
    if (has(sides[1], second)) open(sides[1], Number(second), false);
  });
}

if (TOKENS && byId("cluster-layer")) clusterBrowser();
