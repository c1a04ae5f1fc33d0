/**
 * Who is signed in. The tokens live in cookies that no script can read; what is kept in `localStorage`, shared by the tabs of
 * this browser, is the user and when to refresh. One tab at a time refreshes: a refresh token is good for one use.
 */

import { Emitter } from "./emitter";
import { type Method, asProblem, request } from "./http";

const STORE = "fanfare.session";
/** Refresh this share of the token's life before its end, at least 5 s before it. */
const EARLY_SHARE = 0.2;
const RETRY_MS = 5_000;
/** Tokens whose ends differ by less are taken for the same. */
const MARGIN_MS = 2_000;

export interface User {
  id: string;
  username: string;
  displayName?: string;
}

interface SessionAnswer {
  access_token: string;
  /** Seconds. */
  expires_in: number;
  user: User;
}

interface Session {
  user: User;
  /** When to refresh, ms since the epoch. */
  refreshAt: number;
}

export interface AuthEvents {
  /** Signed in, out, or as someone else; also from another tab. */
  change: User | null;
}

export class Auth extends Emitter<AuthEvents> {
  #session: Session | null = load();
  /** The last access token that this tab received; empty if another tab did. */
  #token = "";
  #tokenEndsAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #refreshing: Promise<void> | null = null;

  constructor() {
    super();
    addEventListener("storage", (event) => {
      if (event.key === STORE) this.#adopt(load());
    });
    this.#schedule();
  }

  get user(): User | null {
    return this.#session?.user ?? null;
  }

  /** Make an account and sign in. */
  async register(username: string, password: string, displayName?: string): Promise<User> {
    await request("POST", "/api/auth/register", { username, password, ...(displayName && { displayName }) });
    return this.login(username, password);
  }

  async login(username: string, password: string): Promise<User> {
    const answer = await request<SessionAnswer>("POST", "/api/auth/login", { username, password });
    this.#keep(answer);
    return answer.user;
  }

  /** End the session everywhere; this browser forgets it even if the server does not answer. */
  async logout(): Promise<void> {
    try {
      await request("POST", "/api/auth/logout");
    } finally {
      this.#forget();
    }
  }

  /** Get a new access token now. A session that is over ends in `change` with null; other failures are thrown. */
  refresh(): Promise<void> {
    this.#refreshing ??= alone(() => this.#rotate()).finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  /** Refresh if the access token is about to end. */
  async ensureFresh(): Promise<void> {
    if (this.#session && Date.now() >= this.#session.refreshAt) await this.refresh();
  }

  /**
   * Return an access token that holds for longer than `lifeMs`, for a connection that is already open; all others have
   * the cookie.
   */
  async token(lifeMs: number): Promise<string> {
    if (this.#tokenEndsAt <= Date.now() + lifeMs + MARGIN_MS) await this.refresh();
    return this.#token;
  }

  /** Call a service; a token that ran out is renewed and the call repeated once. */
  async call<T>(method: Method, path: string, body?: unknown): Promise<T> {
    try {
      await this.ensureFresh();
      return await request<T>(method, path, body);
    } catch (error) {
      if (asProblem(error).status !== 401 || !this.#session) throw error;
      await this.refresh();
      return request<T>(method, path, body);
    }
  }

  async #rotate(): Promise<void> {
    try {
      this.#keep(await request<SessionAnswer>("POST", "/api/auth/refresh"));
    } catch (error) {
      if (asProblem(error).retryable) throw error;
      this.#forget();
    }
  }

  #keep(answer: SessionAnswer): void {
    const lifeMs = answer.expires_in * 1000;
    const refreshAt = Date.now() + lifeMs - Math.max(5_000, EARLY_SHARE * lifeMs);
    const session = { user: answer.user, refreshAt };
    localStorage.setItem(STORE, JSON.stringify(session));
    this.#token = answer.access_token;
    this.#tokenEndsAt = Date.now() + lifeMs;
    this.#adopt(session);
  }

  #forget(): void {
    localStorage.removeItem(STORE);
    this.#token = "";
    this.#tokenEndsAt = 0;
    this.#adopt(null);
  }

  #adopt(session: Session | null): void {
    const before = this.user?.id;
    this.#session = session;
    this.#schedule();
    if (this.user?.id !== before) this.emit("change", this.user);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#session)
      this.#timer = setTimeout(this.#onTimer, Math.max(0, this.#session.refreshAt - Date.now()));
  }

  readonly #onTimer = (): void => {
    this.refresh().catch(() => (this.#timer = setTimeout(this.#onTimer, RETRY_MS * (1 + Math.random()))));
  };
}

function load(): Session | null {
  const text = localStorage.getItem(STORE);
  return text ? (JSON.parse(text) as Session) : null;
}

/** Run `work` in one tab at a time (Web Locks; without them the server takes a token just used once more). */
function alone(work: () => Promise<void>): Promise<void> {
  return "locks" in navigator ? navigator.locks.request(STORE, work) : work();
}
