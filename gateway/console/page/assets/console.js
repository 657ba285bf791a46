// What every page needs: words, ages, the line to the gateway, and acts.
"use strict";

const console_ = (() => {
  const root = document.documentElement;
  const t = (vi, en) => (root.lang === "en" ? en : vi);
  const number = new Intl.NumberFormat(root.lang === "en" ? "en" : "vi", { maximumFractionDigits: 3 });
  const clock = new Intl.DateTimeFormat(root.lang === "en" ? "en-GB" : "vi", { timeZone: "Asia/Ho_Chi_Minh", dateStyle: "short", timeStyle: "medium" });

  function age(seconds) {
    for (const [unit, vi, en] of [[86400, "ngày", "d"], [3600, "giờ", "h"], [60, "phút", "min"]]) {
      if (seconds >= unit) return `${Math.floor(seconds / unit)} ${t(vi, en)}`;
    }
    return `${Math.max(0, Math.floor(seconds))} ${t("giây", "s")}`;
  }

  // Ages stand beside the local time, which stays as the gateway wrote it.
  function ages(within = document) {
    for (const place of within.querySelectorAll(".age")) {
      const text = ` (${age((Date.now() - Date.parse(place.dataset.since)) / 1000)})`;
      let mark = place.querySelector(".ago");
      if (!mark) place.append((mark = Object.assign(document.createElement("span"), { className: "ago" })));
      if (mark.textContent !== text) mark.textContent = text;
    }
  }

  function line(ok, why) {
    const place = document.getElementById("line");
    const text = why ? why : ok ? t("Trực tiếp", "Live") : t("Mất kết nối, số liệu có thể đã cũ", "Connection lost: this may be out of date");
    if (place.textContent === text) return;
    place.className = ok ? "live" : "stale";
    place.textContent = text;
  }

  // The session has ended while the page is open: it says so over everything, and
  // what is typed below stays as it is until somebody has logged in again.
  const again = document.getElementById("again");
  const resumed = [];
  function ended() {
    if (!again || again.open) return;
    line(false, t("Phiên đăng nhập đã hết", "The session has ended"));
    document.title = "✕ " + document.title;
    document.getElementById("again-user").value ||= root.dataset.account ?? "";
    again.showModal();
    document.getElementById(root.dataset.account ? "again-password" : "again-user").focus();
  }
  function resume(who) {
    const other = root.dataset.account !== who.account;
    root.dataset.account = who.account;
    for (const right of ["operate", "rule", "administer"]) root.toggleAttribute("data-" + right, who[right]);
    for (const place of document.querySelectorAll(".account")) place.textContent = who.account;
    document.title = document.title.replace(/^✕ /, "");
    again.close();
    if (other && !dialog.open) location.reload(); // the page was made for somebody else
    for (const f of resumed) f();
  }
  if (again) {
    again.addEventListener("cancel", (event) => event.preventDefault());
    again.querySelector("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const error = document.getElementById("again-error");
      error.textContent = "";
      const password = document.getElementById("again-password");
      try {
        const answer = await fetch("/login", { method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams({ user: document.getElementById("again-user").value, password: password.value }) });
        const said = await answer.json();
        if (answer.ok) resume(said);
        else error.textContent = answer.status === 429 ? t("Sai quá nhiều lần; hãy chờ một lát.", "Too many wrong tries; wait a while.") : answer.status === 401 ? t("Tên hoặc mật khẩu không đúng.", "Name or password are not right.") : said.detail;
      } catch {
        error.textContent = t("Không liên lạc được với hệ thống.", "The gateway cannot be reached.");
      }
      password.value = "";
    });
    // Another tab may have logged in meanwhile: they share the session.
    addEventListener("focus", async () => {
      if (!again.open) return;
      const answer = await fetch("/api/v1/session", { headers: quietly }).catch(() => null);
      if (answer?.ok) resume(await answer.json());
    });
  }

  // A key or a click keeps the session from being idle; what the page asks for by
  // itself does not.
  const idle = Number(root.dataset.idle ?? 0) * 1000;
  if (idle) {
    let told = Date.now();
    const here = () => {
      if (Date.now() - told < Math.min(60000, idle / 4)) return;
      told = Date.now();
      fetch("/api/v1/session", { method: "POST" }).then((answer) => answer.status === 401 && ended()).catch(() => {});
    };
    for (const sign of ["keydown", "pointerdown", "wheel"]) addEventListener(sign, here, { passive: true });
  }

  // follow calls changed soon after a warning changed, and at the latest every
  // 15 s, so that an exercise or a recipient that fails is seen too. An old list
  // must not look like a calm river: where the gateway cannot be reached the page
  // says so.
  let following = false;
  function follow(changed) {
    following = true;
    let timer = null, events = null;
    const now = async () => {
      try {
        await changed();
        line(!wanted() || events?.readyState === EventSource.OPEN);
      } catch (error) {
        if (error.status !== 401) line(false);
      }
    };
    const soon = () => {
      timer ??= setTimeout(() => {
        timer = null;
        now();
      }, 100);
    };
    // A browser has six connections to a host without TLS: tabs that nobody looks at
    // or listens to give theirs back, so that the seventh opens.
    const wanted = () => !document.hidden || document.getElementById("sound")?.checked;
    const listen = () => {
      events?.close();
      if (!wanted()) return;
      events = new EventSource("/api/v1/events");
      for (const name of ["warning", "resync", "open"]) events.addEventListener(name, soon);
      events.addEventListener("error", () => {
        if (!again?.open) line(false);
        // A browser does not come back by itself after an answer that is no stream:
        // the session has ended, or there are too many pages.
        if (events.readyState === EventSource.CLOSED) setTimeout(async () => (await get("/api/v1/session").catch(() => null)) && listen(), 2000);
      });
    };
    addEventListener("visibilitychange", () => {
      if (!wanted()) events?.close();
      else if (!events || events.readyState === EventSource.CLOSED) {
        listen();
        soon();
      }
    });
    listen();
    resumed.push(listen);
    setInterval(() => {
      if ((!events || events.readyState === EventSource.CLOSED) && !again?.open) listen();
      soon();
    }, 15000);
    return Object.assign(soon, { now });
  }

  // watch reads parts of the page again at intervals, where nothing follows the
  // warnings.
  function watch() {
    if (following || !document.body.dataset.live) return;
    const look = async () => {
      if (document.hidden || again?.open) return;
      try {
        await morph(location.pathname + location.search, document.body.dataset.live.split(" "));
        line(true);
      } catch (error) {
        if (error.status !== 401) line(false);
      }
    };
    setInterval(look, 10000);
    addEventListener("visibilitychange", look);
    resumed.push(look);
  }
  document.addEventListener("DOMContentLoaded", watch);

  // Errors are told in the language of the page.
  const quietly = { Accept: "application/json", "Accept-Language": root.lang, "Haidang-Page": "quiet" };
  async function refused(answer) {
    const said = await answer.json().catch(() => ({}));
    if (answer.status === 401) {
      ended();
      said.detail = t("Phiên đăng nhập đã hết: đăng nhập lại, rồi gửi lần nữa. Những gì đã nhập vẫn còn.", "The session has ended: log in again, then send once more. What was typed is still here.");
    } else if (answer.status === 403) {
      said.detail = t("Tài khoản này không có quyền làm việc đó. ", "This account may not do that. ") + (said.detail ?? "");
    }
    return Object.assign(new Error(said.detail ?? answer.statusText), { status: answer.status, n: said.n });
  }
  async function get(url) {
    const answer = await fetch(url, { headers: quietly });
    if (!answer.ok) throw await refused(answer);
    return answer.json();
  }

  async function send(method, url, body, { headers, signal } = {}) {
    const answer = await fetch(url, { method, headers: { "Accept-Language": root.lang, "Content-Type": "application/json", ...headers }, body: JSON.stringify(body), signal });
    if (!answer.ok) throw await refused(answer);
    return answer.json().catch(() => ({}));
  }

  // ask opens the dialog with these fields and sends what is entered; it stays
  // open, and says why, until it is accepted.
  const dialog = document.getElementById("ask");
  function ask(title, fields, sends) {
    document.getElementById("ask-title").textContent = title;
    document.getElementById("ask-error").textContent = "";
    const place = document.getElementById("ask-fields");
    place.replaceChildren();
    const inputs = {};
    if (!root.dataset.account) fields = [{ name: "by", label: t("Tên của bạn", "Your name"), value: localStorage.getItem("by") ?? "", required: true }, ...fields];
    for (const f of fields) {
      const label = document.createElement("label");
      const input = document.createElement(f.long ? "textarea" : f.choices ? "select" : "input");
      label.append(f.label, input);
      if (f.choices) for (const [value, text] of f.choices) input.append(new Option(text, value));
      if (f.type) input.type = f.type;
      if (f.step) input.step = f.step;
      if (f.value !== undefined) input.value = f.value;
      input.required = !!f.required;
      inputs[f.name] = input;
      place.append(label);
    }
    const form = dialog.querySelector("form");
    let sending = false; // a second key or click must not do it twice
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (sending) return;
      sending = true;
      const said = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
      if (said.by) localStorage.setItem("by", said.by);
      const error = document.getElementById("ask-error");
      error.textContent = "";
      try {
        await sends(said);
        dialog.close();
      } catch (wrong) {
        error.textContent = wrong.message;
      }
      sending = false;
    };
    dialog.showModal();
    (Object.values(inputs).find((input) => !input.value) ?? form.querySelector("button")).focus();
  }
  document.getElementById("ask-cancel").addEventListener("click", () => dialog.close());

  // act asks what a deed needs and does it on the warning of an element.
  function act(deed, warning, done) {
    const names = {
      ack: t("Nhận cảnh báo", "Acknowledge"), shelve: t("Tạm gác", "Shelve"), unshelve: t("Bỏ tạm gác", "Unshelve"), comment: t("Ghi chú", "Comment"),
      assign: t("Chuyển giao", "Hand over"), "false-alarm": t("Báo động giả", "False alarm"), genuine: t("Không phải báo động giả", "Not a false alarm"),
    };
    const fields = [];
    if (deed === "shelve") {
      fields.push({ name: "for", label: t("Trong bao lâu", "For how long"), choices: [[1800, "30 min"], [3600, "1 h"], [14400, "4 h"], [28800, "8 h"], [86400, "24 h"]] });
    }
    if (deed === "assign") fields.push({ name: "to", label: t("Giao cho ai", "To whom"), required: true });
    fields.push({ name: "text", label: deed === "comment" ? t("Ghi chú", "Comment") : t("Ghi chú (nếu có)", "Comment (optional)"), long: true, required: deed === "comment" });
    let n = Number(warning.dataset.n); // what he saw when he decided; the page goes on behind the dialog
    ask(names[deed], fields, async (said) => {
      const body = { n, by: said.by ?? root.dataset.account, text: said.text };
      if (deed === "shelve") body.until = new Date(Date.now() + Number(said.for) * 1000).toISOString();
      if (deed === "assign") body.to = said.to;
      const tell = () => send("POST", `/api/v1/warnings/${encodeURIComponent(warning.dataset.id)}/${deed}`, body);
      try {
        await tell().catch((error) => {
          if (deed !== "comment" || error.status !== 409 || !error.n) throw error;
          body.n = error.n; // a comment is true whatever happened meanwhile
          return tell();
        });
      } catch (error) {
        if (error.status !== 409) throw error;
        n = error.n ?? n;
        await done.now?.(); // the page shows what happened meanwhile; a second try goes by that
        const of = document.querySelector(`[data-id="${CSS.escape(warning.dataset.id)}"]`);
        const state = of?.querySelector(".state")?.textContent.trim() ?? t("Đã hết", "Cleared");
        throw new Error(t(`Trong lúc đó cảnh báo đã thay đổi: ${state}. Chưa ghi gì của bạn; nếu vẫn cần, hãy gửi lần nữa.`, `The warning has changed meanwhile: ${state}. Nothing of yours was kept; send once more if it is still needed.`));
      }
      done();
    });
  }

  function acts(done) {
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button.act[data-act]");
      if (button) act(button.dataset.act, button.closest("[data-id]"), done);
    });
    keys((event) => {
      const all = [...document.querySelectorAll("article.warning")];
      const at = all.findIndex((w) => w.contains(document.activeElement));
      if (event.key === "j" || event.key === "k") {
        all[Math.min(all.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))]?.querySelector("a").focus();
        return true;
      }
      const deed = { a: "ack", s: "shelve", u: "unshelve", c: "comment", h: "assign", f: "false-alarm" }[event.key];
      const of = at >= 0 ? all[at] : document.getElementById("story");
      const button = deed && of?.querySelector(`button[data-act=${deed}]`);
      if (!button || getComputedStyle(button).display === "none") return false;
      button.click();
      return true;
    });
  }

  // keys are single letters, unless somebody types or has switched them off (WCAG
  // 2.1.4). /keys lists them.
  const pressed = [];
  function keys(does) {
    pressed.push(does);
  }
  let went = 0; // when g was pressed: the next letter is a page
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || localStorage.getItem("keys") === "no") return;
    if (event.target.closest?.("input, textarea, select, [contenteditable], .leaflet-container")) return;
    const going = Date.now() - went < 1500;
    went = 0;
    if (going) {
      const link = document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
      if (link) link.click();
      return;
    }
    if (event.key === "g") {
      went = Date.now();
      return;
    }
    if (event.key === "?") {
      location.href = "/keys";
      return;
    }
    const place = { "/": "find", m: "map" }[event.key];
    if (place && document.getElementById(place)) {
      event.preventDefault();
      document.getElementById(place).focus();
      return;
    }
    if (pressed.some((does) => does(event))) event.preventDefault();
  });

  // morph changes an element into the one of a page that was read again.
  async function morph(url, ids) {
    const answer = await fetch(url, { cache: "no-store", headers: { "Haidang-Page": "quiet" } });
    if (!answer.ok) throw await refused(answer);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    for (const id of ids) {
      const from = document.getElementById(id), to = fresh.getElementById(id);
      if (!from || !to) continue;
      ages(to);
      Idiomorph.morph(from, to, {
        callbacks: {
          beforeNodeMorphed: (node) => !node.classList?.contains("spark") && !node.dataset?.keep,
          // What somebody has opened or hidden stays so.
          beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") && !(name === "hidden" && node.tagName === "TR"),
        },
      });
    }
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#drill-end")) return;
    ask(t("Kết thúc diễn tập", "End the exercise"), [{ name: "why", label: t("Lý do", "Reason"), required: true }], async (said) => {
      await send("POST", "/api/v1/drill", { do: "end", by: said.by ?? root.dataset.account, why: said.why }).catch((error) => {
        if (error.status !== 400) throw error; // it has ended by itself meanwhile
      });
      location.reload();
    });
  });

  ages();
  setInterval(() => ages(), 5000);
  return { t, number, clock, age, ages, line, follow, get, send, refused, ask, act, acts, morph, keys };
})();
