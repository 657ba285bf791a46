// Charts: mean with its range, thresholds as dashed lines, moments of change as
// upright ones.
"use strict";

const chart_ = (() => {
  const { t, number, get } = console_;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const zone = "Asia/Ho_Chi_Minh";

  const called = (fact) => (fact === "threshold" ? t("ngưỡng", "threshold") : fact.replace(/^alarm(\d*)_.*/, (_, n) => `${t("báo động", "alarm")} ${n}`));

  // Where readings are missing the line is broken.
  function columns(points) {
    const gaps = points.slice(1).map((p, i) => p[0] - points[i][0]).sort((a, b) => a - b);
    const usual = gaps[Math.floor(gaps.length / 2)] ?? 1;
    const out = [[], [], [], []];
    points.forEach((p, i) => {
      if (i && p[0] - points[i - 1][0] > 6 * usual) [points[i - 1][0] + usual, null, null, null].forEach((v, c) => out[c].push(v));
      p.forEach((v, c) => out[c].push(v));
    });
    return out;
  }

  function draw(place, points, from, to, moments) {
    const { title, unit } = place.dataset;
    const thresholds = JSON.parse(place.dataset.thresholds ?? "[]") ?? [];
    place.plot?.destroy();
    place.querySelector(".empty")?.remove();
    if (!points.length) {
      place.append(Object.assign(document.createElement("p"), { className: "empty", textContent: t("Không có số đo trong khoảng này.", "No readings in this time.") }));
      return;
    }
    const mine = points.flatMap((p) => [p[2], p[3]]);
    const low = Math.min(...mine), high = Math.max(...mine);
    // A threshold far away would flatten the curve: those near, and the next above.
    const reach = Math.max(high - low, Math.abs(high) * 0.2);
    const shown = thresholds.filter((h, i) => (h.value >= low - reach && h.value <= high + reach) || (h.value > high && !thresholds.slice(0, i).some((o) => o.value > high)));
    const lines = (u) => {
      const { ctx } = u, { left, top, width, height } = u.bbox;
      ctx.save();
      ctx.textAlign = "left";
      ctx.font = `${12 * devicePixelRatio}px system-ui`;
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      for (const h of shown) {
        const y = u.valToPos(h.value, "y", true);
        ctx.strokeStyle = ctx.fillStyle = colour("extreme");
        ctx.beginPath();
        ctx.moveTo(left, y);
        ctx.lineTo(left + width, y);
        ctx.stroke();
        ctx.fillText(`${called(h.name)} ${number.format(h.value)}`, left + 6, y - 5);
      }
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      const named = []; // where names stand, so that they do not lie on each other
      for (const m of moments ?? []) {
        const x = u.valToPos(m.at, "x", true);
        if (x < left || x > left + width) continue;
        ctx.strokeStyle = ctx.fillStyle = colour(m.colour);
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, top + height);
        ctx.stroke();
        const row = [0, 1, 2, 3].find((r) => !named.some((n) => n.row === r && Math.abs(n.x - x) < 28 * devicePixelRatio)) ?? 0;
        named.push({ row, x });
        ctx.fillText(m.name, x + 4, top + (14 + 14 * row) * devicePixelRatio);
      }
      ctx.restore();
    };
    const axis = { stroke: colour("soft"), grid: { stroke: colour("edge"), width: 0.5 }, ticks: { stroke: colour("edge") } };
    const value = (_, v) => (v == null ? "–" : `${number.format(v)} ${unit}`);
    const levels = shown.map((h) => h.value);
    place.plot = new uPlot(
      {
        width: place.clientWidth || 600, height: 260, tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), zone),
        scales: { x: { min: from, max: to }, y: { range: (_, a, b) => { const lo = Math.min(a, ...levels), hi = Math.max(b, ...levels), pad = (hi - lo || 1) * 0.08; return [lo - pad, hi + pad]; } } },
        axes: [{ ...axis, space: 80, values: (_, ticks) => ticks.map((s) => new Intl.DateTimeFormat("vi", { timeZone: zone, ...(to - from > 2 * 86400 ? { day: "2-digit", month: "2-digit" } : { hour: "2-digit", minute: "2-digit", ...(to - from < 600 ? { second: "2-digit" } : {}) }) }).format(s * 1e3)) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((v) => number.format(v)) }],
        series: [
          { label: t("lúc", "at"), value: (_, s) => (s == null ? "–" : console_.clock.format(s * 1e3)) },
          { label: title, stroke: colour("link"), width: 2, value, points: { show: points.length < 60 } },
          { label: t("thấp nhất", "lowest"), stroke: "transparent", value, points: { show: false } },
          { label: t("cao nhất", "highest"), stroke: "transparent", value, points: { show: false } },
        ],
        bands: [{ series: [3, 2], fill: colour("link") + "33" }],
        hooks: { draw: [lines] },
      },
      columns(points), place,
    );
  }

  async function load(place, from, to, moments) {
    const { device, kind, value } = place.dataset;
    try {
      const answer = await get(`/api/v1/devices/${encodeURIComponent(device)}/series?kind=${encodeURIComponent(kind)}&value=${encodeURIComponent(value)}&from=${new Date(from * 1e3).toISOString()}&to=${new Date(to * 1e3).toISOString()}`);
      draw(place, answer.points, from, to, moments);
    } catch (error) {
      place.plot?.destroy();
      place.append(Object.assign(document.createElement("p"), { className: "empty", textContent: error.message }));
    }
  }

  function ranges(place) {
    const row = Object.assign(document.createElement("div"), { className: "ranges" });
    row.append(Object.assign(document.createElement("b"), { textContent: place.dataset.title }));
    for (const [name, seconds] of [[t("1 giờ", "1 h"), 3600], [t("Ngày", "Day"), 86400], [t("Tuần", "Week"), 7 * 86400], [t("Tháng", "Month"), 31 * 86400]]) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        for (const other of row.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
        load(place, Date.now() / 1e3 - seconds, Date.now() / 1e3);
      });
      row.append(button);
    }
    place.append(row);
    return row;
  }

  addEventListener("resize", () => {
    for (const place of document.querySelectorAll(".chart")) place.plot?.setSize({ width: place.clientWidth, height: 260 });
  });
  return { load, ranges };
})();
