/** Short messages in the corner; at most three, the oldest goes first. */

import { button, byId, make } from "./dom";

const SHOWN_MS = 6_000;
const MAX = 3;

export function toast(title: string, body = ""): void {
  const box = byId("toasts");
  const item = make("div", { class: "toast" }, make("strong", { text: title }));
  if (body) item.append(make("span", { text: body }));
  item.append(button({ class: "close", text: "×", label: "Dismiss" }, () => item.remove()));
  box.append(item);
  while (box.childElementCount > MAX) box.firstElementChild?.remove();
  setTimeout(() => item.remove(), SHOWN_MS);
}
