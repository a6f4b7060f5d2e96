"use strict";
/* Runs last: everything is wired, show what the address asks for. */
document.documentElement.classList.add("ready");
followAddress();
