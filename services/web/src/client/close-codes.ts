/** WebSocket close codes and whether a client comes back: the table of shared/contracts/close_codes.py. */

export type Reconnect = "no" | "after_login" | "now" | "later";

export const RECONNECT: Readonly<Record<number, Reconnect>> = {
  1000: "no", // NORMAL
  1001: "now", // GOING_AWAY
  1012: "now", // RESTART
  4003: "no", // FORBIDDEN
  4008: "after_login", // UNAUTHORIZED
  4009: "after_login", // TOKEN_EXPIRED
  4010: "no", // SESSION_REVOKED
  4013: "no", // TOO_LARGE
  4029: "later", // RATE_LIMITED
  4080: "now", // TOO_SLOW
};

/** Say what to do after a close; a code that is not in the table is an unclean close. */
export function afterClose(code: number): Reconnect {
  return RECONNECT[code] ?? "now";
}
