// Copies the libraries of the operators' page into ../assets/vendor, and cuts its
// base map out of Natural Earth (public domain, as the package world-atlas has
// it): land, coast and borders around Viet Nam. What it writes is committed, so
// that building the gateway needs no Node. Run it after a change of
// package.json:
//
//	npm ci --ignore-scripts && node build.mjs
import { readFileSync, writeFileSync, mkdirSync } from "node:fs";
import { buildSync } from "esbuild";
import { feature, mesh } from "topojson-client";
import { presimplify, simplify } from "topojson-simplify";

const to = new URL("../assets/vendor/", import.meta.url);
mkdirSync(to, { recursive: true });
const read = (name) => readFileSync(new URL("node_modules/" + name, import.meta.url), "utf8");

for (const [name, file] of [
  ["idiomorph/dist/idiomorph.min.js", "idiomorph.js"],
  ["leaflet/dist/leaflet.js", "leaflet.js"],
  ["leaflet/dist/leaflet.css", "leaflet.css"],
  ["uplot/dist/uPlot.iife.min.js", "uplot.js"],
  ["uplot/dist/uPlot.min.css", "uplot.css"],
]) {
  const text = read(name)
    .replace(/\n?\/\/# sourceMappingURL=.*\n?/, "\n") // its map is not shipped
    .replace(/\s*background-image: url\([^)]*\);/g, ""); // of controls that the page does not use
  writeFileSync(new URL(file, to), text);
}

// The editor of rules: CodeMirror in one file, which only its page loads.
buildSync({
  entryPoints: [new URL("editor.mjs", import.meta.url).pathname], outfile: new URL("codemirror.js", to).pathname,
  bundle: true, minify: true, format: "iife", globalName: "codemirror_", target: "es2022", legalComments: "none", charset: "utf8",
});

const licences = [
  ...["autocomplete", "commands", "lang-yaml", "language", "lint", "state", "view"].map((name) => ["@codemirror/" + name, "LICENSE"]),
  ...["common", "highlight", "lr", "yaml"].map((name) => ["@lezer/" + name, "LICENSE"]),
  ...["crelt", "style-mod", "w3c-keyname", "@marijn/find-cluster-break"].map((name) => [name, "LICENSE"]),
  ["idiomorph", "LICENSE"], ["leaflet", "LICENSE"], ["uplot", "LICENSE"], ["world-atlas", "LICENSE"]].map(([name, file]) => {
  const version = JSON.parse(read(name + "/package.json")).version;
  const what = name === "world-atlas" ? " (only its data is used: made with Natural Earth, public domain)" : "";
  return `${name} ${version}${what}\n\n${read(name + "/" + file).trim()}\n`;
});
writeFileSync(new URL("LICENSES.txt", to), licences.join("\n" + "-".repeat(72) + "\n\n"));

// The base map: longitude 98..119, latitude 4..25 degrees, the region in which
// Viet Nam's boats are at sea.
const [west, south, east, north] = [98, 4, 119, 25];
const world = simplify(presimplify(JSON.parse(read("world-atlas/countries-10m.json"))), 2e-5);
const near = ([x, y]) => x >= west && x <= east && y >= south && y <= north;
const round = ([x, y]) => [Math.round(x * 1e3) / 1e3, Math.round(y * 1e3) / 1e3];

// clip cuts a ring to the box (Sutherland and Hodgman).
function clip(ring) {
  const sides = [
    [(p) => p[0] >= west, (a, b) => [west, a[1] + ((b[1] - a[1]) * (west - a[0])) / (b[0] - a[0])]],
    [(p) => p[0] <= east, (a, b) => [east, a[1] + ((b[1] - a[1]) * (east - a[0])) / (b[0] - a[0])]],
    [(p) => p[1] >= south, (a, b) => [a[0] + ((b[0] - a[0]) * (south - a[1])) / (b[1] - a[1]), south]],
    [(p) => p[1] <= north, (a, b) => [a[0] + ((b[0] - a[0]) * (north - a[1])) / (b[1] - a[1]), north]],
  ];
  for (const [inside, cross] of sides) {
    const out = [];
    ring.forEach((p, i) => {
      const before = ring[(i + ring.length - 1) % ring.length];
      if (inside(p) !== inside(before)) out.push(cross(before, p));
      if (inside(p)) out.push(p);
    });
    ring = out;
  }
  return ring.map(round).filter((p, i, all) => i === 0 || p[0] !== all[i - 1][0] || p[1] !== all[i - 1][1]);
}

const land = [], home = [];
for (const country of feature(world, world.objects.countries).features) {
  const polygons = country.geometry.type === "Polygon" ? [country.geometry.coordinates] : country.geometry.coordinates;
  for (const [outer] of polygons) {
    if (!outer.some(near)) continue;
    const ring = clip(outer.slice(0, -1));
    if (ring.length > 3) (country.id === "704" ? home : land).push([[...ring, ring[0]]]);
  }
}
const lines = (filter) => mesh(world, world.objects.countries, filter).coordinates
  .flatMap((line) => {
    const parts = [[]];
    for (const p of line) near(p) ? parts.at(-1).push(round(p)) : parts.at(-1).length && parts.push([]);
    return parts;
  })
  .filter((line) => line.length > 1);

writeFileSync(new URL("basemap.json", to), JSON.stringify({
  source: "Natural Earth 1:10m, public domain, by world-atlas",
  land: { type: "MultiPolygon", coordinates: land },
  home: { type: "MultiPolygon", coordinates: home },
  borders: { type: "MultiLineString", coordinates: lines((a, b) => a !== b) },
}) + "\n");
