/* A slider over t: which boundaries are crossed so far in each layer, which were the last, and the next token. */

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** How many of ascending `values` are at most `limit`. */
function upTo(values, limit) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

function render({ model, el: root }) {
  root.classList.add("polytope-lm");
  const data = model.get("data");
  const layers = data.layers.map((layer) => ({ ...layer, t: unpack(layer.t), neuron: unpack(layer.neuron), on: unpack(layer.on) }));
  const following = data.next && { ...data.next, t: unpack(data.next.t), probability: unpack(data.next.probability) };
  const total = layers.reduce((sum, layer) => sum + layer.t.length, 0);
  const slider = el("input", { type: "range", min: 0, max: 1, step: 0.001, value: model.get("t"), "aria-label": "t, the place on the path" });
  const place = el("output", { class: "place" });
  const summary = el("p", { class: "chosen", "aria-live": "polite" });
  const last = el("p", { class: "last" });
  const rows = layers.map((layer) => {
    const ticks = (way) => {
      let path = "M0 10";
      for (let i = 0; i < layer.t.length; i += 1) if (Boolean(layer.on[i]) === way) path += `M${(1000 * layer.t[i]).toFixed(1)} 10V${way ? 1 : 19}`;
      return svg("path", { d: path, class: way ? "on" : "off", stroke: "currentColor", "vector-effect": "non-scaling-stroke" });
    };
    const ahead = svg("rect", { x: 0, y: 0, width: 1000, height: 20, class: "ahead-of-t" });
    const cursor = svg("path", { d: "M0 0V20", class: "cursor", "vector-effect": "non-scaling-stroke" });
    const picture = svg("svg", { viewBox: "0 0 1000 20", preserveAspectRatio: "none", class: "ticks", role: "img",
      "aria-label": `layer ${layer.layer}: ${layer.t.length} crossings` }, ticks(true), ticks(false), ahead, cursor);
    const count = el("span", { class: "crossed" });
    const missed = layer.missed === "0" ? "none missed" : `may be missing: ${layer.missed}`;
    const line = el("li", { title: `codes of the ends differ in ${layer.differ} of ${layer.width} bits; ${missed}`, "data-layer": layer.layer },
      el("span", { class: "layer-name" }, `layer ${layer.layer}`), picture, count);
    return { layer, ahead, cursor, count, line };
  });

  function show() {
    const t = Number(slider.value);
    place.textContent = `t = ${t.toFixed(3)}`;
    let crossed = 0;
    const recent = [];
    for (const { layer, ahead, cursor, count } of rows) {
      const done = upTo(layer.t, t);
      crossed += done;
      ahead.setAttribute("x", 1000 * t);
      ahead.setAttribute("width", 1000 * (1 - t));
      cursor.setAttribute("d", `M${1000 * t} 0V20`);
      count.textContent = `${done} of ${layer.t.length}`;
      for (let i = Math.max(0, done - 4); i < done; i += 1) recent.push([layer.t[i], layer.layer, layer.neuron[i], layer.on[i]]);
    }
    const parts = [`${crossed.toLocaleString("en")} of ${plural(total, "boundary").replace("boundarys", "boundaries")} crossed`];
    if (following) {
      const at = Math.max(0, upTo(following.t, t + 1e-6) - 1);
      const run = following.stretches.filter((one) => one.start <= t + 1e-6).pop() || following.stretches[0];
      parts.push("; likeliest next token ", el("span", { class: "next" }, el("mark", {}, bdi(run.token))), ` (p ${fixed(following.probability[at])})`);
    }
    summary.replaceChildren(...parts);
    recent.sort((a, b) => b[0] - a[0]);
    last.replaceChildren(
      recent.length ? "crossed last: " : "no boundary is crossed yet",
      ...recent.slice(0, 5).map(([, layer, neuron, on]) => el("span", { class: on ? "on flip" : "off flip" }, `L${layer}.${neuron} ${on ? "on" : "off"}`)),
    );
  }

  slider.addEventListener("input", () => {
    model.set("t", Number(slider.value));
    model.save_changes();
    show();
  });
  const moved = () => {
    if (Number(slider.value) !== model.get("t")) slider.value = model.get("t");
    show();
  };
  model.on("change:t", moved);
  const band = following && el("p", { class: "band-of-tokens" }, "next tokens along the path: ",
    ...following.stretches.flatMap((one, index) => [index ? " → " : "",
      el("button", { type: "button", class: "next", title: `t = ${one.start.toFixed(3)} to ${one.end.toFixed(3)}`, onclick: () => { slider.value = one.start; slider.dispatchEvent(new Event("input")); } }, el("mark", {}, bdi(one.token)))]));
  root.replaceChildren(
    el("p", { class: "pair" }, bdi(data.prompts[0]), el("span", { class: "arrow" }, " → "), bdi(data.prompts[1]), el("small", {}, ` ${data.what}`)),
    el("div", { class: "slide" }, slider, place),
    summary,
    el("ol", { class: "strips" }, rows.map((row) => row.line)),
    last,
    band,
  );
  show();
  return () => model.off("change:t", moved);
}

export default { render };
