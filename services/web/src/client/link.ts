/**
 * One WebSocket that comes back: connecting -> open -> waiting -> connecting …, or closed for good.
 *
 * It is `open` once the server said `connected`, not when the socket opened: before that nothing is promised. The close code
 * decides what follows (close-codes.ts); a code that is not in the table is a broken line, and is tried again.
 */

import type { Auth } from "./auth";
import { Backoff, type BackoffOptions } from "./backoff";
import { afterClose } from "./close-codes";
import { Watchdog } from "./watchdog";

const CONNECT_TIMEOUT_MS = 10_000;
const RATE_LIMITED_MS = 5_000;
/** Close code of a line that broke without a word (RFC 6455 section 7.1.5). */
const ABNORMAL = 1006;

export type LinkState = "connecting" | "open" | "waiting" | "closed";

export interface LinkOptions {
  auth: Auth;
  /** Asked before each attempt, so that it may carry the newest cursors. */
  url: () => string;
  onFrame: (text: string) => void;
  onBytes: (data: ArrayBuffer) => void;
  onState: (state: LinkState) => void;
  /** Failed attempts in a row before it gives up; without it, it goes on at the cap of the backoff. */
  maxAttempts?: number;
  backoff?: BackoffOptions;
}

export class Link {
  #state: LinkState = "closed";
  #socket: WebSocket | null = null;
  #watchdog: Watchdog | null = null;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  /** Ends an attempt that takes too long, or a connection that the server asked to move. */
  #limitTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #backoff: Backoff;
  readonly #options: LinkOptions;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.backoff);
  }

  get state(): LinkState {
    return this.#state;
  }

  open(): void {
    if (this.#state !== "closed") return;
    addEventListener("online", this.#onOnline);
    this.#connect();
  }

  close(): void {
    removeEventListener("online", this.#onOnline);
    clearTimeout(this.#retryTimer);
    this.#detach()?.close(1000);
    this.#enter("closed");
  }

  /** Send a frame, or bytes, if the link is open; say whether it was handed to the socket. */
  send(frame: object | Uint8Array<ArrayBuffer>): boolean {
    if (this.#state !== "open" || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(frame instanceof Uint8Array ? frame : JSON.stringify(frame));
    return true;
  }

  /** The server said `connected`, and how often it wants to hear or be heard. */
  established(heartbeatMs: number): void {
    clearTimeout(this.#limitTimer);
    this.#backoff.opened();
    const ping = () => this.send({ type: "ping" });
    this.#watchdog = new Watchdog({ heartbeatMs, ping, dead: () => this.#lost(ABNORMAL) });
    this.#watchdog.start();
    this.#enter("open");
  }

  /** Do not connect again sooner than `ms` from now. */
  hold(ms: number): void {
    this.#backoff.hold(ms);
  }

  /** The server asks this client to move: leave after `afterMs`, or earlier if it closes first, and come back then. */
  moveAfter(afterMs: number): void {
    this.hold(afterMs);
    clearTimeout(this.#limitTimer);
    this.#limitTimer = setTimeout(() => this.#lost(1012), afterMs);
  }

  /** Start over with a new socket. */
  reconnect(): void {
    this.#lost(ABNORMAL);
  }

  // -- the life of one socket ------------------------------------------------------------------------------------

  #connect(): void {
    clearTimeout(this.#retryTimer);
    this.#enter("connecting");
    const socket = new WebSocket(this.#options.url());
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#limitTimer = setTimeout(() => this.#lost(ABNORMAL), CONNECT_TIMEOUT_MS);
    socket.onmessage = (event) => {
      this.#watchdog?.heard();
      if (typeof event.data === "string") this.#options.onFrame(event.data);
      else this.#options.onBytes(event.data as ArrayBuffer);
    };
    socket.onclose = (event) => this.#lost(event.code);
  }

  /** Let go of the socket: whatever it says from now on is not heard. */
  #detach(): WebSocket | null {
    const socket = this.#socket;
    this.#socket = null;
    this.#watchdog?.stop();
    this.#watchdog = null;
    clearTimeout(this.#limitTimer);
    if (socket) socket.onmessage = socket.onclose = null;
    return socket;
  }

  #lost(code: number): void {
    this.#detach()?.close();
    const then = afterClose(code);
    if (then === "no" || this.#backoff.attempts >= (this.#options.maxAttempts ?? Infinity))
      return this.close();
    if (then === "later") this.hold(RATE_LIMITED_MS);
    this.#enter("waiting");
    this.#retryTimer = setTimeout(
      () => void this.#retry(then === "after_login"),
      this.#backoff.nextDelayMs(),
    );
  }

  async #retry(renew: boolean): Promise<void> {
    const { auth } = this.#options;
    // A failed renewal is no reason to stop: without a good token the server closes again, and the backoff grows.
    await (renew ? auth.refresh() : auth.ensureFresh()).catch(() => undefined);
    if (this.#state !== "waiting") return;
    if (auth.user) this.#connect();
    else this.close();
  }

  readonly #onOnline = (): void => {
    if (this.#state === "waiting") this.#connect();
  };

  #enter(state: LinkState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState(state);
  }
}
