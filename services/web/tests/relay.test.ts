import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Chat } from "../src/client/chat";
import type { Relayed } from "../src/client/relay";
import { FakeAuth, FakeSocket } from "./fake-socket";

let chat: Chat;
let heard: Relayed[];

beforeEach(() => {
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("addEventListener", () => undefined);
  FakeSocket.all = [];
  heard = [];
  chat = new Chat({ auth: new FakeAuth().asAuth(), rooms: ["game"], url: "/ws/chat" });
  chat.on("relay", (relayed) => heard.push(relayed));
  chat.open();
});

afterEach(() => vi.unstubAllGlobals());

const ascii = (text: string) => [...text].map((letter) => letter.charCodeAt(0));
const come = (...bytes: number[]) => FakeSocket.last.onmessage?.({ data: new Uint8Array(bytes).buffer });

test("bytes for a room go as they are, behind its name", () => {
  FakeSocket.last.welcome({ game: "e1:0" });

  expect(chat.relay("game", new Uint8Array([0, 255, 1]))).toBe(true);
  expect([...(FakeSocket.last.bytes[0] ?? [])]).toEqual([1, 4, ...ascii("game"), 0, 255, 1]);
});

test("nothing is kept while the link is down", () => {
  expect(chat.relay("game", new Uint8Array([1]))).toBe(false);
  FakeSocket.last.welcome({ game: "e1:0" });

  expect(FakeSocket.last.bytes).toEqual([]);
});

test("what another says comes with the room and who said it", () => {
  FakeSocket.last.welcome({ game: "e1:0" });
  expect(FakeSocket.last.binaryType).toBe("arraybuffer");
  come(1, 4, ...ascii("game"), 3, ...ascii("ann"), 0, 255);
  come(1, 4, ...ascii("game"), 3, ...ascii("bob"));

  expect(heard.map(({ room, userId, payload }) => [room, userId, ...payload])).toEqual([
    ["game", "ann", 0, 255],
    ["game", "bob"],
  ]);
});

test("neither an unknown version nor a room that was left reaches anybody", () => {
  FakeSocket.last.welcome({ game: "e1:0" });
  come(2, 4, ...ascii("game"), 3, ...ascii("ann"), 7);
  come(1, 5, ...ascii("other"), 3, ...ascii("ann"), 7);

  expect(heard).toEqual([]);
});
