// The list and the history of rules: marks, conflicts, and going back.
"use strict";
const rules_ = (() => {
  const { t, ask } = console_;
  const version = () => document.getElementById("rule-book")?.dataset.version ?? "0";

  // change sends a change of what was seen as version seen; a 412 says who was faster.
  async function change(method, url, body, seen) {
    try {
      return await console_.send(method, url, { by: document.documentElement.dataset.account, ...body }, { headers: { "If-Match": `"${seen}"` } });
    } catch (error) {
      if (error.status === 412) error.message = t("Trong lúc đó người khác đã sửa quy tắc: ", "") + error.message;
      throw error;
    }
  }
  const reason = { name: "why", label: t("Lý do", "Reason"), required: true };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mark], [data-keep], [data-revert]");
    if (!button) return;
    const seen = version();
    const done = () => location.reload();
    if (button.dataset.mark) {
      const rule = button.closest("[data-rule]").dataset.rule, on = button.dataset.to === "true";
      ask(button.getAttribute("aria-label"), [reason], async (said) => {
        await change("PATCH", "/api/v1/rules/" + encodeURIComponent(rule), { ...said, [button.dataset.mark]: on }, seen);
        done();
      });
    } else if (button.dataset.revert) {
      ask(button.textContent, [reason], async (said) => {
        await change("POST", "/api/v1/rules/revert", { ...said, to: Number(button.dataset.revert) }, seen);
        location.assign("/rules/history");
      });
    } else {
      const file = button.closest("[data-file]").dataset.file;
      ask(`${button.textContent}: ${file}`, [reason], async (said) => {
        if (button.dataset.keep === "configuration") {
          await change("POST", "/api/v1/rules/revert", { ...said, to: 0, file }, seen);
        } else {
          const now = await console_.get("/api/v1/rules/file?name=" + encodeURIComponent(file));
          await change("PUT", "/api/v1/rules/file?name=" + encodeURIComponent(file), { ...said, text: now.text }, seen);
        }
        done();
      });
    }
  });

  const filter = document.getElementById("rule-filter");
  const sift = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll("#rule-list tr")) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  };
  if (filter) {
    filter.addEventListener("input", sift);
    new MutationObserver(sift).observe(document.getElementById("rule-list"), { childList: true, subtree: true });
  }
  return { change };
})();
