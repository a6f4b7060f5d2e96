"use strict";
/* Tabs after the ARIA pattern: arrows, Home and End move, and the address (#clusters/8/17) names what is shown. */

const tabs = [...document.querySelectorAll("[role=tab]")];
const visitors = {};

/** Call `open(parts)` when the tab is opened by an address such as #name/parts. */
const onVisit = (name, open) => (visitors[name] = open);

function address(...parts) {
  history.replaceState(null, "", "#" + parts.join("/"));
}

function show(name, parts = [], { focus = false } = {}) {
  const chosen = tabs.find((tab) => tab.dataset.tab === name) || tabs[0];
  for (const tab of tabs) {
    const selected = tab === chosen;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !selected;
  }
  if (focus) chosen.focus();
  document.body.dataset.tab = chosen.dataset.tab;
  if (visitors[chosen.dataset.tab]) visitors[chosen.dataset.tab](parts);
  drawVisible(byId(chosen.getAttribute("aria-controls"))); // when the room that the rest leaves is known
}

function followAddress() {
  const [name, ...parts] = location.hash.slice(1).split("/");
  show(name, parts);
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    address(tab.dataset.tab);
    show(tab.dataset.tab);
    scrollTo(0, 0);
  });
  tab.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = tabs[(moves[event.key] + tabs.length) % tabs.length];
    address(next.dataset.tab);
    show(next.dataset.tab, [], { focus: true });
  });
}
addEventListener("hashchange", followAddress);
