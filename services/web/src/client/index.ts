/** The Fanfare client: chat, notifications and prices in a browser. The README beside package.json shows it in ten lines. */

export { Auth, type AuthEvents, type User } from "./auth";
export { Backoff, type BackoffOptions } from "./backoff";
export { Chat, type ChatEvents, type ChatOptions, type Sent } from "./chat";
export { RECONNECT, type Reconnect, afterClose } from "./close-codes";
export type * from "./frames";
export { ProblemError, asProblem } from "./http";
export type { LinkState } from "./link";
export type { Relayed } from "./relay";
export { Stream, type StreamEvents, type StreamOptions, type StreamState } from "./stream";
