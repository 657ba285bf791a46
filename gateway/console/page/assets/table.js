// Rows that do not have the words, or no problem, are hidden.
"use strict";
(() => {
  const { t } = console_;
  const plain = (s) => s.toLowerCase().normalize("NFD").replace(/[\u0300-\u036f]/g, "").replaceAll("đ", "d");
  const find = document.getElementById("find"), wrong = document.getElementById("wrong-only");
  function sift() {
    const words = plain(find.value).split(/\s+/);
    let shown = 0;
    for (const row of document.querySelectorAll("#devices tbody tr")) {
      const text = plain(row.textContent);
      row.hidden = (wrong.checked && !row.classList.contains("wrong")) || !words.every((w) => text.includes(w));
      shown += row.hidden ? 0 : 1;
    }
    const sifted = find.value.trim() || wrong.checked;
    document.getElementById("found").textContent = sifted ? t(`${shown} thiết bị`, `${shown} devices`) : "";
  }
  find.addEventListener("input", sift);
  wrong.addEventListener("change", sift);
})();
