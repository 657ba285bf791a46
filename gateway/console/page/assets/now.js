// Now: the list follows the warnings, with trends, sound and the wall screen.
"use strict";
(() => {
  const { t, get, follow, acts, morph } = console_;
  const active = () => new Set([...document.querySelectorAll("article.warning.extreme.active")].map((w) => w.dataset.id));
  let known = active(), rows = new Set([...document.querySelectorAll("article.warning")].map((w) => w.id));

  const sound = document.getElementById("sound");
  sound.checked = localStorage.getItem("sound") === "yes";
  sound.addEventListener("change", () => {
    localStorage.setItem("sound", sound.checked ? "yes" : "no");
    if (sound.checked) ring();
  });
  let audio = null;
  function ring() {
    audio ??= new AudioContext();
    for (const [at, pitch] of [[0, 880], [0.25, 660], [0.5, 880]]) {
      const tone = audio.createOscillator(), volume = audio.createGain();
      tone.frequency.value = pitch;
      volume.gain.value = 0.2;
      tone.connect(volume).connect(audio.destination);
      tone.start(audio.currentTime + at);
      tone.stop(audio.currentTime + at + 0.2);
    }
  }

  // Trends of the first dozen, over three hours.
  async function sparks() {
    for (const place of [...document.querySelectorAll(".spark")].slice(0, 12)) {
      const { device, kind, value } = place.dataset;
      const now = Date.now();
      if (now - (place.drawn ?? 0) < 55000) continue;
      place.drawn = now;
      try {
        const { points } = await get(`/api/v1/devices/${encodeURIComponent(device)}/series?kind=${encodeURIComponent(kind)}&value=${encodeURIComponent(value)}&from=${new Date(now - 3 * 3600e3).toISOString()}&to=${new Date(now).toISOString()}&points=180`);
        if (points.length < 2) continue;
        const ys = points.map((p) => p[1]), low = Math.min(...ys), high = Math.max(...ys), first = points[0][0], last = points.at(-1)[0];
        const d = points.map((p, i) => `${i ? "L" : "M"}${((p[0] - first) / (last - first)) * 100} ${19 - ((p[1] - low) / (high - low || 1)) * 18}`).join("");
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        svg.setAttribute("viewBox", "0 0 100 20");
        svg.setAttribute("preserveAspectRatio", "none");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", t("xu hướng 3 giờ", "trend of 3 hours"));
        const path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
        path.setAttribute("d", d);
        path.setAttribute("vector-effect", "non-scaling-stroke");
        place.replaceChildren(svg);
      } catch { /* no history, no trend */ }
    }
  }

  const soon = follow(async () => {
    await morph("/", ["drill", "list"]);
    const now = active();
    if (sound.checked && [...now].some((id) => !known.has(id))) ring();
    known = now;
    const after = [...document.querySelectorAll("article.warning")];
    for (const w of after) if (!rows.has(w.id)) w.classList.add("fresh");
    rows = new Set(after.map((w) => w.id));
    map_?.refresh();
    sparks();
  });
  acts(soon);
  sparks();
  document.getElementById("list").addEventListener("focusin", (event) => {
    const w = event.target.closest("article.warning");
    if (w) map_?.show(w.dataset.device);
  });

  const kiosk = (on) => {
    document.documentElement.classList.toggle("kiosk", on);
    localStorage.setItem("kiosk", on ? "yes" : "no");
    setTimeout(() => map_?.map.invalidateSize(), 100);
  };
  if (localStorage.getItem("kiosk") === "yes") kiosk(true);
  document.getElementById("kiosk").addEventListener("click", () => {
    const on = !document.documentElement.classList.contains("kiosk");
    kiosk(on);
    if (on) document.documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) document.exitFullscreen();
  });
})();
