import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Stream } from "../src/client/stream";
import { FakeAuth } from "./fake-socket";

/** A server's side of an EventSource, played by the test. */
class FakeSource {
  static readonly CLOSED = 2;
  static all: FakeSource[] = [];

  readonly url: string;
  readyState = 0;
  onmessage: ((event: { data: string; lastEventId: string }) => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(url: string) {
    this.url = url;
    FakeSource.all.push(this);
  }

  static get last(): FakeSource {
    const source = FakeSource.all.at(-1);
    if (!source) throw new Error("no stream was opened");
    return source;
  }

  close(): void {
    this.readyState = FakeSource.CLOSED;
  }

  event(type: string, fields: object = {}, lastEventId = ""): void {
    this.onmessage?.({ data: JSON.stringify({ type, ...fields }), lastEventId });
  }

  welcome(): void {
    this.event("connected", { stream: "edge-a.1", userId: "me", timestamp: 0, heartbeatMs: 15_000 }, "e1:4");
  }

  fail(readyState: number): void {
    this.readyState = readyState;
    this.onerror?.();
  }
}

let auth: FakeAuth;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", FakeSource);
  FakeSource.all = [];
  auth = new FakeAuth();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function openStream() {
  const stream = new Stream({ auth: auth.asAuth(), topics: ["releases"], backoff: { random: () => 0 } });
  stream.open();
  return stream;
}

const settle = () => vi.advanceTimersByTimeAsync(1);

test("a stream that the browser gave up is made anew at the cursor of the last event", async () => {
  const stream = openStream();
  FakeSource.last.welcome();
  FakeSource.last.event("notification", { id: "n1", title: "hi", createdAt: 0 }, "e1:9");

  FakeSource.last.fail(FakeSource.CLOSED);
  await settle();

  expect(FakeSource.last.url).toBe("/api/stream?topics=releases&last_event_id=e1%3A9");
  FakeSource.last.welcome();
  expect(stream.state).toBe("open");
});

test("while the browser tries by itself nothing is opened beside it", async () => {
  const stream = openStream();
  FakeSource.last.welcome();

  FakeSource.last.fail(0);
  await settle();

  expect(stream.state).toBe("waiting");
  expect(FakeSource.all).toHaveLength(1);
});

test("a stream refused twice is tried with a fresh token: the status is hidden", async () => {
  openStream();

  FakeSource.last.fail(FakeSource.CLOSED);
  await settle();
  expect(auth.refreshes).toBe(0);
  FakeSource.last.fail(FakeSource.CLOSED);
  await settle();

  expect(auth.refreshes).toBe(1);
});

test("a stream without any event for ten heartbeats is made anew", async () => {
  openStream();
  FakeSource.last.welcome();

  await vi.advanceTimersByTimeAsync(149_999);
  expect(FakeSource.all).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(2);

  expect(FakeSource.all).toHaveLength(2);
});

test("asked to come back later, it does so then", async () => {
  openStream();
  FakeSource.last.welcome();
  FakeSource.last.event("reconnect", { afterMs: 3_000 });
  expect(FakeSource.last.readyState).toBe(FakeSource.CLOSED);

  await vi.advanceTimersByTimeAsync(2_999);
  expect(FakeSource.all).toHaveLength(1);
  await settle();

  expect(FakeSource.all).toHaveLength(2);
});

test("events go to their listeners; unknown types to nobody", () => {
  const prices: number[] = [];
  const stream = openStream();
  stream.on("price_update", ({ price }) => prices.push(price));

  FakeSource.last.event("price_update", { symbol: "A", price: 2, timestamp: 0 });
  FakeSource.last.event("from_the_future", { price: 3 });

  expect(prices).toEqual([2]);
});

test("who wants log lines opens the stream with them, and without once that was refused twice", async () => {
  const stream = openStream();
  FakeSource.last.welcome();

  stream.followLogs("info");
  stream.followLogs("info");
  expect(FakeSource.all).toHaveLength(2);
  expect(FakeSource.last.url).toBe("/api/stream?topics=releases&logs=info&last_event_id=e1%3A4");
  for (const logs of ["info", null]) {
    FakeSource.last.fail(FakeSource.CLOSED);
    await settle();
    expect(new URLSearchParams(FakeSource.last.url).get("logs")).toBe(logs);
  }
});
