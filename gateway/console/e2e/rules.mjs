// Drives the pages of rules in Chromium against a running demo:
//
//	node rules.mjs CONSOLE-URL [FOLDER-FOR-SCREENSHOTS]
//
// A rule is written with a mistake by keyboard alone, corrected by completion,
// tried on the latest readings and on the past, put on trial, put live, and taken
// back. It prints a line per step and ends with code 1 at the first that fails.
// playwright-core and axe-core come from NODE_PATH (.ci/npm/node_modules),
// Chromium from CHROMIUM.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.NODE_PATH + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [base, folder] = process.argv.slice(2);

const wrong = [];
function check(ok, what, detail = "") {
  console.log(`${ok ? "ok  " : "FAIL"} ${what} ${detail}`);
  if (!ok) wrong.push(`${what} ${detail}`);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
async function open(path, { lang = "vi", width = 1400, height = 950, dark = false, phone = false } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, locale: lang === "vi" ? "vi-VN" : "en-GB", colorScheme: dark ? "dark" : "light", isMobile: phone });
  const page = await context.newPage();
  page.on("pageerror", (error) => check(false, path, String(error)));
  page.on("console", (message) => message.type() === "error" && !/40[49]|412|422/.test(message.text()) && check(false, path, message.text()));
  page.on("request", (request) => request.url().startsWith(base) || check(false, path, "asks another host: " + request.url()));
  await page.goto(base + path);
  return page;
}
const shot = (page, name, fullPage = true) => folder && page.screenshot({ path: `${folder}/${name}.png`, fullPage });
const api = async (path) => (await fetch(base + path)).json();
const count = async (rule) => (await api("/api/v1/rules")).rules.find((r) => r.rule === rule);
async function violations(page, what) {
  const found = await page.evaluate(`${axe}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }).then((r) => r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join("; ")))`);
  check(found.length === 0, `axe ${what}`, found.join(" | "));
}
// press and say are what hands on a keyboard do.
async function press(page, selector) {
  await page.focus(selector);
  await page.keyboard.press("Enter");
}
async function say(page, why) {
  await page.waitForSelector("dialog#ask[open]");
  if (await page.evaluate(() => document.activeElement === document.querySelector("dialog#ask input") && document.querySelectorAll("dialog#ask input, dialog#ask textarea").length > 1)) {
    await page.keyboard.type("Lan");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type(why);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
}

// The list; and what other pages load has not grown by the editor.
const list = await open("/rules");
const flood = (await api("/api/v1/rules")).rules.length;
check((await list.locator("#rule-list tr").count()) === flood, "every rule is listed", String(flood));
await list.fill("#rule-filter", "wind");
check((await list.locator("#rule-list tr:visible").count()) < flood, "the list is filtered");
await list.fill("#rule-filter", "");
const now = await open("/");
const loads = await now.evaluate(() => performance.getEntriesByType("resource").map((e) => e.name));
check(!loads.some((name) => name.includes("codemirror") || name.includes("rule")), "the first page loads nothing of the editor");
await now.context().close();

// A rule is written with a mistake.
const page = await open("/rules/new");
await page.waitForSelector(".cm-content");
const bytes = await page.evaluate(() => [...performance.getEntriesByType("resource"), ...performance.getEntriesByType("navigation")].reduce((sum, e) => sum + e.encodedBodySize, 0));
check(bytes < 500_000, "the editor's page loads less than 500 kB", `${bytes} bytes`);
await page.focus("#file");
await page.keyboard.press("Control+A");
await page.keyboard.type("rules/thu.yaml");
await page.focus(".cm-content");
await page.keyboard.press("Control+A");
await page.keyboard.press("Delete");
for (const line of ["# Mực nước tăng, 22/11: thử ngưỡng thấp", "rules:", "  - name: thu-song", "on: river", "severity: minor", "when: levl_m > 0.1"]) {
  await page.keyboard.type(line);
  if (!line.startsWith("when")) await page.keyboard.press("Enter");
  if (line.endsWith("thu-song") || line === "  - name: thu-song") await page.keyboard.type("  ".repeat((await page.evaluate(() => /\n {4}$/.test(window.ruleEditor.state.doc.toString()))) ? 0 : 2));
}
await page.keyboard.press("Escape");
await page.waitForSelector(".cm-lintRange-error", { timeout: 8000 });
const under = await page.textContent(".cm-lintRange-error");
check(under === "levl_m", "the fault stands under the word", under);
check((await page.textContent("#findings")).includes("level_m"), "the finding names what was meant", await page.textContent("#findings"));
await shot(page, "rules-mistake-vi");
await violations(page, "vi light, with a fault and the editor");

// It is corrected by completion, at the keyboard.
await page.keyboard.press("F8");
await page.evaluate(() => {
  const view = window.ruleEditor, at = view.state.doc.toString().indexOf("levl_m");
  view.dispatch({ selection: { anchor: at, head: at + 6 } });
  view.focus();
});
await page.keyboard.type("lev");
await page.waitForSelector(".cm-tooltip-autocomplete li");
await page.waitForFunction(() => document.querySelector(".cm-tooltip-autocomplete li[aria-selected]")?.textContent.includes("level_m"));
await shot(page, "rules-completion-vi", false);
await page.waitForTimeout(150);
await page.keyboard.press("Enter");
await page.waitForFunction(() => window.ruleEditor.state.doc.toString().includes("when: level_m > 0.1"));
await page.waitForFunction(() => !document.querySelector(".cm-lintRange-error"), null, { timeout: 8000 });
check(true, "corrected by completion");

// What it says now, and on the past.
await page.waitForSelector("#try .looks .true", { timeout: 8000 });
const verdict = await page.textContent("#try");
check(/level_m [\d,.]+/.test(verdict), "tried on the latest readings, with the values", verdict.slice(0, 120));
await page.selectOption("#span", "3600");
await press(page, "#run");
await page.waitForSelector("#past-chart canvas", { timeout: 60_000 });
check(Number(await page.getAttribute("#past-chart", "data-bands")) > 0, "the past is drawn with what it would have raised", `${await page.getAttribute("#past-chart", "data-drawn")}: ${await page.getAttribute("#past-chart", "data-bands")} warnings`);
await shot(page, "rules-backtest-vi");
await violations(page, "vi light, with the backtest");

const levelled = await open("/rules/edit/flood-level");
await levelled.waitForSelector("#try .looks .true, #try .looks .false", { timeout: 8000 });
await levelled.selectOption("#span", "3600");
await press(levelled, "#run");
await levelled.waitForSelector("#past-chart canvas", { timeout: 60_000 });
check((await levelled.textContent("#past")).includes("giống"), "compared with the rule in force", (await levelled.textContent("#past")).slice(0, 120));
await shot(levelled, "rules-levels-vi");
await levelled.context().close();

// On trial: nobody is told. Then live, with a reason.
await press(page, "#save-trial");
await shot(page, "rules-reason-vi", false);
await say(page, "thử ngưỡng thấp");
await page.waitForURL("**/rules/edit/thu-song");
check((await count("thu-song"))?.shadow === true, "on trial");
const text = (await api("/api/v1/rules/file?name=rules/thu.yaml")).text;
check(text.includes("# Mực nước tăng, 22/11: thử ngưỡng thấp") && text.includes("shadow: true"), "the comment survives", JSON.stringify(text.slice(0, 60)));
await page.waitForSelector("#try .looks .true", { timeout: 8000 });
const other = await open("/rules/edit/thu-song", { lang: "en", dark: true });
await other.waitForSelector("#try .looks .true", { timeout: 8000 });
await shot(other, "rules-edit-en-dark");
await violations(other, "en dark, the editor");
await press(page, "#save-live");
await say(page, "ngưỡng đã thử một ngày");
await page.waitForFunction(() => !document.querySelector("dialog[open]") && !window.ruleEditor?.state.doc.toString().includes("shadow"), null, { timeout: 8000 });
check((await count("thu-song"))?.shadow !== true, "live");

// A second author who saw the old version is told who was faster.
await other.focus(".cm-content");
await other.keyboard.press("Control+s");
await say(other, "my own");
await other.waitForFunction(() => document.getElementById("ask-error")?.textContent.includes("Lan"), null, { timeout: 5000 });
check(true, "two authors at once", await other.textContent("#ask-error"));
await other.context().close();

// A warning of it is raised; then marks of the list, and history.
for (let tries = 0; tries < 100 && !((await count("thu-song"))?.active > 0); tries++) await page.waitForTimeout(200);
check((await count("thu-song")).active > 0, "it warns");
await list.goto(base + "/rules");
await list.focus(`button[aria-label="Tắt thu-song"]`);
await list.keyboard.press("Enter");
await list.waitForSelector("dialog#ask[open]");
await list.keyboard.type("Lan");
await list.keyboard.press("Tab");
await list.keyboard.type("xong");
await list.keyboard.press("Enter");
await list.waitForSelector(`button[aria-label="Bật thu-song"]`, { timeout: 8000 });
check((await count("thu-song")).disabled === true, "disabled by keyboard");
await shot(list, "rules-list-vi");
const history = await open("/rules/history", { lang: "en" });
const told = await history.locator(".history li").allTextContents();
check(told.length === 3 && told[0].includes("xong") && told[1].includes("ngưỡng đã thử") && told[2].includes("Lan"), "the history tells who and why", String(told.length));
await shot(history, "rules-history-en");
await violations(history, "en light, the history");
await history.click(`.history a[href="/rules/history/2"]`);
await history.waitForSelector("table.diff .gone");
check((await history.textContent("table.diff .gone")).includes("shadow: true"), "a version shows what it changed");
await violations(history, "en light, a version");
await shot(history, "rules-version-en");
await press(history, "button[data-revert]");
await say(history, "live again");
await history.waitForURL("**/rules/history");
check((await count("thu-song")).disabled !== true, "back at version 2");
await press(history, `button[data-revert="0"]`);
await say(history, "it was a try");
await history.waitForFunction(() => document.querySelectorAll(".history li").length === 5, null, { timeout: 8000 });
check((await count("thu-song")) === undefined, "all changes dropped: as the configuration says");
await history.context().close();

// Every page, accessible and on a phone, in both languages.
const some = (await api("/api/v1/rules")).rules[0].rule;
const paths = ["/rules", "/rules/new", `/rules/edit/${some}`, "/rules/history", "/rules/history/2"];
for (const [lang, dark] of [["vi", true], ["en", false]]) {
  for (const path of paths) {
    const p = await open(path, { lang, dark });
    await p.waitForTimeout(1500);
    await violations(p, `${lang} ${dark ? "dark" : "light"} ${path}`);
    if (path !== "/rules/history/2") await shot(p, `rules${path.replaceAll("/", "-")}-${lang}`);
    await p.context().close();
  }
}
for (const path of paths) {
  const p = await open(path, { width: 390, height: 844, phone: true, lang: path.length % 2 ? "en" : "vi" });
  await p.waitForTimeout(1500);
  const over = await p.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(over <= 0, "fits a phone", `${path} ${over}`);
  await shot(p, "phone" + path.replaceAll("/", "-"));
  await p.context().close();
}

await browser.close();
if (wrong.length) {
  console.error(`${wrong.length} failed:\n${wrong.join("\n")}`);
  process.exit(1);
}
