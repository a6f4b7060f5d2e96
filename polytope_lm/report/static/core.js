"use strict";
/* Helpers of the page and of the widgets. Corpus text only ever enters through textContent, inside <bdi>. */

/** Make an element: el("p", {class: "x"}, child, "text"). Strings become text nodes. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

const bdi = (text) => el("bdi", {}, text);
const fixed = (number, digits = 2) => (Number.isFinite(number) ? number.toFixed(digits) : "–");
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Decode {type, shape, data}: a little-endian array in base64. Its `row(i)` is a view. */
function unpack(packed) {
  const kinds = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };
  const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
  const array = new kinds[packed.type](bytes.buffer);
  const width = packed.shape[1] || 1;
  array.row = (index) => array.subarray(index * width, (index + 1) * width);
  return array;
}

/** Unpack on first use only: a page with many layers opens as fast as one with a single layer. */
function lazily(make) {
  let made = null;
  return () => (made === null ? (made = make()) : made);
}

/** Show `items` through `render`, `step` at a time, with a button for the next ones. */
function cappedList(list, items, render, step = 50) {
  list.replaceChildren();
  let shown = 0;
  const more = el("li", { class: "more" });
  const next = () => {
    more.remove();
    const upTo = Math.min(items.length, shown + step);
    for (; shown < upTo; shown += 1) list.append(render(items[shown]));
    if (shown < items.length) {
      const label = `show ${Math.min(step, items.length - shown)} more of ${items.length - shown}`;
      more.replaceChildren(el("button", { type: "button", onclick: next }, label));
      list.append(more);
    }
  };
  next();
}

/** A token in its context, the token in the middle of the line. */
function contextLine(left, token, right, extra) {
  return el(
    "span",
    { class: "kwic" },
    el("span", { class: "left" }, el("span", { class: "clip" }, bdi(left))),
    el("mark", {}, bdi(token)),
    el("span", { class: "right" }, bdi(right)),
    ...[extra || null].flat(),
  );
}

/** Tokens in context, as columns, with their labels if they have any: what can be looked up and searched. */
function tokenTable(tokens) {
  const labels = tokens.label ? lazily(() => unpack(tokens.label)) : null;
  const lower = lazily(() => ({
    token: tokens.token.map((token) => token.trim().toLowerCase()),
    line: tokens.token.map((token, row) => `${tokens.left[row]}${token}${tokens.right[row]}`.toLowerCase()),
  }));

  /** Rows that match: the token itself or the text up to it, its beginning, a part of it, its context. */
  function search(query) {
    const wanted = query.trim().toLowerCase();
    if (!wanted) return [];
    const ranks = [[], [], [], []];
    const { token, line } = lower();
    for (let row = 0; row < token.length; row += 1) {
      if (token[row] === wanted) ranks[0].push(row);
      else if (token[row].startsWith(wanted)) ranks[1].push(row);
      else if (token[row].includes(wanted)) ranks[2].push(row);
      else if (line[row].includes(wanted)) {
        const before = tokens.left[row] + tokens.token[row];
        ranks[before.toLowerCase().endsWith(wanted) ? 0 : 3].push(row);
      }
    }
    return ranks.flat();
  }

  return {
    tokens,
    search,
    labelName: labels ? tokens.label_name : null,
    labelOf: (row) => (labels ? tokens.label_values[labels()[row]] : null),
    line: (row, extra) => contextLine(tokens.left[row], tokens.token[row], tokens.right[row], extra),
  };
}
