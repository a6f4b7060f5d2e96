"use strict";
/* Tables marked `sortable` sort by a click on a column's head: first the largest, then the smallest, then as it was. */

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].innerText.trim();
    const number = Number.parseFloat(text.replaceAll(",", "").replaceAll("\u2212", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (x, y) => {
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x !== typeof y) return typeof x === "number" ? 1 : -1;
    return x.localeCompare(y);
  };
  heads.forEach((head, column) => {
    head.dataset.sort = "";
    const press = () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort") || "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next !== "none") head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const rows = original.map((row) => [row, value(row, column)]);
      if (next !== "none") rows.sort((x, y) => sign * compare(x[1], y[1]));
      body.append(...rows.map(([row]) => row));
    };
    head.replaceChildren(el("button", { type: "button", onclick: press }, ...head.childNodes));
  });
}

for (const table of document.querySelectorAll("table.sortable")) sortable(table);
