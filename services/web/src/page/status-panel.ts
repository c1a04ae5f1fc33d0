/** The status panel. Only those who may read it are sent any status: it appears with the first. */

import type { Stream, SystemStatus } from "../client";
import { byId, make } from "./dom";
import { openLogLines } from "./log-lines";

/** A part that says nothing for this long is shown as silent, and after ten times that not at all. */
const SILENT_MS = 15_000;
const CHECK_MS = 5_000;

interface Part {
  element: HTMLLIElement;
  heardAt: number;
}

export function openStatusPanel(stream: Stream): void {
  const parts = new Map<string, Part>();
  openLogLines(stream);
  stream.on("system_status", (status) => {
    byId("status").hidden = false;
    stream.followLogs("info");
    const key = `${status.component}.${status.instance}`;
    const element = card(status);
    const known = parts.get(key);
    if (known) known.element.replaceWith(element);
    else byId("status-list").append(element);
    parts.set(key, { element, heardAt: performance.now() });
  });
  setInterval(() => markSilent(parts), CHECK_MS);
}

function markSilent(parts: Map<string, Part>): void {
  for (const [key, { element, heardAt }] of parts) {
    const quietMs = performance.now() - heardAt;
    element.classList.toggle("stale", quietMs > SILENT_MS);
    if (quietMs < 10 * SILENT_MS) continue;
    element.remove();
    parts.delete(key);
  }
}

function card({ component, instance, status, metrics }: SystemStatus): HTMLLIElement {
  const state = make("span", { class: "state", text: status });
  state.dataset["status"] = status;
  const facts = make("dl");
  for (const [name, value] of Object.entries(metrics)) {
    facts.append(make("dt", { text: name }), make("dd", { text: String(value) }));
  }
  const head = make("div", { class: "head" }, make("strong", { text: component }), state);
  return make("li", {}, head, make("p", { class: "muted", text: instance }), facts);
}
