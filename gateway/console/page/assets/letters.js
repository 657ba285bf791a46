// Dead letters are retried or dropped, one or all that are listed.
"use strict";
(() => {
  const { t, send, ask } = console_;
  const names = { retry: t("Thử lại thư chết", "Retry the dead letter"), drop: t("Bỏ thư chết", "Drop the dead letter") };
  const settle = (id, verb, by) => send("POST", `/api/v1/deadletters/${encodeURIComponent(id)}/${verb}`, { by });

  async function all(verb, by) {
    const listed = [...document.querySelectorAll("[data-letter]")].filter((l) => l.querySelector(`.letter-act[data-do=${verb}]`)).map((l) => l.dataset.letter);
    const place = document.getElementById("letters-said");
    let well = 0, wrong = "";
    for (const id of listed) {
      try {
        await settle(id, verb, by);
        well++;
      } catch (error) {
        if (error.status === 401) throw error;
        wrong ||= error.message;
      }
      place.textContent = t(`${well}/${listed.length} thư xong`, `${well} of ${listed.length} letters done`) + (wrong && `. ${t("Còn lại", "The others")}: ${wrong}`);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.letter-act");
    if (!button) return;
    const verb = button.dataset.do, letter = button.closest("[data-letter]");
    const title = letter ? names[verb] : button.textContent;
    ask(title, [], async (said) => {
      const by = said.by ?? document.documentElement.dataset.account;
      if (!letter) return all(verb, by);
      await settle(letter.dataset.letter, verb, by);
      letter.remove();
    });
  });
})();
