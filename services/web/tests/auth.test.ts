import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Auth } from "../src/client/auth";

const USER = { id: "u1", username: "ada" };
const LIFE_S = 600;

let stored: Map<string, string>;
let answers: Record<string, () => Response>;
let calls: string[];

beforeEach(() => {
  vi.useFakeTimers();
  stored = new Map();
  calls = [];
  answers = { "/api/auth/login": session, "/api/auth/refresh": session };
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
    removeItem: (key: string) => stored.delete(key),
  });
  vi.stubGlobal("fetch", async (path: string) => {
    calls.push(path);
    return answers[path]?.() ?? problem(404, "not_found");
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function session(): Response {
  return Response.json({ access_token: `token ${calls.length}`, expires_in: LIFE_S, user: USER });
}

function problem(status: number, code: string): Response {
  return Response.json({ code, detail: code, retryable: status >= 500 }, { status });
}

async function signedIn(): Promise<Auth> {
  const auth = new Auth();
  await auth.login("ada", "password");
  return auth;
}

test("no token is kept where a script of another page load could read it", async () => {
  await signedIn();

  expect([...stored.values()].join()).not.toContain("token");
});

test("it refreshes before the token ends", async () => {
  await signedIn();

  await vi.advanceTimersByTimeAsync(0.8 * LIFE_S * 1000 - 1);
  expect(calls).toEqual(["/api/auth/login"]);
  await vi.advanceTimersByTimeAsync(2);

  expect(calls).toEqual(["/api/auth/login", "/api/auth/refresh"]);
});

test("calls that come together refresh once", async () => {
  const auth = await signedIn();

  await Promise.all([auth.refresh(), auth.refresh(), auth.refresh()]);

  expect(calls).toEqual(["/api/auth/login", "/api/auth/refresh"]);
});

test("a call that is refused for its token is repeated with a new one", async () => {
  const auth = await signedIn();
  const results = [() => problem(401, "token_expired"), () => Response.json({ ok: true })];
  answers["/api/thing"] = () => results.shift()?.() ?? problem(500, "internal");

  await expect(auth.call("GET", "/api/thing")).resolves.toEqual({ ok: true });
  expect(calls.slice(1)).toEqual(["/api/thing", "/api/auth/refresh", "/api/thing"]);
});

test("a session that is over signs out; a server that is down does not", async () => {
  const auth = await signedIn();
  const changes: unknown[] = [];
  auth.on("change", (user) => changes.push(user));

  answers["/api/auth/refresh"] = () => problem(503, "unavailable");
  await expect(auth.refresh()).rejects.toMatchObject({ code: "unavailable" });
  expect(auth.user).toEqual(USER);
  answers["/api/auth/refresh"] = () => problem(401, "session_revoked");
  await auth.refresh();

  expect(changes).toEqual([null]);
  expect(stored.size).toBe(0);
});

test("the token for an open connection is a new one if its own is about to end", async () => {
  const auth = await signedIn();

  const held = await auth.token(0.5 * LIFE_S * 1000);
  const renewed = await auth.token(LIFE_S * 1000);

  expect(held).toBe("token 1");
  expect(renewed).toBe("token 2");
});

test("a browser that was left signed in knows its user on the next page load", async () => {
  await signedIn();

  expect(new Auth().user).toEqual(USER);
});
