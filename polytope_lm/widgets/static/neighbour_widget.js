/* One token's neighbours by code and by direction, and the bits that differ; asked of the notebook's own kernel. */

const SVG = "http://www.w3.org/2000/svg";

/** Draw which of `width` neurons differ: upwards where the neighbour has them on, downwards where the token has. */
function differenceStrip(neurons, on, width) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${width} 20`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("class", "bits");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${neurons.length} of ${width} bits differ`);
  for (const way of [true, false]) {
    let path = "M0 10";
    neurons.forEach((neuron, index) => {
      if (Boolean(on[index]) === way) path += `M${neuron + 0.5} 10V${way ? 1 : 19}`;
    });
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("class", way ? "on" : "off");
    line.setAttribute("d", path);
    line.setAttribute("stroke", "currentColor");
    line.setAttribute("vector-effect", "non-scaling-stroke");
    picture.append(line);
  }
  return picture;
}

function render({ model, el: root }) {
  root.classList.add("polytope-lm");
  const table = tokenTable(model.get("tokens"));
  const layers = model.get("layers");
  const reads = model.get("reads");
  const unique = `polytope-${Math.random().toString(36).slice(2)}`;
  const input = el("input", {
    type: "search", role: "combobox", "aria-expanded": "false", "aria-controls": unique, autocomplete: "off",
    spellcheck: "false", "aria-label": "Search the tokens",
    placeholder: `search ${plural(table.tokens.token.length, "token")}${reads ? ", or write a text" : ""} …`,
  });
  const options = el("ul", { id: unique, role: "listbox", "aria-label": "Matching tokens", hidden: true });
  const chooser = el(
    "select",
    { "aria-label": "Layer of the neighbours", onchange: () => ask({ ...model.get("query"), layer: Number(chooser.value) }) },
    ...layers.map((name, place) => el("option", { value: place }, name)),
  );
  const read = el(
    "button",
    { type: "button", class: "press", hidden: !reads, onclick: () => input.value.trim() && ask({ text: input.value }) },
    "read this text",
  );
  const chosen = el("p", { class: "chosen", "aria-live": "polite" });
  const cut = el("p", { class: "cut", hidden: true });
  const sides = el("div", { class: "sides" });
  const differ = el("div", { class: "differ", hidden: true, "aria-live": "polite" });
  const note = el("p", { class: "note" });

  function ask(query) {
    box.close();
    model.set("query", { layer: Number(chooser.value), ...query });
    model.save_changes();
  }

  function choose(row) {
    input.value = table.tokens.token[row].trim();
    ask({ row });
  }

  const nothing = reads ? "no token matches; press “read this text”" : "no token matches";
  const box = tokenSearch({ table, input, options, choose, nothing, name: unique });

  /** Show which bits a neighbour has other than the token. */
  function compare(side, rank, width) {
    const row = side.rows[rank];
    const neurons = unpack(side.differ[rank]);
    const on = unpack(side.on[rank]);
    const named = (way) => {
      const some = [...neurons].filter((_, index) => Boolean(on[index]) === way);
      return [plural(some.length, "neuron"), some.length ? `: ${some.slice(0, 12).join(", ")}${some.length > 12 ? " …" : ""}` : ""];
    };
    differ.hidden = false;
    differ.replaceChildren(
      el("p", {}, `${neurons.length} of ${width} bits differ from `, table.line(row)),
      differenceStrip(neurons, on, width),
      el("p", { class: "on" }, "on there, off here: ", ...named(true)),
      el("p", { class: "off" }, "off there, on here: ", ...named(false)),
    );
  }

  function show() {
    const answer = model.get("answer");
    const { query } = answer;
    chooser.value = String(query.layer ?? 0);
    differ.hidden = true;
    cut.hidden = !answer.tokens;
    if (answer.error) {
      note.textContent = answer.error;
      sides.replaceChildren();
      chosen.replaceChildren();
      return;
    }
    note.replaceChildren(el("span", { class: "dot shared" }), ` in both lists. ${answer.note}`);
    if (answer.tokens) {
      chosen.replaceChildren(contextLine(...answer.context));
      cut.replaceChildren(
        ...answer.tokens.map((token, index) =>
          el(
            "button",
            { type: "button", class: "press", "aria-pressed": String(index === answer.token),
              onclick: () => ask({ text: query.text, token: index }) },
            bdi(token),
          ),
        ),
      );
    } else {
      const own = table.labelOf(query.row);
      chosen.replaceChildren(table.line(query.row, own === null ? null : el("span", { class: "tag same" }, bdi(own))));
    }
    const own = answer.tokens ? null : table.labelOf(query.row);
    const sets = answer.sides.map((side) => new Set(side.rows));
    sides.replaceChildren(
      ...answer.sides.map((side, index) =>
        neighbourColumn({
          table, side, rows: side.rows, numbers: side.shown, own, others: sets[1 - index] || new Set(), choose,
          more: (row, rank) => {
            const count = side.differ[rank].shape[0];
            const title = `${count} bits differ: show which`;
            return el("button", { type: "button", class: "press bits-differ", title, onclick: () => compare(side, rank, answer.width) }, `≠ ${count}`);
          },
        }),
      ),
    );
    root.dataset.shown = JSON.stringify(query);
  }

  root.replaceChildren(
    el("div", { class: "search-head" }, el("div", { class: "combo" }, input, options), read, chooser),
    chosen, cut, sides, differ, note,
  );
  model.on("change:answer", show);
  show();
  return () => model.off("change:answer", show);
}

export default { render };
