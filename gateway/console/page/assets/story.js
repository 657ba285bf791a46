// A warning's page: its chart, and its story as it goes on.
"use strict";
(() => {
  const { follow, acts, morph, keys } = console_;
  const story = () => document.getElementById("story");
  const place = document.querySelector(".chart");

  function chart() {
    if (!place) return;
    const start = Date.parse(place.dataset.start) / 1e3;
    const end = story().dataset.state === "cleared" ? Date.parse(place.dataset.at) / 1e3 : Date.now() / 1e3;
    const around = Math.max(60, (end - start) * 0.25);
    const moments = [...document.querySelectorAll(".history li[data-at]")].map((li) => ({
      at: Date.parse(li.dataset.at) / 1e3, colour: li.dataset.state === "cleared" ? "well" : li.dataset.severity === "none" ? "mute" : li.dataset.severity,
      name: li.querySelector(".n").textContent,
    }));
    chart_.load(place, start - around, Math.min(end + around, Date.now() / 1e3), moments);
  }
  let n = story().dataset.n;
  const soon = follow(async () => {
    await morph(location.pathname, ["drill", "story", "history", "deliveries"]);
    if (story().dataset.n === n) return;
    n = story().dataset.n;
    chart();
    map_?.refresh();
  });
  acts(soon);
  chart();
  document.addEventListener("click", (event) => event.target.closest("#print") && print());
  keys((event) => event.key === "p" && (print(), true));
})();
