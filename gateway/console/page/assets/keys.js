// Keys of a single letter can be switched off: some people speak to their machine.
"use strict";
(() => {
  const on = document.getElementById("keys-on");
  on.checked = localStorage.getItem("keys") !== "no";
  on.addEventListener("change", () => localStorage.setItem("keys", on.checked ? "yes" : "no"));
})();
