/**
 * Gives an open connection a new token before its own ends, so that it need not be made anew.
 *
 * Not at once but at a random moment in the first half of what is left: the clients of an edge that all came at the same
 * time do not all refresh at the same time, and a server that warns again is not answered in a loop.
 */

import type { Auth } from "./auth";
import { asProblem } from "./http";

export class Renewal {
  readonly #auth: Auth;
  readonly #give: (token: string) => unknown;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(auth: Auth, give: (token: string) => unknown) {
    this.#auth = auth;
    this.#give = give;
  }

  /** The server says that the connection's token ends in `inMs`. */
  warned(inMs: number): void {
    const delayMs = (Math.random() * inMs) / 2;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#renew(inMs - delayMs), delayMs);
  }

  /** The connection is gone. */
  cancel(): void {
    clearTimeout(this.#timer);
  }

  /** A renewal that fails is no loss: the connection ends, and comes back with the cookie. */
  async #renew(leftMs: number): Promise<void> {
    await this.#auth.token(leftMs).then(this.#give).catch(asProblem);
  }
}
