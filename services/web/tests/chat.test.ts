import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Chat } from "../src/client/chat";
import type { ChatMessage } from "../src/client/frames";
import { ProblemError } from "../src/client/http";
import { FakeAuth, FakeSocket } from "./fake-socket";

let auth: FakeAuth;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("removeEventListener", () => undefined);
  FakeSocket.all = [];
  auth = new FakeAuth();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function openChat(rooms = ["general"]) {
  const chat = new Chat({ auth: auth.asAuth(), rooms, url: "/ws/chat", backoff: { random: () => 0 } });
  const seen: string[] = [];
  chat.on("message", ({ content }) => seen.push(content));
  chat.open();
  return { chat, seen };
}

function message(seq: number, more: Partial<ChatMessage> = {}): ChatMessage {
  const fixed = { room: "general", userId: "other", username: "other", timestamp: 0 };
  return { ...fixed, id: `m${seq}`, seq, cursor: `e1:${seq}`, content: `text ${seq}`, ...more };
}

const settle = () => vi.advanceTimersByTimeAsync(1);

test("it comes back with the cursor of the last message and shows nothing twice", async () => {
  const { seen } = openChat();
  FakeSocket.last.welcome({ general: "e1:5" });
  FakeSocket.last.frame("chat_message", message(6));
  FakeSocket.last.drop(1006);
  await settle();

  expect(FakeSocket.last.url).toBe("/ws/chat?room=general&cursor=e1%3A6");
  FakeSocket.last.welcome({ general: "e1:6" });
  FakeSocket.last.frame("chat_message", message(6));
  FakeSocket.last.frame("chat_message", message(7));

  expect(seen).toEqual(["text 6", "text 7"]);
});

test("a message is kept until it is acked and sent again under the same id", async () => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:0" });
  const { clientId, stored } = chat.send("general", "hello");
  auth.answer = () => {
    throw new ProblemError({ code: "network", detail: "", retryable: true });
  };
  FakeSocket.last.drop(1006);
  await settle();
  FakeSocket.last.welcome({ general: "e1:0" });
  await vi.advanceTimersByTimeAsync(2_000);

  const [again] = FakeSocket.last.ofType("send_message");
  expect(again).toMatchObject({ id: clientId, data: { content: "hello", clientId } });
  FakeSocket.last.frame("ack", { id: "m1", seq: 1, cursor: "e1:1", clientId });
  expect(await stored).toMatchObject({ id: "m1" });
});

test("an ack does not move the cursor past what others said before it", async () => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:5" });
  const { clientId } = chat.send("general", "mine");
  FakeSocket.last.frame("ack", { id: "m7", seq: 7, cursor: "e1:7", clientId });
  FakeSocket.last.drop(1006);
  await settle();

  expect(FakeSocket.last.url).toContain("cursor=e1%3A5");
});

test("while the socket is down a message goes by HTTP", async () => {
  const { chat } = openChat();
  auth.answer = () => ({ id: "m1", seq: 1, cursor: "e1:1" });

  const { clientId, stored } = chat.send("general", "hello");

  await expect(stored).resolves.toMatchObject({ id: "m1" });
  expect(auth.calls).toEqual([
    ["POST", "/api/chat/messages", { room: "general", content: "hello", clientId }],
  ]);
});

test("a message refused for good is rejected with the reason", async () => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:0" });
  const { clientId, stored } = chat.send("general", "no");

  FakeSocket.last.frame("error", { code: "bad_input", message: "Not that.", retryable: false }, clientId);

  await expect(stored).rejects.toMatchObject({ code: "bad_input", message: "Not that." });
});

test("a rate-limited message waits as long as the server says", async () => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:0" });
  const { clientId } = chat.send("general", "much");
  const error = { code: "rate_limited", message: "", retryable: true, retryAfterMs: 9_000 };
  FakeSocket.last.frame("error", error, clientId);

  await vi.advanceTimersByTimeAsync(8_999);
  expect(FakeSocket.last.ofType("send_message")).toHaveLength(1);
  await settle();
  expect(FakeSocket.last.ofType("send_message")).toHaveLength(2);
});

test.each([
  [1000, "closed", 0],
  [4010, "closed", 0],
  [4008, "connecting", 1],
  [1012, "connecting", 0],
])("close code %i leads to %s with %i token renewals", async (code, state, refreshes) => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:0" });

  FakeSocket.last.drop(code);
  await settle();

  expect(chat.state).toBe(state);
  expect(auth.refreshes).toBe(refreshes);
});

test("asked to move, it comes back when it was told to, not before", async () => {
  const { chat } = openChat();
  FakeSocket.last.welcome({ general: "e1:0" });
  FakeSocket.last.frame("reconnect", { afterMs: 4_000 });
  FakeSocket.last.drop(1012);

  await vi.advanceTimersByTimeAsync(3_999);
  expect(chat.state).toBe("waiting");
  await settle();
  expect(chat.state).toBe("connecting");
});

test("a socket that never says connected is given up", async () => {
  openChat();

  await vi.advanceTimersByTimeAsync(10_001);

  expect(FakeSocket.all).toHaveLength(2);
});

test("a resync moves the cursor, loads the history and is announced", async () => {
  const { chat, seen } = openChat();
  const announced: string[] = [];
  chat.on("resync", ({ reason }) => announced.push(reason));
  chat.on("history", ({ room }) => announced.push(room));
  FakeSocket.last.welcome({ general: "e1:90" });
  await settle();
  FakeSocket.last.frame("resync", { room: "general", reason: "epoch_changed", cursor: "e2:0" });
  FakeSocket.last.frame("chat_message", message(1, { cursor: "e2:1" }));
  await settle();

  expect(announced).toEqual(["general", "epoch_changed", "general"]);
  expect(seen).toEqual(["text 1"]);
});

test.each(["gap", "resync"] as const)(
  "whoever is cut off behind a %s comes back from where it said",
  async (type) => {
    openChat();
    FakeSocket.last.welcome({ general: "e1:5" });
    await settle();
    FakeSocket.last.frame(type, { room: "general", reason: "expired", cursor: "e1:9" });
    FakeSocket.last.drop(1006);
    await settle();

    expect(FakeSocket.last.url).toBe("/ws/chat?room=general&cursor=e1%3A9");
  },
);

test("a refused room costs itself alone", async () => {
  const { chat } = openChat(["general", "secret"]);
  const left: string[] = [];
  chat.on("left", ({ room }) => left.push(room));
  FakeSocket.last.frame("error", { code: "forbidden", message: "private", retryable: false });
  await settle();

  expect(FakeSocket.last.url).toBe("/ws/chat?room=general&cursor=");
  FakeSocket.last.welcome({ general: "e1:0" });
  expect(FakeSocket.last.ofType("join")).toMatchObject([{ id: "secret", data: { room: "secret" } }]);
  FakeSocket.last.frame("error", { code: "forbidden", message: "private", retryable: false }, "secret");

  expect(chat.rooms).toEqual(["general"]);
  expect(left).toEqual(["secret"]);
});

test("an open connection is given a token that outlives its own, once, some time into the warning", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  openChat();
  FakeSocket.last.welcome({ general: "e1:0" });
  FakeSocket.last.frame("token_expiring", { inMs: 30_000 });
  FakeSocket.last.frame("token_expiring", { inMs: 30_000 });

  await vi.advanceTimersByTimeAsync(7_499);
  expect(FakeSocket.last.ofType("auth")).toEqual([]);
  await settle();
  expect(FakeSocket.last.ofType("auth")).toEqual([{ type: "auth", token: "good for more than 22500" }]);
});

test("a room is marked as read at once, then seldom, again until that is stored, and never backwards", async () => {
  const { chat } = openChat();
  const read: [string, number][] = [];
  chat.on("read", ({ cursor, unread }) => read.push([cursor, unread]));
  const marks = () => FakeSocket.last.ofType("mark_read").map(({ data }) => data?.["cursor"]);
  FakeSocket.last.welcome({ general: "e1:5" });
  chat.markRead("general");
  for (const seq of [6, 7, 8]) {
    FakeSocket.last.frame("chat_message", message(seq));
    chat.markRead("general");
  }
  expect(marks()).toEqual(["e1:5"]);

  await vi.advanceTimersByTimeAsync(3_000);
  expect(marks()).toEqual(["e1:5", "e1:8"]);
  FakeSocket.last.drop(1006);
  await settle();
  FakeSocket.last.welcome({ general: "e1:8" });
  await vi.advanceTimersByTimeAsync(3_000);
  expect(marks()).toEqual(["e1:8"]);

  FakeSocket.last.frame("read", { room: "general", cursor: "e1:8", unread: 0 }, "read:general");
  FakeSocket.last.frame("read", { room: "general", cursor: "e1:6", unread: 2 }); // of another edge, and late
  chat.markRead("general");
  await vi.advanceTimersByTimeAsync(9_000);
  expect(marks()).toEqual(["e1:8"]);
  expect(read).toEqual([["e1:8", 0]]);
});

test("it gives up after as many attempts as it is allowed", async () => {
  const chat = new Chat({
    auth: auth.asAuth(),
    url: "/ws/chat",
    maxAttempts: 3,
    backoff: { random: () => 0 },
  });
  chat.open();
  for (let i = 0; i < 5; i++) {
    FakeSocket.last.drop(1006);
    await settle();
  }

  expect(chat.state).toBe("closed");
  expect(FakeSocket.all).toHaveLength(4);
});
