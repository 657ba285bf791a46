// The map: base map, zones, stations, boats. Everything that moves is drawn on
// one canvas. A state is told by its shape as well as by its colour.
"use strict";

const map_ = (() => {
  const place = document.getElementById("map");
  if (!place) return null;
  const { t, number, age, get } = console_;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const severities = ["none", "minor", "moderate", "severe", "extreme"];

  const polygon = (n, turn) => Array.from({ length: n }, (_, i) => [Math.sin(turn + (2 * Math.PI * i) / n), -Math.cos(turn + (2 * Math.PI * i) / n)]);
  const shapes = {
    minor: polygon(4, Math.PI / 4), moderate: polygon(4, 0), severe: polygon(3, 0), extreme: polygon(6, Math.PI / 6),
    boat: [[0, -1.5], [0.75, 1], [0, 0.55], [-0.75, 1]],
  };
  L.Canvas.include({
    _updateMark(layer) {
      if (!this._drawing || layer._empty()) return;
      const { x, y } = layer._point, ctx = this._ctx, r = layer._radius, { shape, turn = 0 } = layer.options;
      ctx.beginPath();
      if (shape === "quiet") {
        for (const d of [1, -1]) {
          ctx.moveTo(x - r * d * 0.8, y - r * 0.8);
          ctx.lineTo(x + r * d * 0.8, y + r * 0.8);
        }
      } else if (shapes[shape]) {
        const sin = Math.sin(turn), cos = Math.cos(turn);
        shapes[shape].forEach(([dx, dy], i) => ctx[i ? "lineTo" : "moveTo"](x + r * (dx * cos - dy * sin), y + r * (dx * sin + dy * cos)));
        ctx.closePath();
      } else {
        ctx.arc(x, y, r * 0.85, 0, 2 * Math.PI);
      }
      this._fillStroke(ctx, layer);
    },
  });
  const Mark = L.CircleMarker.extend({ _updatePath() { this._renderer._updateMark(this); } });

  const ground = L.canvas({ padding: 0.3 }), front = L.canvas({ padding: 0.3 });
  const map = L.map(place, { renderer: front, minZoom: 4, maxZoom: 17, worldCopyJump: false, zoomSnap: 0.5 });
  map.attributionControl.setPrefix('<a href="https://leafletjs.com" rel="noreferrer">Leaflet</a>');
  map.createPane("ground").style.zIndex = 150;
  ground.options.pane = "ground";
  const home = L.latLngBounds([8.2, 102.1], [23.4, 112]);
  map.fitBounds(home);
  if (place.dataset.tiles) L.tileLayer(place.dataset.tiles, { attribution: place.dataset.credit }).addTo(map);

  const text = (words, className) => Object.assign(document.createElement("span"), { textContent: words, className });
  fetch(place.dataset.basemap).then((answer) => answer.json()).then((base) => {
    if (place.dataset.tiles) return;
    const style = { renderer: ground, pane: "ground", interactive: false, weight: 1, color: colour("border"), fillOpacity: 1 };
    L.geoJSON(base.land, { ...style, style: { ...style, fillColor: colour("land") } }).addTo(map);
    L.geoJSON(base.home, { ...style, style: { ...style, fillColor: colour("home"), weight: 1.5 } }).addTo(map);
    L.geoJSON(base.borders, { ...style, style: { ...style, fill: false, dashArray: "4 3" } }).addTo(map);
    map.attributionControl.addAttribution("Natural Earth");
    for (const [lat, lon, name, at, sea] of [
      [21.03, 105.85, "Hà Nội", 4], [20.86, 106.68, "Hải Phòng", 7], [18.67, 105.69, "Vinh", 6.5], [17.47, 106.6, "Đồng Hới", 6.5], [16.75, 107.19, "Đông Hà", 8],
      [16.463, 107.585, "Huế", 6], [16.06, 108.21, "Đà Nẵng", 5], [15.12, 108.8, "Quảng Ngãi", 7], [13.78, 109.22, "Quy Nhơn", 6.5], [12.24, 109.19, "Nha Trang", 6],
      [10.78, 106.7, "TP. Hồ Chí Minh", 4], [10.03, 105.78, "Cần Thơ", 6.5], [9.18, 105.15, "Cà Mau", 6.5],
      [16.5, 112, "Quần đảo Hoàng Sa (Việt Nam)", 5, true], [9.5, 113.5, "Quần đảo Trường Sa (Việt Nam)", 5, true], [18.2, 107.6, "Vịnh Bắc Bộ", 6, true], [14.5, 111.5, "Biển Đông", 4, true],
    ]) {
      const label = L.marker([lat, lon], { interactive: false, keyboard: false, icon: L.divIcon({ className: "", iconSize: null, html: text(name, sea ? "place sea" : "place") }) });
      const show = () => (map.getZoom() >= at ? label.addTo(map) : label.remove());
      map.on("zoomend", show);
      show();
    }
  });
  get("/api/v1/zones").then((zones) => {
    L.geoJSON(zones, {
      renderer: ground, pane: "ground", style: { color: colour("link"), weight: 1.5, dashArray: "6 4", fillOpacity: 0.06 }, interactive: false,
      pointToLayer: (_, at) => L.circleMarker(at, { renderer: ground, radius: 3 }),
    }).addTo(map);
  }).catch(() => {}); // a gateway without zones

  const marks = new Map(), tracks = new Map();
  let fitted = false, drawn = null;

  const said = (both) => t(both?.vi || both?.en, both?.en || both?.vi) || "";

  function describe(d) {
    const parts = [d.name];
    if (d.severity) parts.push(said(d.text));
    if (d.silent) parts.push(t("mất tín hiệu", "silent"));
    if (d.boat && d.speed_kn !== undefined) parts.push(`${number.format(d.speed_kn)} kn`);
    if (d.heard) parts.push(age((Date.now() - Date.parse(d.heard)) / 1000));
    return parts.join(" · ");
  }

  function popup(d) {
    const link = Object.assign(document.createElement("a"), { href: "/devices/" + encodeURIComponent(d.id), textContent: d.name });
    const box = document.createElement("div");
    box.append(link, document.createElement("br"), describe(d));
    for (const w of d.warnings ?? []) box.append(document.createElement("br"), Object.assign(document.createElement("a"), { href: "/warnings/" + encodeURIComponent(w.id), textContent: said(w.text) }));
    return box;
  }

  // track draws where a boat was in the last six hours.
  async function track(d) {
    drawn?.remove();
    drawn = null;
    const query = `kind=position&from=${new Date(Date.now() - 6 * 3600e3).toISOString()}&to=${new Date().toISOString()}`;
    const url = `/api/v1/devices/${encodeURIComponent(d.id)}/series?${query}&value=`;
    try {
      const [lat, lon] = await Promise.all([get(url + "lat"), get(url + "lon")]);
      const east = new Map(lon.points.map((p) => [p[0], p[1]]));
      const line = lat.points.filter((p) => east.has(p[0])).map((p) => [p[1], east.get(p[0])]);
      if (line.length > 1) drawn = L.polyline(line, { color: colour("link"), weight: 3, interactive: false }).addTo(map);
    } catch { /* no history: the mark stays */ }
  }

  const far = () => (document.documentElement.classList.contains("kiosk") ? 1.7 : 1); // a wall is read from afar
  let many = false; // an outline around each of thousands would cost half the drawing
  function style(d) {
    const grave = severities[d.severity] ?? "none";
    const moving = d.boat && d.heading_deg !== undefined;
    const shape = d.severity ? grave : d.silent ? "quiet" : d.boat ? "boat" : "none";
    const tint = colour(d.severity ? grave : d.silent ? "mute" : "well");
    return {
      shape, turn: shape === "boat" && moving ? (d.heading_deg * Math.PI) / 180 : 0, fillColor: tint, fillOpacity: shape === "boat" && !moving ? 0.3 : 1,
      stroke: shape !== "boat" || !many, color: shape === "quiet" ? tint : colour("ground"), weight: shape === "quiet" ? 3 : 1.5, radius: far() * (d.severity ? 7 + d.severity * 1.5 : d.boat ? 6 : 7),
    };
  }

  function put(d) {
    const old = marks.get(d.id);
    const look = style(d), key = JSON.stringify(look);
    if (!old) {
      const layer = new Mark([d.lat, d.lon], look);
      const m = { d, layer, key };
      layer.bindTooltip(() => text(describe(m.d)), { direction: "top" });
      layer.bindPopup(() => popup(m.d));
      layer.on("click", () => m.d.boat && track(m.d));
      layer.addTo(map);
      marks.set(d.id, m);
      return;
    }
    if (old.d.lat !== d.lat || old.d.lon !== d.lon) {
      old.layer.setLatLng([d.lat, d.lon]);
      if (d.boat) trail(old.d, d);
    }
    if (old.key !== key) old.layer.setStyle(look).setRadius(look.radius);
    Object.assign(old, { d, key });
  }

  // trail grows behind a boat while the page is open; of as many boats as a
  // screen can tell apart.
  function trail(from, to) {
    let line = tracks.get(to.id);
    if (!line) {
      if (tracks.size >= 300) return;
      line = L.polyline([[from.lat, from.lon]], { renderer: ground, pane: "ground", color: colour("well"), weight: 1.5, opacity: 0.7, interactive: false }).addTo(map);
      tracks.set(to.id, line);
    }
    const points = line.getLatLngs();
    points.push(L.latLng(to.lat, to.lon));
    line.setLatLngs(points.slice(-120));
  }

  async function refresh() {
    const { devices } = await get("/api/v1/map");
    const seen = new Set();
    many = devices.length > 500;
    devices.sort((a, b) => a.severity - b.severity); // the gravest is drawn last
    for (const d of devices) {
      seen.add(d.id);
      put(d);
    }
    for (const [id, m] of marks) {
      if (seen.has(id)) continue;
      m.layer.remove();
      tracks.get(id)?.remove();
      tracks.delete(id);
      marks.delete(id);
    }
    for (const d of devices) if (d.severity) marks.get(d.id).layer.bringToFront();
    if (fitted || !devices.length) return;
    fitted = true;
    const focus = marks.get(place.dataset.focus);
    if (focus) {
      map.setView(focus.layer.getLatLng(), 10);
      if (focus.d.boat) track(focus.d);
    } else if (!place.dataset.focus) {
      map.fitBounds(L.latLngBounds(devices.map((d) => [d.lat, d.lon])).pad(0.1), { maxZoom: 11 });
    }
  }
  const quietly = () => document.hidden || refresh().catch(() => {});
  quietly();
  setInterval(quietly, 5000);
  return { map, refresh: quietly, show: (id) => marks.get(id) && map.panTo(marks.get(id).layer.getLatLng()) };
})();
