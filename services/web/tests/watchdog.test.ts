import { expect, test } from "vitest";
import { Watchdog } from "../src/client/watchdog";

const HEARTBEAT_MS = 20_000;

function watched() {
  const seen = { ms: 0, pings: 0, dead: 0 };
  const watchdog = new Watchdog({
    heartbeatMs: HEARTBEAT_MS,
    ping: () => (seen.pings += 1),
    dead: () => (seen.dead += 1),
    now: () => seen.ms,
  });
  const pass = (ms: number) => {
    seen.ms += ms;
    watchdog.tick();
  };
  return { seen, watchdog, pass };
}

test("a silent connection is asked after one heartbeat and given up after two and a half", () => {
  const { seen, pass } = watched();

  pass(HEARTBEAT_MS - 1);
  expect(seen).toMatchObject({ pings: 0, dead: 0 });
  pass(1);
  expect(seen).toMatchObject({ pings: 1, dead: 0 });
  pass(1.5 * HEARTBEAT_MS - 1);
  expect(seen).toMatchObject({ pings: 1, dead: 0 });
  pass(1);
  expect(seen).toMatchObject({ pings: 1, dead: 1 });
});

test("any byte keeps it alive", () => {
  const { seen, watchdog, pass } = watched();

  pass(HEARTBEAT_MS);
  watchdog.heard();
  pass(HEARTBEAT_MS - 1);

  expect(seen).toMatchObject({ pings: 1, dead: 0 });
});

test("a throttled timer alone is no reason to give up: the question comes first", () => {
  const { seen, pass } = watched();

  pass(60_000);

  expect(seen).toMatchObject({ pings: 1, dead: 0 });
});
