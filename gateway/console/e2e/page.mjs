// Drives the operators' page in Chromium against a running demo:
//
//	node page.mjs CONSOLE-URL INFLUX-URL [FOLDER-FOR-SCREENSHOTS]
//
// It prints a line per step and ends with code 1 at the first that fails.
// playwright-core and axe-core come from NODE_PATH (.ci/npm/node_modules),
// Chromium from CHROMIUM.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.NODE_PATH + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [base, influx, folder] = process.argv.slice(2);

const wrong = [];
function check(ok, what, detail = "") {
  console.log(`${ok ? "ok  " : "FAIL"} ${what} ${detail}`);
  if (!ok) wrong.push(`${what} ${detail}`);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
async function open(path, { lang = "vi", width = 1300, height = 900, dark = false, phone = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, locale: lang === "vi" ? "vi-VN" : "en-GB", colorScheme: dark ? "dark" : "light", isMobile: phone, bypassCSP: false });
  const page = await context.newPage();
  page.on("pageerror", (error) => check(false, path, String(error)));
  page.on("console", (message) => message.type() === "error" && !message.text().includes("409") && check(false, path, message.text()));
  page.on("request", (request) => request.url().startsWith(base) || check(false, path, "asks another host: " + request.url()));
  await page.goto(base + path);
  return page;
}
const shot = (page, name, fullPage = false) => folder && page.screenshot({ path: `${folder}/${name}.png`, fullPage });
const api = async (path) => (await fetch(base + path)).json();

// A flood rises: each transition is in the list within a second of its event.
const now = await open("/");
const bytes = await now.evaluate(async () => {
  await new Promise((done) => setTimeout(done, 1500));
  return [...performance.getEntriesByType("resource"), ...performance.getEntriesByType("navigation")].filter((e) => e.startTime < 1500 && !e.name.includes("/series")).reduce((sum, e) => sum + e.encodedBodySize, 0);
});
const paint = await now.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
check(bytes < 500_000, "first paint under 500 kB", `${bytes} bytes, painted after ${Math.round(paint)} ms`);
await now.evaluate(() => {
  window.told = new Map();
  window.lags = [];
  const seen = () => {
    for (const w of document.querySelectorAll("article.warning")) {
      const key = w.dataset.id + "/" + w.dataset.n;
      if (window.told.has(key)) {
        window.lags.push(performance.now() - window.told.get(key));
        window.told.delete(key);
      }
    }
  };
  new MutationObserver(seen).observe(document.getElementById("list"), { subtree: true, childList: true, attributes: true });
  new EventSource("/api/v1/events").addEventListener("warning", (event) => {
    const w = JSON.parse(event.data);
    window.told.set(w.id + "/" + w.n, performance.now());
  });
});
await now.waitForSelector("article.warning.extreme", { timeout: 90_000 });
await now.waitForFunction(() => window.lags.length >= 3, null, { timeout: 60_000 });
const lags = await now.evaluate(() => window.lags);
check(Math.max(...lags) < 1000, "in the list within a second", `${lags.length} transitions, at most ${Math.round(Math.max(...lags))} ms`);
check((await api("/api/v1/map")).devices.some((d) => d.severity === 4), "on the map");
await shot(now, "now-vi");

// An operator acknowledges by keyboard alone; a second one is told of it.
await now.focus("body");
await now.keyboard.press("j");
const id = await now.evaluate(() => document.activeElement.closest("article").dataset.id);
const before = await api("/api/v1/warnings/" + id);
await now.keyboard.press("a");
await now.waitForSelector("dialog[open]");
await now.keyboard.type("Lan");
await now.keyboard.press("Enter");
await now.waitForFunction((id) => document.getElementById("w-" + id)?.dataset.state !== "active", id, { timeout: 5000 });
const story = await api(`/api/v1/warnings/${id}/history`);
check(story.transitions.some((t) => t.act?.by === "Lan" && t.act.do === "ack"), "acknowledged by keyboard", id);
const second = await fetch(`${base}/api/v1/warnings/${id}/ack`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ n: before.n, by: "Minh" }) });
check(second.status === 409, "a second operator who saw the old state is told", (await second.json()).detail);

// Its page: chart, comment, story.
const warning = await open("/warnings/" + id, { lang: "en" });
if (before.values && Object.keys(before.values).length) await warning.waitForSelector(".chart canvas");
await warning.click("button[data-act=comment]");
await warning.fill("input", "Lan");
await warning.fill("textarea", `called <b>"the dam"</b>`);
await warning.click("dialog button.primary");
await warning.waitForSelector(".history q", { timeout: 5000 });
check((await warning.textContent(".history q")) === `called <b>"the dam"</b>`, "a comment is text in the story");
await shot(warning, "warning-en", true);

// Every page: whole, accessible, on phone and wall, in both languages.
const paths = ["/", "/warnings/" + id, "/devices", "/devices/demo-kim-long", "/devices/mmsi-574990001", "/rules", "/health", "/login"];
for (const [lang, dark] of [["vi", false], ["en", true]]) {
  for (const path of paths) {
    const page = await open(path, { lang, dark });
    await page.waitForTimeout(600);
    const found = await page.evaluate(`${axe}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }).then((r) => r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join("; ")))`);
    check(found.length === 0, `axe ${lang} ${dark ? "dark" : "light"} ${path}`, found.join(" | "));
    await page.context().close();
  }
}
for (const path of paths) {
  const page = await open(path, { width: 390, height: 844, phone: true });
  await page.waitForTimeout(400);
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(over <= 0, "fits a phone", `${path} ${over}`);
  await shot(page, "phone" + path.replaceAll("/", "-"), path !== "/");
  await page.context().close();
}
const wall = await open("/", { width: 1920, height: 1080 });
await wall.click("#kiosk");
check((await wall.evaluate(() => parseFloat(getComputedStyle(document.querySelector("article h3, .calm")).fontSize))) >= 28, "readable on a wall");
await wall.waitForTimeout(800);
await shot(wall, "wall");
await wall.context().close();

// Two thousand boats.
const lines = Array.from({ length: 2000 }, (_, i) => `position,device=mmsi-${575000000 + i} lat=${15 + (i % 50) / 20},lon=${108.6 + Math.floor(i / 50) / 15},course_deg=${(i * 37) % 360},speed_kn=${i % 12}`);
const written = await fetch(influx + "/write?db=haidang", { method: "POST", body: lines.join("\n") });
check(written.ok, "2,000 boats written");
let there = 0;
for (let tries = 0; tries < 50 && there < 2000; tries++) {
  there = (await api("/api/v1/map")).devices.length;
  await new Promise((done) => setTimeout(done, 200));
}
const many = await open("/");
await many.waitForTimeout(2500);
await many.evaluate(() => {
  window.gaps = [];
  let last = performance.now();
  const tick = (now) => {
    window.gaps.push(now - last);
    last = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
});
const box = await many.locator("#map").boundingBox();
for (let drag = 0; drag < 4; drag++) {
  await many.mouse.move(box.x + 300, box.y + 300);
  await many.mouse.down();
  for (let i = 1; i <= 25; i++) await many.mouse.move(box.x + 300 + (drag % 2 ? -i : i) * 6, box.y + 300 + i * 2);
  await many.mouse.up();
}
const frames = (await many.evaluate(() => window.gaps)).sort((a, b) => a - b);
const at = (part) => Math.round(frames[Math.floor((frames.length - 1) * part)]);
check(there >= 2000 && at(0.9) < 250, "2,000 boats move smoothly", `${there} devices, ${frames.length} frames, p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, worst ${at(0.999)} ms while the map is dragged, without a graphics card`);
await shot(many, "boats-2000");

await browser.close();
if (wrong.length) {
  console.error(`${wrong.length} failed:\n${wrong.join("\n")}`);
  process.exit(1);
}
