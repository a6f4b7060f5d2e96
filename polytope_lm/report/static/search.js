"use strict";
/* One token's neighbourhoods by code and by direction, side by side, in context. */

function searchTokens(query) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  const ranks = [[], [], [], []];
  for (let row = 0; row < TOKENS.token.length; row += 1) {
    const token = TOKENS.token[row].trim().toLowerCase();
    if (token === wanted) ranks[0].push(row);
    else if (token.startsWith(wanted)) ranks[1].push(row);
    else if (token.includes(wanted)) ranks[2].push(row);
    else if ((TOKENS.left[row] + TOKENS.token[row]).toLowerCase().endsWith(wanted)) ranks[0].push(row);
    else if (`${TOKENS.left[row]}${TOKENS.token[row]}${TOKENS.right[row]}`.toLowerCase().includes(wanted)) {
      ranks[3].push(row);
    }
  }
  return ranks.flat();
}

function neighbourhoods() {
  const state = { layer: 0, row: TOKENS.example };
  const stored = DATA.layers.map((layer) =>
    lazily(() =>
      layer.neighbours.map((side) => ({ ...side, index: unpack(side.index), shown: unpack(side.shown) })),
    ),
  );
  const input = byId("search");
  const options = byId("search-options");
  const chooser = byId("search-layer");
  const LIMIT = 100;
  let active = -1;

  function column(side, others) {
    const rows = [...side.index.row(state.row)];
    const numbers = side.shown.row(state.row);
    const own = labelOf(state.row);
    const items = rows.map((row, rank) => {
      if (row < 0) return null;
      const shared = others.has(row);
      const same = labelOf(row) === own;
      const distance = fixed(numbers[rank] * side.unit, side.digits);
      const note = `${side.measure} ${distance}; ${TOKENS.label_name}: ${labelOf(row)}`;
      const tag = [
        el("span", { class: "distance" }, distance),
        el("span", { class: same ? "tag same" : "tag" }, bdi(labelOf(row))),
      ];
      const button = el(
        "button",
        { type: "button", title: note, onclick: () => choose(row) },
        el("span", { class: shared ? "dot shared" : "dot", title: shared ? "in both lists" : null }),
        inContext(row, tag),
      );
      return el("li", {}, button);
    });
    const known = rows.filter((row) => row >= 0);
    const agreeing = known.filter((row) => labelOf(row) === own).length;
    return el(
      "section",
      { class: "side", "data-side": side.key, "aria-label": `neighbours by ${side.name}` },
      el("h3", {}, bdi(side.name), el("small", {}, `${agreeing} of ${known.length} have its label`)),
      el("p", { class: "measure" }, `${side.measure}, nearest first`),
      el("ol", {}, items),
    );
  }

  function render() {
    const sides = stored[state.layer]();
    const sets = sides.map((side) => new Set(side.index.row(state.row)));
    byId("search-token").replaceChildren(
      inContext(state.row, el("span", { class: "tag same" }, bdi(labelOf(state.row)))),
    );
    byId("search-sides").replaceChildren(
      ...sides.map((side, index) => column(side, sets[sides.length - 1 - index] || new Set())),
    );
  }

  function choose(row) {
    state.row = row;
    close();
    input.value = TOKENS.token[row].trim();
    address("overview", DATA.layers[state.layer].layer, row);
    render();
  }

  function close() {
    options.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  function suggest() {
    const found = searchTokens(input.value);
    const option = (row) =>
      el(
        "li",
        {
          role: "option",
          id: `option-${row}`,
          "data-row": row,
          "aria-selected": "false",
          onmousedown: (event) => {
            event.preventDefault();
            choose(row);
          },
        },
        inContext(row, el("span", { class: "tag" }, bdi(labelOf(row)))),
      );
    options.replaceChildren(...found.slice(0, LIMIT).map(option));
    const rest = `${LIMIT} of ${found.length} shown; type more to narrow them down`;
    if (!found.length) options.append(el("li", { class: "none" }, "no compared token matches"));
    else if (found.length > LIMIT) options.append(el("li", { class: "none" }, rest));
    options.hidden = !input.value.trim();
    input.setAttribute("aria-expanded", String(!options.hidden));
    active = -1;
  }

  function move(step) {
    const all = [...options.querySelectorAll("[role=option]")];
    if (!all.length) return;
    active = (active + step + all.length) % all.length;
    all.forEach((option, index) => option.setAttribute("aria-selected", String(index === active)));
    all[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", all[active].id);
  }

  input.addEventListener("input", suggest);
  input.addEventListener("focus", () => input.select());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (options.hidden) suggest();
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter") {
      const rows = [...options.querySelectorAll("[role=option]")];
      if (rows.length) choose(Number(rows[Math.max(active, 0)].dataset.row));
    } else if (event.key === "Escape") close();
  });
  chooser.addEventListener("change", () => {
    state.layer = Number(chooser.value);
    address("overview", DATA.layers[state.layer].layer, state.row);
    render();
  });
  onVisit("overview", ([layer, row]) => {
    const position = DATA.layers.findIndex((item) => String(item.layer) === layer);
    if (position >= 0) state.layer = position;
    if (/^\d+$/.test(row || "") && Number(row) < TOKENS.token.length) state.row = Number(row);
    chooser.value = String(state.layer);
    render();
  });
}

if (TOKENS && byId("search")) neighbourhoods();
