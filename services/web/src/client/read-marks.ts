/**
 * What this user has read, on its way to the server: the newest place of each room, the first at once and then at most
 * one every EVERY_MS, again and again until the server says that it has it.
 */

import { isBehind } from "./cursor";
import type { ReadMarker } from "./frames";

const EVERY_MS = 3_000;

export class ReadMarks {
  readonly #send: (room: string, cursor: string) => void;
  /** Places that the server does not have yet, as far as this client knows. */
  readonly #wanted = new Map<string, string>();
  readonly #stored = new Map<string, string>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: (room: string, cursor: string) => void) {
    this.#send = send;
  }

  mark(room: string, cursor: string): void {
    const stored = this.#stored.get(room);
    if (stored !== undefined && (stored === cursor || isBehind(cursor, stored))) return;
    this.#wanted.set(room, cursor);
    if (this.#timer === undefined) this.#flush();
  }

  /** Take what the server says; false if it has said more before: what edges say may overtake each other. */
  told({ room, cursor }: ReadMarker): boolean {
    const stored = this.#stored.get(room);
    if (stored !== undefined && isBehind(cursor, stored)) return false;
    this.#stored.set(room, cursor);
    const wanted = this.#wanted.get(room);
    if (wanted !== undefined && !isBehind(cursor, wanted)) this.#wanted.delete(room);
    return true;
  }

  /** The server will never have this one. */
  refused(room: string): void {
    this.#wanted.delete(room);
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#wanted.clear();
  }

  #flush(): void {
    this.#timer = undefined;
    if (!this.#wanted.size) return;
    for (const [room, cursor] of this.#wanted) this.#send(room, cursor);
    this.#timer = setTimeout(() => this.#flush(), EVERY_MS);
  }
}
