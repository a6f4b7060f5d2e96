"use strict";
/* Crossings along t: one prompt pair at a time, a strip for every layer. */

function crossingsBrowser() {
  const chooser = byId("crossing-pair");
  const select = (index) => {
    for (const panel of document.querySelectorAll("[data-pair]")) panel.hidden = panel.dataset.pair !== String(index);
    drawVisible(document.querySelector(`[data-pair="${index}"]`));
  };
  chooser.addEventListener("change", () => {
    address("crossings", chooser.value);
    select(chooser.value);
  });
  onVisit("crossings", ([pair]) => {
    if (pair && [...chooser.options].some((option) => option.value === pair)) chooser.value = pair;
    select(chooser.value);
  });
}

if (byId("crossing-pair")) crossingsBrowser();
