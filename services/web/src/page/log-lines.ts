/** The last log lines of all running parts, the newest first; they appear with the first. */

import type { LogRecord, Stream } from "../client";
import { byId, make } from "./dom";

const MAX_LINES = 50;

export function openLogLines(stream: Stream): void {
  const lines = byId("log-lines");
  const show = (line: HTMLElement): void => {
    lines.hidden = false;
    lines.prepend(line);
    if (lines.childElementCount > MAX_LINES) lines.lastElementChild?.remove();
  };
  stream.on("log", (record) => show(lineOf(record)));
  stream.on("dropped", ({ kind, count }) => {
    if (kind === "log") show(make("p", { class: "muted", text: `${count} lines were not shown` }));
  });
}

function lineOf({ component, instance, level, event, fields, timestamp, dropped }: LogRecord): HTMLElement {
  const time = make("time", { class: "muted", text: new Date(timestamp).toLocaleTimeString() });
  const told = Object.entries(fields).map(([name, value]) => ` ${name}=${value}`);
  if (dropped) told.unshift(` (${dropped} lines before it were not told)`);
  const line = make(
    "p",
    { title: instance },
    time,
    ` ${component} `,
    make("strong", { text: event }),
    ...told,
  );
  line.dataset["level"] = level;
  return line;
}
