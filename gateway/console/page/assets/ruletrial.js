// A draft on the latest readings and on the past.
"use strict";
const ruleTrial_ = (() => {
  const { t, number, clock } = console_;
  const zone = "Asia/Ho_Chi_Minh";
  const make = (name, attributes = {}, ...inside) => {
    const node = Object.assign(document.createElement(name), attributes);
    node.append(...inside);
    return node;
  };
  const verdicts = { true: ["▲", t("đúng: sẽ báo", "true: raises")], false: ["✓", t("sai", "false")], missing: ["?", t("thiếu số liệu", "missing")], not_applied: ["–", t("không áp dụng", "does not apply")] };
  const severities = { minor: t("nhẹ", "minor"), moderate: t("trung bình", "moderate"), severe: t("nghiêm trọng", "severe"), extreme: t("đặc biệt nghiêm trọng", "extreme") };
  // The gateway speaks English; what is said most is told in the page's language.
  const said = [
    [/^nothing was received$/, "chưa nhận được gì"], [/^the rule is disabled$/, "quy tắc đang tắt"], [/^the device is not registered$/, "thiết bị chưa đăng ký"], [/^where: /, "chỉ khi: "],
    [/^the result is not a finite number$/, "kết quả không phải số hữu hạn"], [/unknown name (\S+): did you mean (\S+)\?/, "không có tên $1: có phải $2?"], [/unknown name (\S+)/, "không có tên $1"],
    [/unknown key "(\S+)"; did you mean "(\S+)"\?/, 'không có khóa "$1": có phải "$2"?'], [/unknown key "(\S+)"; known are/, 'không có khóa "$1"; có các khóa'], [/(\S+) is not a function of rules: did you mean (\S+)\?/, "$1 không phải là hàm: có phải $2?"],
    [/unexpected token EOF/, "biểu thức chưa viết hết"], [/^unexpected token/, "không mong đợi"], [/a rule needs when or levels/, "quy tắc cần when hoặc levels"], [/^not YAML: /, "không phải YAML: "],
    [/kind "(\S*)" is not in the catalogue(: did you mean (\S+)\?)?/, 'không có loại số liệu "$1"$2'], [/no device has the fact (\S+)/, "không thiết bị nào có thông số $1"], [/rule "(\S+)" is there twice/, 'quy tắc "$1" có hai lần'],
    [/there is no recipient "(\S+)" under ioc; expected one of/, 'không có nơi nhận "$1" trong ioc; có:'], [/^rule (\S+) applies to no device/, "quy tắc $1 không áp dụng cho thiết bị nào"], [/no readings from .*/, "không có số liệu trong khoảng này"], [/did you mean "?([^"?]+)"?\?/, "có phải $1?"],
  ];
  const inWords = (text) => (document.documentElement.lang === "en" ? text : said.reduce((words, [from, to]) => words.replace(from, to), text));
  const row = (tag, ...cells) => make("tr", {}, ...cells.map((c) => make(tag, {}, c ?? "")));

  // look shows how a draft stands for each device.
  function look(place, answer) {
    const counts = make("ul", { className: "verdicts" });
    for (const [name, [mark, word]] of Object.entries(verdicts)) if (answer.counts[name]) counts.append(make("li", {}, `${mark} ${word}: `, make("b", {}, String(answer.counts[name]))));
    const table = make("table"), body = make("tbody");
    table.append(make("thead", {}, row("th", t("Thiết bị", "Device"), t("Điều kiện", "Condition"), t("Giá trị", "Values"))), body);
    for (const d of answer.devices) {
      const name = d.applies ? d.verdict : "not_applied", [mark, word] = verdicts[name];
      const values = (d.values ?? []).map((v) => `${v.fact ? "device." : ""}${v.name} ${v.word || number.format(v.number)}`);
      if (d.missing?.length) values.push(`${t("thiếu", "missing")}: ${d.missing.map(inWords).join(", ")}`);
      const message = document.documentElement.lang === "en" ? d.message?.en : d.message?.vi;
      const device = make("span", {}, make("a", { href: "/devices/" + encodeURIComponent(d.device) }, d.device));
      if (d.received) device.append(make("br"), make("small", {}, clock.format(new Date(d.received))));
      const verdict = make("span", { className: name === "not_applied" ? "missing" : name }, `${mark} ${word}`);
      if (d.verdict === "true") verdict.append(make("br"), make("small", {}, severities[d.severity] ?? d.severity));
      const what = make("span", {}, values.join(" · "));
      if (message) what.append(make("br"), make("q", {}, message));
      body.append(row("td", device, verdict, what));
    }
    const scroll = make("div", { className: "looks scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", t("Từng thiết bị", "Each device"));
    place.replaceChildren(make("p", {}, make("b", {}, answer.rule), answer.on ? ` · ${answer.on}` : ""), counts);
    if (answer.devices.length) place.append(scroll);
    else place.append(make("p", { className: "soft" }, t("Chưa thiết bị nào gửi loại số liệu này.", "No device sends this kind.")));
    if (answer.more) place.append(make("p", {}, t(`và ${answer.more} thiết bị nữa`, `and ${answer.more} more`)));
    if (answer.cut) place.append(make("p", { className: "soft" }, t("Khoảng thời gian của quy tắc dài hơn phần quá khứ đọc được ngay: hãy chạy với quá khứ.", "The windows of the rule reach further back than can be read at once: run it on the past.")));
  }

  // run asks for a backtest and reads its lines; the signal ends it.
  async function run(body, progress, signal) {
    const answer = await fetch("/api/v1/rules/backtest", { method: "POST", headers: { "Accept-Language": document.documentElement.lang, "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
    if (!answer.ok) throw await console_.refused(answer);
    const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await lines.read();
      rest += value ?? "";
      let end;
      while ((end = rest.indexOf("\n")) >= 0) {
        const said = JSON.parse(rest.slice(0, end));
        rest = rest.slice(end + 1);
        if (said.error) throw new Error(said.error);
        if (said.report) return said.report;
        progress(said.share);
      }
      if (done) throw new Error(t("Kết nối bị ngắt.", "The connection broke off."));
    }
  }

  const minutes = (m) => (m >= 60 ? `${number.format(Math.round(m / 6) / 10)} ${t("giờ", "h")}` : `${number.format(Math.round(m))} ${t("phút", "min")}`);

  // report shows what a backtest brought; chosen is called with a device to draw.
  function report(place, r, chosen) {
    const out = [make("p", {}, make("b", {}, t(`Báo ${r.new.raised} lần`, `Raised ${r.new.raised} times`)),
      ` · ${t(`${number.format(r.new.readings)} lần đo của ${r.new.devices} thiết bị`, `${number.format(r.new.readings)} readings of ${r.new.devices} devices`)}`,
      r.live ? ` · ${t(`quy tắc đang dùng: ${r.live.raised} lần`, `the rule in force: ${r.live.raised} times`)}` : "")];
    const c = r.compared;
    if (c) out.push(make("p", { className: "soft" }, t(`giống ${c.same}, khác ${c.changed}, chỉ bản đang dùng ${c.only_live}, chỉ bản này ${c.only_new}`, `${c.same} the same, ${c.changed} changed, ${c.only_live} only in force, ${c.only_new} only in this draft`)));
    const of = new Map((r.live?.rows ?? []).map((row_) => [row_.device, row_]));
    const devices = [...new Set([...r.new.rows.map((x) => x.device), ...of.keys()])];
    if (devices.length) {
      const body = make("tbody");
      for (const device of devices) {
        const now = r.new.rows.find((x) => x.device === device), old = of.get(device);
        const button = make("button", { type: "button" }, device);
        button.addEventListener("click", () => chosen(device));
        body.append(row("td", button, now ? String(now.raised) : "0", now ? minutes(now.minutes_in_alarm) : "", now ? severities[now.severity] ?? "" : "", r.live ? String(old?.raised ?? 0) : "–"));
      }
      const scroll = make("div", { className: "looks scroll", tabIndex: 0 }, make("table", {}, make("thead", {}, row("th", t("Thiết bị", "Device"), t("Báo", "Raised"), t("Tổng thời gian", "In all"), t("Nặng nhất", "Gravest"), t("Đang dùng", "In force"))), body));
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", t("Kết quả từng thiết bị", "Result of each device"));
      out.push(scroll, make("p", { className: "soft" }, make("span", { className: "key new" }), t(" bản này  ", " this draft  "), make("span", { className: "key live" }), t(" bản đang dùng", " in force")));
    }
    place.replaceChildren(...out);
    return devices[0];
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // chart draws a value of a device with what would have been raised over it;
  // levels are the facts that the rule compares with, as they are now.
  async function chart(place, r, device, levels = []) {
    place.hidden = false;
    place.plot?.destroy();
    place.plot = null;
    place.replaceChildren(make("p", {}, make("b", {}, `${device}: ${r.value}`)));
    const from = Date.parse(r.new.from) / 1e3, to = Date.parse(r.new.to) / 1e3;
    let points = [];
    if (r.value) {
      try {
        points = (await console_.get(`/api/v1/devices/${encodeURIComponent(device)}/series?kind=${encodeURIComponent(r.on)}&value=${encodeURIComponent(r.value)}&from=${new Date(from * 1e3).toISOString()}&to=${new Date(to * 1e3).toISOString()}`)).points;
      } catch (error) {
        place.append(make("p", { className: "empty" }, error.message));
      }
    }
    const episodes = (rep) => rep?.rows.find((x) => x.device === device)?.episodes ?? [];
    const bands = (u) => {
      const { ctx, bbox } = u;
      ctx.save();
      const paint = (list, top, height, fill) => {
        for (const e of list) {
          const a = Math.max(u.valToPos(Math.max(Date.parse(e.start) / 1e3, from), "x", true), bbox.left);
          const b = Math.min(u.valToPos(e.end ? Date.parse(e.end) / 1e3 : to, "x", true), bbox.left + bbox.width);
          fill(Math.max(a, bbox.left), top, Math.max(2, b - a), height, e);
        }
      };
      const strip = bbox.height * 0.06;
      paint(episodes(r.new), bbox.top, bbox.height, (x, y, w, h, e) => {
        ctx.fillStyle = colour(e.severity) + "2b";
        ctx.fillRect(x, y, w, h);
        ctx.fillStyle = colour("wrong");
        ctx.fillRect(x, y, w, strip);
      });
      paint(episodes(r.live), bbox.top + strip * 1.4, strip, (x, y, w, h) => {
        ctx.strokeStyle = colour("soft");
        ctx.strokeRect(x, y, w, h);
        ctx.beginPath();
        for (let k = -h; k < w; k += 8) { ctx.moveTo(x + Math.max(0, k), y + Math.max(0, -k) ); ctx.lineTo(x + Math.min(w, k + h), y + Math.min(h, h - Math.max(0, k + h - w))); }
        ctx.stroke();
      });
      ctx.restore();
    };
    const lines = (u) => {
      const { ctx, bbox } = u;
      ctx.save();
      ctx.setLineDash([6, 5]);
      ctx.strokeStyle = ctx.fillStyle = colour("wrong");
      ctx.font = `${12 * devicePixelRatio}px sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      for (const level of levels) {
        const y = Math.round(u.valToPos(level.number, "y", true));
        if (y < bbox.top || y > bbox.top + bbox.height) continue;
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.fillText(`${level.name} ${number.format(level.number)}`, bbox.left + 6 * devicePixelRatio, y - 2);
      }
      ctx.restore();
    };
    const axis = { stroke: colour("ink"), grid: { stroke: colour("edge"), width: 1 }, ticks: { stroke: colour("edge") } };
    const form = new Intl.DateTimeFormat("vi", { timeZone: zone, ...(to - from > 2 * 86400 ? { day: "2-digit", month: "2-digit" } : { hour: "2-digit", minute: "2-digit" }) });
    place.plot = new uPlot({
      width: place.clientWidth || 480, height: 240, tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), zone),
      scales: { x: { min: from, max: to }, y: { range: (_, a, b) => { const all = [a, b, ...levels.map((l) => l.number)].filter((v) => v !== null), lo = Math.min(...all), hi = Math.max(...all), pad = (hi - lo || 1) * 0.08; return all.length ? [lo - pad, hi + pad] : [0, 1]; } } }, legend: { show: false },
      axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map((s) => form.format(s * 1e3)) }, { ...axis, size: 60, values: (_, ticks) => ticks.map((v) => number.format(v)) }],
      series: [{}, { stroke: colour("link"), width: 2, points: { show: points.length < 60 } }],
      hooks: { drawClear: [bands], draw: [lines] },
    }, points.length ? [points.map((p) => p[0]), points.map((p) => p[1])] : [[from, to], [null, null]], place);
    place.dataset.drawn = device;
    place.dataset.bands = String(episodes(r.new).length);
  }
  addEventListener("resize", () => {
    const place = document.getElementById("past-chart");
    place?.plot?.setSize({ width: place.clientWidth, height: 240 });
  });
  return { look, run, report, chart, make, inWords };
})();
