/**
 * Finds out that a connection is dead though nobody said so (a proxy gone, a laptop that slept).
 *
 * A browser hides WebSocket pings, so the client asks for itself: silent for one heartbeat, it pings; no byte for
 * 1.5 more, it gives up. Judging from the unanswered ping, not from silence alone, keeps a background tab
 * with throttled timers alive.
 */

export interface WatchdogOptions {
  heartbeatMs: number;
  ping: () => void;
  dead: () => void;
  /** Monotonic, in ms. */
  now?: () => number;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #now: () => number;
  #heardAt: number;
  #pingedAt: number | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#heardAt = this.#now();
  }

  start(): void {
    this.#timer = setInterval(() => this.tick(), this.#options.heartbeatMs / 4);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Note that something arrived. */
  heard(): void {
    this.#heardAt = this.#now();
    this.#pingedAt = null;
  }

  /** Look at the clock; called by the timer. */
  tick(): void {
    const { heartbeatMs, ping, dead } = this.#options;
    const now = this.#now();
    if (this.#pingedAt !== null) {
      if (now - this.#pingedAt >= 1.5 * heartbeatMs) dead();
    } else if (now - this.#heardAt >= heartbeatMs) {
      this.#pingedAt = now;
      ping();
    }
  }
}
