/**
 * The messages of one room as a list in the order of the stream. History, live messages and own pending ones meet here: a
 * message is known by its id, an own one also by its clientId until the server gave it a place.
 */

import type { ChatMessage, Receipt } from "../client";
import { button, hue, make, timeOf } from "./dom";

const MAX_SHOWN = 500;

interface Row {
  element: HTMLLIElement;
  /** Place in the stream; Infinity while pending, so that it stays last. */
  seq: number;
}

export class RoomLog {
  readonly element = make("ol", { class: "messages" });
  readonly #ownId: string;
  readonly #earlier: HTMLButtonElement;
  #rows: Row[] = [];
  #byId = new Map<string, Row>();
  #pending = new Map<string, Row>();
  #oldest: string | null = null;

  constructor(ownId: string, loadEarlier: (before: string) => void) {
    this.#ownId = ownId;
    this.#earlier = button({ class: "quiet", text: "Load earlier messages" }, () => {
      if (this.#oldest) loadEarlier(this.#oldest);
    });
    this.#earlier.hidden = true;
    this.element.append(make("li", { class: "earlier" }, this.#earlier));
  }

  /** Show a message; false if it stands there already. */
  add(message: ChatMessage): boolean {
    if (this.#byId.has(message.id)) return false;
    const own = message.userId === this.#ownId;
    const pending = own && message.clientId ? this.#pending.get(message.clientId) : undefined;
    if (pending) this.#drop(pending);
    if (message.clientId) this.#pending.delete(message.clientId);
    this.#byId.set(message.id, this.#insert({ element: bubble(message, own), seq: message.seq }));
    this.#trim();
    return pending === undefined;
  }

  /** Show a page of history; `more` offers what came before it. */
  addHistory(messages: ChatMessage[], more: boolean): void {
    for (const message of messages) this.add(message);
    const first = messages[0];
    if (!first) return;
    const before = this.#oldest;
    if (before === null || first.seq <= seqOf(before)) {
      this.#oldest = first.cursor;
      this.#earlier.hidden = !more;
    }
  }

  /** Show an own message that is on its way. */
  addPending(clientId: string, content: string, userId: string, username: string): void {
    const draft = { id: "", room: "", seq: 0, cursor: "", userId, username, content, timestamp: Date.now() };
    const element = bubble(draft, true);
    element.classList.add("pending");
    element.dataset["clientId"] = clientId;
    this.#pending.set(clientId, this.#insert({ element, seq: Infinity }));
  }

  /** The server stored an own message: give it its place. */
  stored(clientId: string, receipt: Receipt): void {
    const row = this.#pending.get(clientId);
    this.#pending.delete(clientId);
    if (!row) return;
    this.#drop(row);
    if (this.#byId.has(receipt.id)) return;
    row.element.classList.remove("pending");
    row.seq = receipt.seq;
    this.#byId.set(receipt.id, this.#insert(row));
  }

  /** An own message will never be stored: say why, and offer to try again. */
  refused(clientId: string, reason: string, retry: () => void): void {
    const row = this.#pending.get(clientId);
    this.#pending.delete(clientId);
    if (!row) return;
    row.element.classList.replace("pending", "refused");
    const again = button({ class: "link", text: "Try again" }, () => {
      this.#drop(row);
      retry();
    });
    row.element.append(make("p", { class: "reason", text: `Not sent: ${reason} ` }, again));
  }

  /** Take away all that was stored; what is pending stays. */
  clear(): void {
    const pending = new Set(this.#pending.values());
    for (const row of [...this.#rows]) if (!pending.has(row)) this.#drop(row);
    this.#byId.clear();
    this.#oldest = null;
    this.#earlier.hidden = true;
  }

  /** Say something in the log that is no message. */
  notice(text: string): void {
    const last = this.#rows.at(-1);
    if (last?.element.dataset["notice"] === text) return;
    const element = make("li", { class: "notice", text });
    element.dataset["notice"] = text;
    const lastSeq = this.#rows.findLast((row) => row.seq !== Infinity)?.seq ?? 0;
    this.#insert({ element, seq: lastSeq });
  }

  // -- order -------------------------------------------------------------------------------------------------------

  #insert(row: Row): Row {
    let at = this.#rows.length;
    while (at > 0 && (this.#rows[at - 1]?.seq ?? 0) > row.seq) at -= 1;
    this.element.insertBefore(row.element, this.#rows[at]?.element ?? null);
    this.#rows.splice(at, 0, row);
    this.#group(at);
    this.#group(at + 1);
    return row;
  }

  #drop(row: Row): void {
    const at = this.#rows.indexOf(row);
    this.#rows.splice(at, 1);
    row.element.remove();
    this.#group(at);
  }

  /** A message right after another of the same author needs no second head. */
  #group(at: number): void {
    const row = this.#rows[at];
    const author = row?.element.dataset["author"];
    const same = author !== undefined && author === this.#rows[at - 1]?.element.dataset["author"];
    row?.element.classList.toggle("follows", same);
  }

  /** Keep the newest; what is cut off can be loaded again. */
  #trim(): void {
    if (this.#rows.length <= MAX_SHOWN) return;
    const cut = this.#rows.splice(0, this.#rows.length - MAX_SHOWN);
    for (const { element } of cut) {
      element.remove();
      this.#byId.delete(element.dataset["id"] ?? "");
    }
    this.#oldest =
      this.#rows.find(({ element }) => element.dataset["cursor"])?.element.dataset["cursor"] ?? this.#oldest;
    this.#earlier.hidden = false;
    this.#group(0);
  }
}

function bubble(message: ChatMessage, own: boolean): HTMLLIElement {
  const name = make("span", { class: `author ${hue(message.userId)}`, text: own ? "You" : message.username });
  const element = make(
    "li",
    { class: own ? "message own" : "message" },
    make("div", { class: `face ${hue(message.userId)}`, text: message.username.slice(0, 1).toUpperCase() }),
    make("div", { class: "head" }, name, timeOf(message.timestamp)),
    make("p", { class: "content", text: message.content }),
  );
  element.dataset["author"] = message.userId;
  element.dataset["id"] = message.id;
  element.dataset["cursor"] = message.cursor;
  element.querySelector(".face")?.setAttribute("aria-hidden", "true");
  return element;
}

function seqOf(cursor: string): number {
  return Number(cursor.slice(cursor.indexOf(":") + 1));
}
