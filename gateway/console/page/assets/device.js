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

  const by = (said) => said.by ?? document.documentElement.dataset.account;
  const url = "/api/v1/devices/" + encodeURIComponent(device.dataset.id);

  // A number stays a number and a truth a truth; nothing puts back what the file says.
  const parsed = (words) => (words === "" ? null : words === "true" || words === "false" ? words === "true" : !isNaN(Number(words)) ? Number(words) : words);
  // What is no number goes as it is, for the gateway to refuse: NaN would be null, and
  // that puts back what the file says.
  const degrees = (words) => (words === "" ? null : isNaN(words.replace(",", ".")) ? words : Number(words.replace(",", ".")));
  const hint = t("để trống: lấy lại giá trị trong tệp", "empty: back to what the file says");

  function edit(button) {
    const { field, fact, text, lat, lon } = button.dataset;
    const why = { name: "why", label: t("Lý do", "Reason"), required: true };
    let fields, change;
    if (field === "place") {
      fields = [{ name: "lat", label: t("Vĩ độ", "Latitude"), value: lat }, { name: "lon", label: t("Kinh độ", "Longitude"), value: lon }];
      change = (said) => ({ lat: degrees(said.lat), lon: degrees(said.lon) });
    } else if (field) {
      fields = [{ name: "value", label: `${button.closest("tr").querySelector("th").textContent} (${hint})`, value: text }];
      change = (said) => ({ [field]: said.value || null });
    } else {
      fields = fact ? [] : [{ name: "fact", label: t("Tên thông số", "Name of the fact"), required: true }];
      fields.push({ name: "value", label: fact ? `${fact} (${hint})` : t("Giá trị", "Value"), value: text ?? "" });
      change = (said) => ({ facts: { [fact || said.fact]: parsed(said.value) } });
    }
    ask(t("Sửa thông số", "Change a fact"), [...fields, why], async (said) => {
      await send("PATCH", url, { ...change(said), why: said.why, by: by(said) });
      location.reload();
    });
  }

  function state(button) {
    const to = button.dataset.state;
    const names = { measuring: t("Đo lại", "Measure again"), maintenance: t("Bảo trì", "Maintenance"), calibrating: t("Hiệu chuẩn", "Calibrate") };
    const fields = to === "measuring" ? [] : [{ name: "for", label: t("Trong bao lâu", "For how long"), choices: [["30m", t("30 phút", "30 min")], ["2h", t("2 giờ", "2 h")], ["8h", t("8 giờ", "8 h")], ["1d", t("1 ngày", "1 day")], ["", t("đến khi đo lại", "until it is put back")]] }];
    ask(names[to], [...fields, { name: "why", label: t("Lý do", "Reason"), required: true }], async (said) => {
      const body = { state: to, why: said.why, by: by(said) };
      if (said.for) body.for = said.for;
      await send("POST", url + "/state", body);
      location.reload();
    });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.edit, button.state-act");
    if (button) (button.classList.contains("edit") ? edit : state)(button);
  });
})();
