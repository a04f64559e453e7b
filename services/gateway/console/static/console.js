// What a page can do besides being read: copy ids, keep "3 min ago" true, and hold still while somebody works in it.
"use strict";

const AGO_EVERY_MS = 5000;
const COPIED_FOR_MS = 1200;
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function ago(moment) {
  const seconds = (Date.now() - moment) / 1000;
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const [unit, length] = UNITS.find(([, each]) => size >= each);
  const text = `${Math.floor(size / length)}\u00a0${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function refresh() {
  for (const shown of document.querySelectorAll("time [data-ago]")) {
    shown.textContent = ago(Date.parse(shown.closest("time").getAttribute("datetime")));
  }
}

function enable(root) {
  for (const button of root.querySelectorAll("button.copy[hidden]")) button.hidden = false;
}

// Whether a field says something else than the page that brought it, with the focus or without: to lose that could retry what was to be put away.
function changed(field) {
  if (field.tagName === "SELECT") {
    return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  }
  return field.checked !== field.defaultChecked || field.value !== field.defaultValue;
}

// Whoever types, chooses, selects or has something open in what would be replaced is not disturbed.
function busy(region) {
  if (region.contains(document.activeElement) && document.activeElement !== region) return true;
  if (region.querySelector("details[data-touched]")) return true;
  if ([...region.querySelectorAll("input, select, textarea")].some(changed)) return true;
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && region.contains(selection.anchorNode));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), COPIED_FOR_MS);
  tell("Copied");
});

document.addEventListener("toggle", (event) => {
  if (event.target.tagName === "DETAILS") event.target.toggleAttribute("data-touched", event.target.open);
}, true);

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (busy(document.getElementById("live"))) event.preventDefault();
});
document.addEventListener("htmx:sseMessage", () => {
  enable(document);
  tell("Live");
});
document.addEventListener("htmx:sseError", () => tell("Not connected; what is shown may be old"));
document.addEventListener("htmx:sseOpen", () => tell("Live"));

function tell(text) {
  const shown = document.getElementById("freshness");
  shown.hidden = false;
  shown.textContent = text;
}

// Browsers open six connections to one host: tabs that nobody looks at let theirs go.
let source = null;

htmx.createEventSource = (address) => {
  source = new EventSource(address);
  return source;
};

document.addEventListener("visibilitychange", () => {
  const live = document.getElementById("live");
  if (!live || !source) return;
  if (document.hidden) {
    source.close();
  } else if (source.readyState === EventSource.CLOSED && busy(live)) {
    tell("Not connected; what is shown may be old");
  } else if (source.readyState === EventSource.CLOSED) {
    const fresh = live.cloneNode(true);
    live.replaceWith(fresh);
    htmx.process(fresh);
  }
});

// Whoever signs out here is on their way already.
let leaving = false;

window.addEventListener("beforeunload", () => { leaving = true; });
window.addEventListener("pageshow", () => { leaving = false; });

// Signed out elsewhere, or the key was revoked: the page leads to signing in.
document.addEventListener("htmx:sseClose", (event) => {
  if (event.detail.type === "message" && !leaving) location.reload();
});

enable(document);
setInterval(refresh, AGO_EVERY_MS);
