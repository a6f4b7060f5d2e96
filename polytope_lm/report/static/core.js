"use strict";
/* Helpers. Corpus text only ever enters the page through textContent, inside <bdi>. */

const DATA = JSON.parse(document.getElementById("data").textContent);

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
const byId = (id) => document.getElementById(id);
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

const TOKENS = DATA.tokens;
const LABELS = TOKENS ? { names: TOKENS.label_values, of: lazily(() => unpack(TOKENS.label)) } : null;
const labelOf = (row) => (LABELS ? LABELS.names[LABELS.of()[row]] : null);

/** One token in its context, the token in the middle of the line. */
function inContext(row, extra) {
  return el(
    "span",
    { class: "kwic" },
    el("span", { class: "left" }, el("span", { class: "clip" }, bdi(TOKENS.left[row]))),
    el("mark", {}, bdi(TOKENS.token[row])),
    el("span", { class: "right" }, bdi(TOKENS.right[row])),
    ...[extra || null].flat(),
  );
}
