import { expect, test } from "vitest";
import { connectUrl } from "../src/client/chat";
import { afterClose } from "../src/client/close-codes";
import { advance } from "../src/client/cursor";

test.each([
  ["the first message", null, "e1:4", "e1:4"],
  ["the next", "e1:4", "e1:9", "e1:9"],
  ["one seen before", "e1:9", "e1:9", null],
  ["one long past", "e1:10", "e1:9", null],
  ["a stream made anew, whatever its number", "e1:900", "e2:1", "e2:1"],
])("a cursor and %s", (_, current, next, expected) => {
  expect(advance(current, next)).toBe(expected);
});

test("each room goes into the address with its own cursor, in pairs", () => {
  const url = connectUrl("/ws/chat", [
    ["general", "e1:12"],
    ["new", null],
    ["ops", "e1:7"],
  ]);

  expect(url).toBe("/ws/chat?room=general&cursor=e1%3A12&room=new&cursor=&room=ops&cursor=e1%3A7");
});

test("a close code that is not in the table is a broken line", () => {
  expect(afterClose(1006)).toBe("now");
  expect(afterClose(4010)).toBe("no");
});
