"use strict";
/* The page prints whole: every tab, every folded part, every figure, the maps as they are. */

const unfolded = [];

function prepareToPrint() {
  document.body.classList.add("printing");
  for (const folded of document.querySelectorAll("details:not([open])")) {
    unfolded.push(folded);
    folded.open = true;
  }
  for (const visit of Object.values(visitors)) visit([]);
  for (const target of document.querySelectorAll("[data-figure]")) {
    draw(target, DATA.figures[target.dataset.figure], target.clientWidth);
  }
}

function putBack() {
  document.body.classList.remove("printing");
  for (const folded of unfolded.splice(0)) folded.open = false;
  for (const [target, figure] of drawn) draw(target, figure);
  followAddress();
}

addEventListener("beforeprint", prepareToPrint);
addEventListener("afterprint", putBack);
