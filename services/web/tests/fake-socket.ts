/** A server's side of a WebSocket, played by the test. The real one is played against in tests/e2e. */

import type { Auth } from "../src/client/auth";
import type { ChatFrames } from "../src/client/frames";

export class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];

  readonly url: string;
  readyState = 0;
  binaryType = "blob";
  sent: { type: string; id?: string; data?: Record<string, unknown> }[] = [];
  bytes: Uint8Array[] = [];
  onmessage: ((event: { data: string | ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;

  constructor(url: string) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  send(data: string | Uint8Array): void {
    if (typeof data === "string") this.sent.push(JSON.parse(data) as (typeof this.sent)[number]);
    else this.bytes.push(data);
  }

  close(): void {
    this.readyState = 3;
  }

  /** Accept, and say `connected` with these rooms. */
  welcome(rooms: Record<string, string>): void {
    this.readyState = FakeSocket.OPEN;
    const entries = Object.entries(rooms).map(([room, cursor]) => ({ room, cursor, members: [] }));
    const data = { userId: "me", username: "me", session: "edge-a.1", rooms: entries, heartbeatMs: 20_000 };
    this.frame("connected", data);
  }

  frame<T extends keyof ChatFrames>(type: T, data: Partial<ChatFrames[T]>, id?: string): void {
    this.onmessage?.({ data: JSON.stringify({ type, data, ...(id && { id }) }) });
  }

  drop(code: number): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  ofType(type: string): (typeof this.sent)[number][] {
    return this.sent.filter((frame) => frame.type === type);
  }
}

/** What the chat asks of an Auth; `call` answers what the test gives it. */
export class FakeAuth {
  user: { id: string; username: string } | null = { id: "me", username: "me" };
  refreshes = 0;
  calls: [method: string, path: string, body?: unknown][] = [];
  answer: (path: string) => unknown = () => ({ messages: [], cursor: "e1:0", more: false });

  async refresh(): Promise<void> {
    this.refreshes += 1;
  }

  async ensureFresh(): Promise<void> {}

  async token(lifeMs: number): Promise<string> {
    return `good for more than ${lifeMs}`;
  }

  async call(method: string, path: string, body?: unknown): Promise<unknown> {
    this.calls.push([method, path, body]);
    return this.answer(path);
  }

  asAuth(): Auth {
    return this as unknown as Auth;
  }
}
