// A device's page: charts when they are looked at, and facts that are edited.
"use strict";
(() => {
  const { t, send, ask, acts } = console_;
  const device = document.getElementById("device");
  const start = (place) => {
    if (place.dataset.started) return;
    place.dataset.started = "yes";
    chart_.ranges(place).querySelectorAll("button")[1].click();
  };
  for (const place of document.querySelectorAll(".chart")) if (!place.closest("details")) start(place);
  for (const details of document.querySelectorAll("details.charts")) {
    details.addEventListener("toggle", () => details.open && details.querySelectorAll(".chart").forEach(start));
  }
  acts(() => location.reload());

  // A number stays a number and a truth a truth; nothing puts back what the file says.
  const parsed = (words) => (words === "" ? null : words === "true" || words === "false" ? words === "true" : words !== "" && !isNaN(Number(words)) ? Number(words) : words);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.edit");
    if (!button) return;
    const fields = [];
    if (!button.dataset.fact) fields.push({ name: "fact", label: t("Tên thông số", "Name of the fact"), required: true });
    fields.push({ name: "value", label: button.dataset.fact ? `${button.dataset.fact} (${t("để trống: lấy lại giá trị trong tệp", "empty: back to what the file says")})` : t("Giá trị", "Value"), value: button.dataset.text ?? "" });
    fields.push({ name: "why", label: t("Lý do", "Reason"), required: true });
    ask(t("Sửa thông số", "Change a fact"), fields, async (said) => {
      const body = { why: said.why, facts: { [button.dataset.fact || said.fact]: parsed(said.value) } };
      body.by = said.by ?? document.documentElement.dataset.account;
      await send("PATCH", "/api/v1/devices/" + encodeURIComponent(device.dataset.id), body);
      location.reload();
    });
  });
})();
