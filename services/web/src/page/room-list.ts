/** The list of rooms. Each item is made once and changed in place, so that the keyboard's focus stays where it is. */

import { button, byId, make } from "./dom";

interface Item {
  element: HTMLLIElement;
  name: HTMLButtonElement;
  badge: HTMLSpanElement;
  leave: HTMLButtonElement;
}

export class RoomList {
  readonly #items = new Map<string, Item>();
  readonly #show: (room: string) => void;
  readonly #leave: (room: string) => void;

  constructor(show: (room: string) => void, leave: (room: string) => void) {
    this.#show = show;
    this.#leave = leave;
  }

  add(room: string): void {
    const badge = make("span", { class: "badge" });
    const name = button({ class: "room", testid: `room-${room}` }, () => this.#show(room));
    name.append(make("span", { class: "room-label", text: room }), badge);
    const leave = button({ class: "close", text: "×", label: `Leave ${room}` }, () => this.#leave(room));
    const element = make("li", {}, name, leave);
    this.#items.set(room, { element, name, badge, leave });
    byId("room-list").append(element);
    this.#keepOne();
    this.setUnread(room, 0);
  }

  remove(room: string): void {
    this.#items.get(room)?.element.remove();
    this.#items.delete(room);
    this.#keepOne();
  }

  setCurrent(room: string): void {
    for (const [name, item] of this.#items) item.name.setAttribute("aria-current", String(name === room));
  }

  setUnread(room: string, unread: number): void {
    const badge = this.#items.get(room)?.badge;
    if (!badge) return;
    badge.textContent = String(unread);
    badge.setAttribute("aria-label", `${unread} unread`);
    badge.hidden = unread === 0;
  }

  /** The last room cannot be left: there is always one in view. */
  #keepOne(): void {
    for (const { leave } of this.#items.values()) leave.hidden = this.#items.size === 1;
  }
}
