"use strict";
/* A search box over tokens in context, and a token's neighbours on two sides. */

/** Wire a search box: suggestions while typing, arrows, Enter, Escape. `choose(row)` is called with what was picked. */
function tokenSearch({ table, input, options, choose, nothing, name = "option" }) {
  const LIMIT = 100;
  let active = -1;

  function close() {
    options.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  function suggest() {
    const found = table.search(input.value);
    const option = (row) =>
      el(
        "li",
        {
          role: "option",
          id: `${name}-${row}`,
          "data-row": row,
          "aria-selected": "false",
          onmousedown: (event) => {
            event.preventDefault();
            choose(row);
          },
        },
        table.line(row, table.labelName ? el("span", { class: "tag" }, bdi(table.labelOf(row))) : null),
      );
    options.replaceChildren(...found.slice(0, LIMIT).map(option));
    const rest = `${LIMIT} of ${found.length} shown; type more to narrow them down`;
    if (!found.length) options.append(el("li", { class: "none" }, nothing));
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
  return { close };
}

/** One side's neighbours, nearest first: `rows`, what is `shown` of each in multiples of `unit`, `digits` of it. */
function neighbourColumn({ table, side, rows, numbers, own, others, choose, more }) {
  const items = rows.map((row, rank) => {
    if (row < 0) return null;
    const shared = others.has(row);
    const distance = fixed(numbers[rank] * side.unit, side.digits);
    const label = table.labelName ? `; ${table.labelName}: ${table.labelOf(row)}` : "";
    const tag = [el("span", { class: "distance" }, distance)];
    if (table.labelName) {
      tag.push(el("span", { class: table.labelOf(row) === own ? "tag same" : "tag" }, bdi(table.labelOf(row))));
    }
    const button = el(
      "button",
      { type: "button", title: `${side.measure} ${distance}${label}`, onclick: () => choose(row), "data-row": row },
      el("span", { class: shared ? "dot shared" : "dot", title: shared ? "in both lists" : null }),
      table.line(row, tag),
    );
    return el("li", {}, button, more ? more(row, rank) : null);
  });
  const known = rows.filter((row) => row >= 0);
  const agreeing = known.filter((row) => table.labelOf(row) === own).length;
  return el(
    "section",
    { class: "side", "data-side": side.key, "aria-label": `neighbours by ${side.name}` },
    el(
      "h3",
      {},
      bdi(side.name),
      table.labelName ? el("small", {}, `${agreeing} of ${known.length} have its label`) : null,
    ),
    el("p", { class: "measure" }, `${side.measure}, nearest first`),
    el("ol", {}, items),
  );
}
