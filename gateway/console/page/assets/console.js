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

  function line(ok) {
    const place = document.getElementById("line");
    const text = ok ? t("Trực tiếp", "Live") : t("Mất kết nối, số liệu có thể đã cũ", "Connection lost: this may be out of date");
    if (place.textContent === text) return;
    place.className = ok ? "live" : "stale";
    place.textContent = text;
  }

  // follow calls changed soon after a warning changed, and at the latest every
  // 15 s, so that an exercise or a recipient that fails is seen too. An old list must not look like a calm river: where the gateway
  // cannot be reached the page says so.
  function follow(changed) {
    let timer = null;
    const soon = () => {
      timer ??= setTimeout(async () => {
        timer = null;
        try {
          await changed();
          line(events.readyState === EventSource.OPEN);
        } catch {
          line(false);
        }
      }, 100);
    };
    const events = new EventSource("/api/v1/events");
    for (const name of ["warning", "resync", "open"]) events.addEventListener(name, soon);
    events.addEventListener("error", () => line(false));
    setInterval(soon, 15000);
    // A browser does not come back by itself after an answer that is no stream.
    setInterval(() => events.readyState === EventSource.CLOSED && location.reload(), 30000);
    return soon;
  }

  async function get(url) {
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
    return answer.json();
  }

  async function send(method, url, body) {
    const answer = await fetch(url, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(said.detail ?? answer.statusText), { status: answer.status, n: said.n });
    return said;
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
      if (f.value !== undefined) input.value = f.value;
      input.required = !!f.required;
      inputs[f.name] = input;
      place.append(label);
    }
    const form = dialog.querySelector("form");
    form.onsubmit = async (event) => {
      event.preventDefault();
      const said = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
      if (said.by) localStorage.setItem("by", said.by);
      try {
        await sends(said);
        dialog.close();
      } catch (error) {
        document.getElementById("ask-error").textContent = error.message;
      }
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
    ask(names[deed], fields, async (said) => {
      const body = { n: Number(warning.dataset.n), by: said.by ?? root.dataset.account, text: said.text };
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
        if (error.status === 409) done(); // the page shows what happened meanwhile; a second try goes by that
        throw error;
      }
      done();
    });
  }

  function acts(done) {
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button.act");
      if (button) act(button.dataset.act, button.closest("[data-id]"), done);
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || event.target.closest?.("input, textarea, select, .leaflet-container")) return;
      const all = [...document.querySelectorAll("article.warning")];
      const at = all.findIndex((w) => w.contains(document.activeElement));
      if (event.key === "j" || event.key === "k") {
        all[Math.min(all.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))]?.querySelector("a").focus();
        return;
      }
      const deed = { a: "ack", s: "shelve", c: "comment" }[event.key];
      const of = at >= 0 ? all[at] : document.getElementById("story");
      const button = deed && of?.querySelector(`button[data-act=${deed}]`);
      if (button && getComputedStyle(button).display !== "none") {
        event.preventDefault();
        button.click();
      }
    });
  }

  // morph changes an element into the one of a page that was read again.
  async function morph(url, ids) {
    const answer = await fetch(url, { cache: "no-store" });
    if (answer.redirected) location.reload(); // the session has ended
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    for (const id of ids) {
      const from = document.getElementById(id), to = fresh.getElementById(id);
      if (!from || !to) continue;
      ages(to);
      Idiomorph.morph(from, to, { callbacks: { beforeNodeMorphed: (node) => !node.classList?.contains("spark") } });
    }
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#drill-end")) return;
    ask(t("Kết thúc diễn tập", "End the exercise"), [{ name: "why", label: t("Lý do", "Reason"), required: true }], async (said) => {
      await send("POST", "/api/v1/drill", { do: "end", by: said.by ?? root.dataset.account, why: said.why });
      location.reload();
    });
  });

  ages();
  setInterval(() => ages(), 5000);
  return { t, number, clock, age, ages, line, follow, get, send, ask, act, acts, morph };
})();
