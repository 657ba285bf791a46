// Dead letters are retried or dropped.
"use strict";
(() => {
  const { t, send, ask } = console_;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.letter-act");
    if (!button) return;
    const letter = button.closest("[data-letter]");
    const names = { retry: t("Thử lại thư chết", "Retry the dead letter"), drop: t("Bỏ thư chết", "Drop the dead letter") };
    ask(names[button.dataset.do], [], async (said) => {
      await send("POST", `/api/v1/deadletters/${encodeURIComponent(letter.dataset.letter)}/${button.dataset.do}`, { by: said.by ?? document.documentElement.dataset.account });
      letter.remove();
    });
  });
})();
