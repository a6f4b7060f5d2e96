"use strict";
/* One token's neighbourhoods by code and by direction, side by side, in context. */

function neighbourhoods() {
  const state = { layer: 0, row: TOKENS.example };
  const stored = DATA.layers.map((layer) =>
    lazily(() =>
      layer.neighbours.map((side) => ({ ...side, index: unpack(side.index), shown: unpack(side.shown) })),
    ),
  );
  const input = byId("search");
  const chooser = byId("search-layer");

  function render() {
    const sides = stored[state.layer]();
    const sets = sides.map((side) => new Set(side.index.row(state.row)));
    const own = labelOf(state.row);
    byId("search-token").replaceChildren(inContext(state.row, el("span", { class: "tag same" }, bdi(own))));
    byId("search-sides").replaceChildren(
      ...sides.map((side, index) =>
        neighbourColumn({
          table: TABLE,
          side,
          rows: [...side.index.row(state.row)],
          numbers: side.shown.row(state.row),
          own,
          others: sets[sides.length - 1 - index] || new Set(),
          choose,
        }),
      ),
    );
  }

  function choose(row) {
    state.row = row;
    box.close();
    input.value = TOKENS.token[row].trim();
    address("overview", DATA.layers[state.layer].layer, row);
    render();
  }

  const nothing = "no compared token matches";
  const box = tokenSearch({ table: TABLE, input, options: byId("search-options"), choose, nothing });
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
