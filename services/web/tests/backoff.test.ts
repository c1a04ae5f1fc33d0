import { expect, test } from "vitest";
import { Backoff } from "../src/client/backoff";

/** A backoff whose jitter is always at its end, with a clock that the test moves. */
function atTheEnd() {
  const clock = { ms: 0 };
  return { clock, backoff: new Backoff({ random: () => 1, now: () => clock.ms }) };
}

test("delays double from half a second to the cap of 30 s", () => {
  const { backoff } = atTheEnd();

  const delays = Array.from({ length: 9 }, () => backoff.nextDelayMs());

  expect(delays).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

test("jitter is full: a delay may be anything from nothing on", () => {
  const backoff = new Backoff({ random: () => 0 });

  expect(backoff.nextDelayMs()).toBe(0);
});

test("a connection that held for 30 s starts over", () => {
  const { backoff, clock } = atTheEnd();
  for (let i = 0; i < 5; i++) backoff.nextDelayMs();

  backoff.opened();
  clock.ms += 30_000;

  expect(backoff.nextDelayMs()).toBe(500);
});

test("a connection that was accepted and dropped does not start over", () => {
  const { backoff, clock } = atTheEnd();
  backoff.nextDelayMs();
  backoff.nextDelayMs();

  backoff.opened();
  clock.ms += 29_999;

  expect(backoff.nextDelayMs()).toBe(2000);
});

test("nobody comes back sooner than the server asked", () => {
  const { backoff, clock } = atTheEnd();

  backoff.hold(7000);
  clock.ms += 2000;

  expect(backoff.nextDelayMs()).toBe(5000);
});
