"use strict";
/* What the page was written with, and its tokens in context. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const TOKENS = DATA.tokens;
const TABLE = TOKENS ? tokenTable(TOKENS) : null;
const LABELS = TOKENS ? { names: TOKENS.label_values, of: lazily(() => unpack(TOKENS.label)) } : null;
const labelOf = (row) => (TABLE ? TABLE.labelOf(row) : null);
const inContext = (row, extra) => TABLE.line(row, extra);
