// Reads the list of warnings again when a warning changes, and at the latest
// every minute. When the gateway cannot be reached the page says so: an old
// list must not look like a calm river.
"use strict";

let pending = null;

async function refresh() {
  pending = null;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.title = fresh.title;
    document.getElementById("warnings").replaceWith(document.adoptNode(fresh.getElementById("warnings")));
  } catch (error) {
    stale();
  }
}

function soon() {
  if (pending === null) pending = setTimeout(refresh, 250);
}

function stale() {
  const status = document.getElementById("status");
  if (status.classList.contains("stale")) return;
  status.classList.add("stale");
  status.append(" · Mất kết nối, danh sách có thể đã cũ. Connection lost: the list may be out of date.");
}

const events = new EventSource("/api/v1/events");
events.addEventListener("warning", soon);
events.addEventListener("resync", soon);
events.addEventListener("open", soon);
events.addEventListener("error", stale);
setInterval(soon, 60000);
