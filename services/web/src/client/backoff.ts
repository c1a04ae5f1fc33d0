/**
 * When to try again: full jitter, so that clients cut off together do not come back together.
 *
 * The n-th delay is uniform in [0, min(capMs, baseMs * 2^n)]. n falls back to 0 only after a connection
 * has held for `stableMs`: a server that accepts and drops at once is not hammered.
 */

export interface BackoffOptions {
  baseMs?: number;
  capMs?: number;
  stableMs?: number;
  /** Uniform in [0, 1). */
  random?: () => number;
  /** Monotonic, in ms. */
  now?: () => number;
}

export class Backoff {
  #attempt = 0;
  #openedAt: number | null = null;
  #notBefore = 0;
  readonly #options: Required<BackoffOptions>;

  constructor(options: BackoffOptions = {}) {
    const defaults = { baseMs: 500, capMs: 30_000, stableMs: 30_000 };
    this.#options = { ...defaults, random: Math.random, now: () => performance.now(), ...options };
  }

  /** Attempts since the last stable connection. */
  get attempts(): number {
    return this.#attempt;
  }

  /** Note that a connection stands. */
  opened(): void {
    this.#openedAt = this.#options.now();
  }

  /** Do not come back sooner than `ms` from now: the server asked for it. */
  hold(ms: number): void {
    this.#notBefore = Math.max(this.#notBefore, this.#options.now() + ms);
  }

  /** Return the delay before the next attempt, in ms, and count it. */
  nextDelayMs(): number {
    const { baseMs, capMs, stableMs, random, now } = this.#options;
    if (this.#openedAt !== null && now() - this.#openedAt >= stableMs) this.#attempt = 0;
    this.#openedAt = null;
    const jittered = random() * Math.min(capMs, baseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    return Math.max(jittered, this.#notBefore - now());
  }
}
