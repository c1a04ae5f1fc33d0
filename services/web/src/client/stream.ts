/**
 * Notifications, prices and status over Server-Sent Events.
 *
 * The browser's EventSource comes back by itself after a broken line, with the cursor of the last event. It gives up for good on
 * any answer but 200 (an expired token, a draining edge behind a proxy): then this makes a new one and passes the cursor in
 * the address. It hides comments and status codes, so silence is judged by events alone.
 */

import type { Auth } from "./auth";
import { Backoff, type BackoffOptions } from "./backoff";
import { Emitter } from "./emitter";
import type { LogRecord, Notification, Price, StreamConnected, StreamFrames } from "./frames";
import { Renewal } from "./renewal";

/** A stream without any event for this many heartbeats is made anew; nothing is lost by it, the cursor goes along. */
const QUIET_HEARTBEATS = 10;
const HEARTBEAT_MS = 15_000;
const TYPES: readonly string[] = [
  "connected",
  "notification",
  "price_update",
  "snapshot",
  "system_status",
  "log",
  "gap",
  "resync",
  "reconnect",
  "dropped",
  "token_expiring",
  "error",
] satisfies (keyof StreamFrames)[];

export type StreamState = "connecting" | "open" | "waiting" | "closed";

export interface StreamOptions {
  auth: Auth;
  /** Topics of notifications besides the user's own. */
  topics?: string[];
  url?: string;
  backoff?: BackoffOptions;
}

export interface StreamEvents extends StreamFrames {
  state: StreamState;
}

type StreamFrame = { type: keyof StreamFrames } & Record<string, unknown>;

export class Stream extends Emitter<StreamEvents> {
  #state: StreamState = "closed";
  #source: EventSource | null = null;
  #cursor = "";
  #id = "";
  #logs: LogRecord["level"] | "" = "";
  #quietTimer: ReturnType<typeof setTimeout> | undefined;
  #quietMs = QUIET_HEARTBEATS * HEARTBEAT_MS;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #backoff: Backoff;
  readonly #renewal: Renewal;
  readonly #options: StreamOptions;

  constructor(options: StreamOptions) {
    super();
    this.#options = options;
    this.#backoff = new Backoff(options.backoff);
    this.#renewal = new Renewal(options.auth, (token) =>
      options.auth.call("POST", `/api/stream/${this.#id}/token`, { token }),
    );
  }

  get state(): StreamState {
    return this.#state;
  }

  open(): void {
    if (this.#state === "closed") this.#connect();
  }

  close(): void {
    this.#detach();
    this.#enter("closed");
  }

  /** Be told log records at or above `level` too; for those who are told `system_status`, others are refused. */
  followLogs(level: LogRecord["level"]): void {
    if (level === this.#logs) return;
    this.#logs = level;
    if (this.#source) this.#connect();
  }

  /** Follow these symbols, on all streams of this user. */
  async subscribe(symbols: string[]): Promise<void> {
    await this.#options.auth.call("POST", "/api/stocks/subscribe", { symbols });
  }

  async unsubscribe(symbols: string[]): Promise<void> {
    await this.#options.auth.call("POST", "/api/stocks/unsubscribe", { symbols });
  }

  /** All symbols there are, with their last prices. */
  async symbols(): Promise<Price[]> {
    return (await this.#options.auth.call<{ symbols: Price[] }>("GET", "/api/stocks")).symbols;
  }

  /** The latest notifications, oldest first. */
  async notifications(limit = 30): Promise<Notification[]> {
    const path = `/api/notifications?limit=${limit}`;
    return (await this.#options.auth.call<{ notifications: Notification[] }>("GET", path)).notifications;
  }

  // -- the life of one EventSource -----------------------------------------------------------------------------------

  #connect(): void {
    this.#detach();
    this.#enter("connecting");
    const source = new EventSource(this.#url());
    this.#source = source;
    this.#watch();
    source.onmessage = (event: MessageEvent<string>) => {
      if (event.lastEventId) this.#cursor = event.lastEventId;
      this.#watch();
      this.#receive(JSON.parse(event.data) as StreamFrame);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) this.#again();
      else this.#enter("waiting"); // the browser tries again by itself
    };
  }

  #url(): string {
    const query = new URLSearchParams();
    if (this.#options.topics?.length) query.set("topics", this.#options.topics.join(","));
    if (this.#logs) query.set("logs", this.#logs);
    if (this.#cursor) query.set("last_event_id", this.#cursor);
    return `${this.#options.url ?? "/api/stream"}?${query}`;
  }

  #detach(): void {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#quietTimer);
    this.#renewal.cancel();
  }

  /** Make a new EventSource after the backoff. */
  #again(): void {
    this.#detach();
    this.#enter("waiting");
    this.#retryTimer = setTimeout(() => void this.#retry(), this.#backoff.nextDelayMs());
  }

  async #retry(): Promise<void> {
    const { auth } = this.#options;
    const refused = this.#backoff.attempts > 1;
    if (refused) this.#logs = ""; // the status is hidden: it may have been 403 for these, or 401
    // A renewal that fails leaves it to the next attempt.
    await (refused ? auth.refresh() : auth.ensureFresh()).catch(() => undefined);
    if (this.#state !== "waiting") return;
    if (auth.user) this.#connect();
    else this.close();
  }

  #watch(): void {
    clearTimeout(this.#quietTimer);
    this.#quietTimer = setTimeout(() => this.#again(), this.#quietMs);
  }

  // -- receiving ---------------------------------------------------------------------------------------------------

  #receive(frame: StreamFrame): void {
    if (!TYPES.includes(frame.type)) return; // newer than this client
    if (frame.type === "connected") this.#onConnected(frame as unknown as StreamConnected);
    if (frame.type === "reconnect") this.#moveAfter(Number(frame["afterMs"]));
    if (frame.type === "token_expiring") this.#renewal.warned(Number(frame["inMs"]));
    this.emit(frame.type, frame as never);
  }

  #onConnected(connected: StreamConnected): void {
    this.#id = connected.stream;
    this.#quietMs = QUIET_HEARTBEATS * connected.heartbeatMs;
    this.#backoff.opened();
    this.#enter("open");
  }

  /** The server asks this client to come back later, at whichever edge; it ends the stream. */
  #moveAfter(afterMs: number): void {
    this.#backoff.hold(afterMs);
    this.#again();
  }

  #enter(state: StreamState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}
