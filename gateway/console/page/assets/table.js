// Rows that do not have the words are hidden.
"use strict";
document.getElementById("find").addEventListener("input", (event) => {
  const plain = (s) => s.toLowerCase().normalize("NFD").replace(/[\u0300-\u036f]/g, "").replaceAll("đ", "d");
  const words = plain(event.target.value).split(/\s+/);
  for (const row of document.querySelectorAll("#devices tbody tr")) {
    const text = plain(row.textContent);
    row.hidden = !words.every((w) => text.includes(w));
  }
});
