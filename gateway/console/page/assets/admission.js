// Devices that came by themselves are approved or refused.
"use strict";
document.addEventListener("click", (event) => {
  const { t, send, ask } = console_;
  const button = event.target.closest("button.admit");
  if (!button) return;
  const device = button.closest("[data-device]").dataset.device, verb = button.dataset.do;
  const why = { name: "why", label: t("Lý do", "Reason"), required: true };
  const fields = verb === "approve" ? [{ name: "name", label: t("Tên gọi", "What people call it"), value: device, required: true }, { name: "interval", label: t("Gửi mỗi (ví dụ 10m; để trống nếu không rõ)", "It reports every (as 10m; empty where that is not known)") }, why] : [why];
  const titles = { approve: t("Duyệt thiết bị", "Approve the device"), refuse: t("Từ chối thiết bị: số đo của nó không được nhận", "Refuse the device: nothing of it is taken"), reconsider: t("Xét lại thiết bị", "Reconsider the device") };
  ask(`${titles[verb]}: ${device}`, fields, async (said) => {
    const body = { do: verb, by: said.by ?? document.documentElement.dataset.account, why: said.why };
    if (verb === "approve") Object.assign(body, { name: said.name, interval: said.interval });
    await send("POST", `/api/v1/devices/${encodeURIComponent(device)}/admission`, body);
    location.reload();
  });
});
