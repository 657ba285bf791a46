// Now: the list follows the warnings, with trends, sound and the wall screen.
"use strict";
(() => {
  const { t, number, get, follow, acts, morph } = console_;
  const active = () => new Set([...document.querySelectorAll("article.warning.extreme.active")].map((w) => w.dataset.id));
  let known = active(), rows = new Set([...document.querySelectorAll("article.warning")].map((w) => w.id));

  const sound = document.getElementById("sound");
  sound.checked = localStorage.getItem("sound") === "yes";
  sound.addEventListener("change", () => {
    localStorage.setItem("sound", sound.checked ? "yes" : "no");
    if (sound.checked) ring();
  });
  // A browser lets a page sound only after somebody has touched it: until then the
  // page says so.
  let audio = null;
  function allowed() {
    audio ??= new AudioContext();
    const tell = () => (document.getElementById("sound-hint").hidden = !sound.checked || audio.state === "running");
    audio.onstatechange = tell;
    tell();
  }
  if (sound.checked) allowed();
  for (const sign of ["pointerdown", "keydown"]) addEventListener(sign, () => sound.checked && audio?.state === "suspended" && audio.resume());
  function ring() {
    allowed();
    for (const [at, pitch] of [[0, 880], [0.25, 660], [0.5, 880]]) {
      const tone = audio.createOscillator(), volume = audio.createGain();
      tone.frequency.value = pitch;
      volume.gain.value = 0.2;
      tone.connect(volume).connect(audio.destination);
      tone.start(audio.currentTime + at);
      tone.stop(audio.currentTime + at + 0.2);
    }
  }

  // Trends of the last three hours, with the threshold where it is in reach.
  let read = 0;
  const svg = (name, within, attributes) => {
    const element = within.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  function spark(place, { points, threshold }) {
    place.replaceChildren();
    if (points.length < 2) return;
    const ys = points.map((p) => p[1]), from = points[0][0], to = points.at(-1)[0];
    let low = Math.min(...ys), high = Math.max(...ys);
    const near = threshold !== undefined && Math.abs(threshold - ys.at(-1)) <= 2 * (high - low || Math.abs(high) || 1);
    if (near) [low, high] = [Math.min(low, threshold), Math.max(high, threshold)];
    const y = (v) => 19 - ((v - low) / (high - low || 1)) * 18;
    const picture = svg("svg", place, { viewBox: "0 0 100 20", preserveAspectRatio: "none", role: "img", "aria-label": t(`xu hướng: từ ${number.format(ys[0])} đến ${number.format(ys.at(-1))}`, `trend: from ${number.format(ys[0])} to ${number.format(ys.at(-1))}`) });
    svg("path", picture, { d: points.map((p, i) => `${i ? "L" : "M"}${((p[0] - from) / (to - from)) * 100} ${y(p[1])}`).join(""), "vector-effect": "non-scaling-stroke" });
    if (near) svg("line", picture, { x1: 0, x2: 100, y1: y(threshold), y2: y(threshold), "vector-effect": "non-scaling-stroke" });
  }
  async function sparks() {
    const bare = [...document.querySelectorAll(".spark:empty")].slice(0, 24).length > 0;
    if (Date.now() - read < (bare ? 20000 : 60000)) return;
    read = Date.now();
    try {
      const { trends } = await get("/api/v1/trends");
      for (const [id, trend] of Object.entries(trends)) {
        const place = document.getElementById("t-" + id);
        if (place) spark(place, trend);
      }
    } catch { /* no history, no trend */ }
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
  const asked = new URLSearchParams(location.search).get("kiosk"); // a wall has no mouse
  // A wall has nobody who scrolls: what does not fit is shown in turn.
  setInterval(() => {
    if (!document.documentElement.classList.contains("kiosk")) return;
    const rest = document.documentElement.scrollHeight - innerHeight - scrollY;
    scrollTo(0, rest > 20 ? scrollY + Math.min(rest, innerHeight * 0.7) : 0);
  }, 12000);
  if (asked ? asked !== "no" : localStorage.getItem("kiosk") === "yes") kiosk(true);
  document.getElementById("kiosk").addEventListener("click", () => {
    const on = !document.documentElement.classList.contains("kiosk");
    kiosk(on);
    if (on) document.documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) document.exitFullscreen();
  });
})();
