// An exercise is started: with a scenario, or of one warning only.
"use strict";
(() => {
  const { t, send, ask } = console_;
  const root = document.documentElement;
  for (const form of document.querySelectorAll(".drill-form")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const said = Object.fromEntries(new FormData(form));
      const body = { do: "start", why: said.why.trim(), last: said.last };
      if (form.dataset.kind === "scenario") {
        const { file, name } = JSON.parse(said.scenario);
        Object.assign(body, { file, name });
      } else {
        Object.assign(body, { device: said.device, severity: said.severity, text: said.text.trim() });
      }
      ask(t("Bắt đầu diễn tập? Nơi nhận thật sẽ nhận tin ghi DIỄN TẬP.", "Start the exercise? The real recipients get messages that say EXERCISE."), [], async (who) => {
        await send("POST", "/api/v1/drill", { ...body, by: who.by ?? root.dataset.account });
        location.href = "/";
      });
    });
  }
})();
