// Drives the operators' page of a gateway with accounts: sessions that end while a
// page is open.
//
//	node session.mjs CONSOLE-URL CONFIG PASSWORD TILES-URL [FOLDER-FOR-SCREENSHOTS]
//
// The map is drawn on the tiles of TILES-URL, and no other host is asked. CONFIG is
// gateway.yaml, in which the sessions of who may act are idle after 6 s;
// HAIDANG is the command. Lan is an operator, Vy a viewer, Quan an administrator.
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";

const require = createRequire(process.env.NODE_PATH + "/");
const { chromium } = require("playwright-core");
const [base, config, password, tiles, folder] = process.argv.slice(2);
const within = { timeout: 30_000 };
const wrong = [];
function check(ok, what, detail = "") {
  console.log(`${ok ? "ok  " : "FAIL"} ${what} ${detail}`);
  if (!ok) wrong.push(`${what} ${detail}`);
}
const shot = (page, name) => folder && page.screenshot({ path: `${folder}/${name}.png` });
const account = (...args) => execFileSync(process.env.HAIDANG, ["account", ...args, "--config", config], { env: { ...process.env, HAIDANG_TEST_COMMAND: "1" }, input: password + "\n" });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });
async function login(user, to = "/", lang = "vi-VN") {
  const context = await browser.newContext({ locale: lang, viewport: { width: 1300, height: 900 } });
  const page = await context.newPage();
  page.on("pageerror", (error) => check(false, to, String(error)));
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && check(false, to, message.text()));
  page.on("request", (request) => request.url().startsWith(base) || request.url().startsWith(tiles) || check(false, to, "asks another host: " + request.url()));
  await page.goto(base + to);
  check(new URL(page.url()).pathname === "/login", `${user} has to log in`);
  await page.fill("input[name=user]", user);
  await page.fill("input[name=password]", password);
  await page.keyboard.press("Enter");
  await page.waitForURL(base + to, within);
  return page;
}
async function again(page, secret) {
  await page.fill("#again-password", secret);
  await page.keyboard.press("Enter");
}

// Lan writes a comment and is called away: the session is idle, the page says so,
// and what was written is still there after the login.
const lan = await login("lan");
await lan.waitForSelector("article.warning", within);
const id = await lan.evaluate(() => document.querySelector("article.warning").dataset.id);
await lan.focus("article.warning a");
await lan.keyboard.press("c");
await lan.keyboard.type("nước đã vào sân ");
const vy = login("vy"); // meanwhile
await lan.waitForSelector("#again[open]", within);
check((await lan.title()).startsWith("✕") && (await lan.textContent("#line")).includes("đã hết"), "an idle session ends, and the page says so over everything");
await shot(lan, "session-ended");
await lan.keyboard.press("Escape");
check(await lan.isVisible("#again"), "it does not go away unnoticed");
check((await (await lan.request.get(base + "/api/v1/warnings")).status()) === 401, "the gateway gives that browser nothing any more");
await again(lan, "not it");
await lan.waitForFunction(() => document.getElementById("again-error").textContent.includes("không đúng"), null, within);
await again(lan, password);
await lan.waitForFunction(() => !document.getElementById("again").open, null, within);
check((await lan.inputValue("#ask textarea")) === "nước đã vào sân ", "what was typed is still there");
await lan.click("#ask button[type=submit]");
await lan.waitForFunction(() => !document.getElementById("ask").open, null, within);
await lan.goto(base + "/warnings/" + id);
check((await lan.textContent(".history q")) === "nước đã vào sân", "and is sent after the login", await lan.textContent(".history li"));

// Somebody at the page keeps it: keys and clicks count, what it asks for by itself
// does not.
const busy = Date.now();
while (Date.now() - busy < 9000) {
  await lan.keyboard.press("Shift");
  await lan.waitForTimeout(500);
}
check(!(await lan.isVisible("#again")), "a session in which somebody is at the page goes on");

// Who only looks is never idle, and sees the list live.
const wall = await vy;
check(!(await wall.isVisible("#again")) && (await wall.getAttribute("#line", "class")) === "live", "a wall's session is not idle");
check(!(await wall.isVisible("button[data-act=ack]")), "who looks has no buttons");

// A session that ends is not one that loses its stream silently: the role is taken
// away while the page is open.
const quan = await login("quan", "/devices", "en-GB");
account("remove", "quan");
await quan.waitForSelector("#again[open]", within);
await again(quan, password);
await quan.waitForFunction(() => document.getElementById("again-error").textContent !== "", null, within);
check(true, "an account that is gone is out at once, and does not come back");

account("remove", "lan");
account("add", "lan", "--role", "viewer");
await lan.waitForSelector("#again[open]", within);
// The gateway looks at its accounts every second: it may see that lan is gone before
// it sees that she is back.
for (let tries = 0; tries < 3 && (await lan.isVisible("#again")); tries++) {
  await lan.waitForTimeout(1500);
  await again(lan, password);
  await lan.waitForFunction(() => !document.getElementById("again").open || document.getElementById("again-error").textContent !== "", null, within);
}
await lan.waitForFunction(() => !document.documentElement.hasAttribute("data-operate"), null, within);
check(!(await lan.isVisible("button[data-act=comment]")), "with another role the buttons are gone");
const refused = await lan.evaluate((id) => console_.send("POST", `/api/v1/warnings/${id}/comment`, { n: 1, text: "x" }).then(() => "sent", (error) => `${error.status} ${error.message}`), id);
check(refused.startsWith("403 Tài khoản này không có quyền"), "and what is sent all the same is refused clearly", refused);

await lan.click("form[action='/logout'] button");
await lan.waitForURL(base + "/login", within);
check((await lan.context().cookies()).every((c) => c.name !== "haidang_session"), "logged out");
const cookie = (await wall.context().cookies()).find((c) => c.name === "haidang_session");
check(cookie.httpOnly && cookie.sameSite === "Lax" && !(await wall.evaluate(() => document.cookie)).includes("haidang_session"), "no script sees the session");

await browser.close();
if (wrong.length) {
  console.error(`${wrong.length} failed:\n${wrong.join("\n")}`);
  process.exit(1);
}
