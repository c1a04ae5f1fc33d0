/**
 * Chat over a WebSocket, with HTTP for sending while it is down.
 *
 * What it promises: a message handed to `send` is stored once or its promise is rejected; a message of a joined room is
 * emitted once and in order, over any number of reconnects, or its loss is announced by `gap` or `resync`.
 */

import type { Auth } from "./auth";
import { advance } from "./cursor";
import { Emitter } from "./emitter";
import type {
  Ack,
  ChatConnected,
  ChatFrame,
  ChatFrames,
  ChatMessage,
  History,
  Member,
  ReadMarker,
  Receipt,
  RoomGap,
  RoomResync,
  WireError,
} from "./frames";
import { ProblemError, asProblem } from "./http";
import { Link, type LinkOptions, type LinkState } from "./link";
import { type Outgoing, Outbox } from "./outbox";
import { ReadMarks } from "./read-marks";
import { type Relayed, decodeRelayed, encodeRelay } from "./relay";
import { Renewal } from "./renewal";

const HISTORY_LIMIT = 50;
const RESEND_MS = 2_000;
/** Before the room in the id of a `mark_read`; no id of a room or a message begins so. */
const READ = "read:";
/** Codes that say of a handshake that one of its rooms, or its cursor, was refused. */
const ROOM_REFUSALS: ReadonlySet<string> = new Set(["forbidden", "bad_id", "bad_input"]);

export interface ChatOptions extends Pick<LinkOptions, "backoff" | "maxAttempts"> {
  auth: Auth;
  /** Rooms to be in from the start. */
  rooms?: string[];
  /** `ws://…/ws/chat`; by default of this page's origin. */
  url?: string;
}

export interface ChatEvents extends Omit<
  ChatFrames,
  "chat_message" | "ack" | "reconnect" | "token_expiring" | "renewed" | "pong"
> {
  state: LinkState;
  message: ChatMessage;
  /** Stored messages of a room: when it is first entered, and after a gap. They may overlap with what is known. */
  history: History & { room: string };
  /** What another member of a relay room says in a form of its own. */
  relay: Relayed;
}

export interface Sent {
  clientId: string;
  /** Resolves when the server stored it; rejects with ProblemError when it never will. */
  stored: Promise<Receipt>;
}

export class Chat extends Emitter<ChatEvents> {
  /** Rooms and, for each, the cursor of the last message emitted; null before the first. */
  readonly #rooms = new Map<string, string | null>();
  readonly #outbox = new Outbox();
  readonly #marks = new ReadMarks((room, cursor) =>
    this.#link.send({ type: "mark_read", id: READ + room, data: { room, cursor } }),
  );
  /** Messages that wait for a POST to answer, or for the time that the server set. */
  readonly #busy = new Set<string>();
  readonly #auth: Auth;
  readonly #link: Link;
  readonly #renewal: Renewal;
  readonly #url: string;
  /** A room was refused at the handshake: begin with the first alone and join the others, so that each is judged by itself. */
  #oneByOne = false;

  constructor(options: ChatOptions) {
    super();
    this.#auth = options.auth;
    this.#url = options.url ?? `${location.origin.replace(/^http/, "ws")}/ws/chat`;
    for (const room of options.rooms ?? ["general"]) this.#rooms.set(room, null);
    this.#link = new Link({
      ...options,
      url: () => connectUrl(this.#url, [...this.#rooms].slice(0, this.#oneByOne ? 1 : undefined)),
      onFrame: (text) => this.#receive(JSON.parse(text) as ChatFrame),
      onBytes: (data) => this.#receiveBytes(data),
      onState: (state) => this.#onState(state),
    });
    this.#renewal = new Renewal(options.auth, (token) => this.#link.send({ type: "auth", token }));
  }

  get state(): LinkState {
    return this.#link.state;
  }

  get rooms(): string[] {
    return [...this.#rooms.keys()];
  }

  open(): void {
    this.#link.open();
  }

  /** Leave for good; what is not yet stored is rejected. */
  close(): void {
    this.#link.close();
    this.#outbox.clear();
    this.#marks.clear();
  }

  join(room: string): void {
    if (this.#rooms.has(room)) return;
    this.#rooms.set(room, null);
    this.#sendJoin(room);
  }

  leave(room: string): void {
    this.#rooms.delete(room);
    this.#link.send({ type: "leave", data: { room } });
  }

  send(room: string, content: string): Sent {
    const message = { clientId: newClientId(), room, content, timestamp: Date.now() };
    const stored = this.#outbox.add(message);
    if (this.#outbox.has(message.clientId)) this.#transmit(message);
    return { clientId: message.clientId, stored };
  }

  /** Tell the room; the server forgets it after 6 s. Lost without a trace while the link is down. */
  typing(room: string, isTyping: boolean): void {
    this.#link.send({ type: "typing_status", data: { room, isTyping } });
  }

  /**
   * Say something to all others in a relay room, in a form of your own, at most once: false if the link is down. At most
   * 16 KiB, 60 times a second; what is refused comes as an `error` event.
   */
  relay(room: string, payload: Uint8Array): boolean {
    return this.#link.send(encodeRelay(room, payload));
  }

  /** This user has read all that was emitted of a room. Call it as often as they look: few calls cost a frame. */
  markRead(room: string): void {
    const cursor = this.#rooms.get(room);
    if (cursor) this.#marks.mark(room, cursor);
  }

  /** What is unread in every room that this user has marked, on whichever device. */
  async unread(): Promise<ReadMarker[]> {
    return (await this.#auth.call<{ rooms: ReadMarker[] }>("GET", "/api/chat/unread")).rooms;
  }

  /** Read stored messages of a room, the newest by default, or those before a cursor. */
  history(room: string, before?: string): Promise<History> {
    const query = new URLSearchParams({ limit: String(HISTORY_LIMIT), ...(before && { before }) });
    return this.#auth.call("GET", `/api/chat/rooms/${encodeURIComponent(room)}/messages?${query}`);
  }

  /** Who is online in a room, over all edges. */
  async members(room: string): Promise<Member[]> {
    const path = `/api/chat/rooms/${encodeURIComponent(room)}/presence`;
    return (await this.#auth.call<{ online: Member[] }>("GET", path)).online;
  }

  // -- receiving ---------------------------------------------------------------------------------------------------

  #receive(frame: ChatFrame): void {
    switch (frame.type) {
      case "connected":
        return this.#onConnected(frame.data);
      case "chat_message":
        return this.#onMessage(frame.data);
      case "ack":
        return this.#outbox.stored(frame.data.clientId ?? frame.id ?? "", frame.data);
      case "error":
        return this.#onError(frame.id ?? "", frame.data);
      case "reconnect":
        return this.#link.moveAfter(frame.data.afterMs);
      case "token_expiring":
        return this.#renewal.warned(frame.data.inMs);
      case "renewed":
      case "pong":
        return;
      case "joined":
        this.#enterRoom(frame.data.room, frame.data.cursor);
        break;
      case "read":
        if (!this.#marks.told(frame.data)) return;
        break;
      case "left":
        if (frame.data.reason) this.#rooms.delete(frame.data.room); // else it was our own wish, and may have changed since
        break;
      case "gap":
      case "resync":
        this.#onMissed(frame.data);
        break;
    }
    // Types that this version does not know reach nobody: no listener can be registered for them.
    this.emit(frame.type, frame.data as never);
  }

  #receiveBytes(data: ArrayBuffer): void {
    const relayed = decodeRelayed(data);
    if (relayed && this.#rooms.has(relayed.room)) this.emit("relay", relayed);
  }

  #onConnected(connected: ChatConnected): void {
    this.#link.established(connected.heartbeatMs);
    this.emit("connected", connected);
    for (const { room, cursor } of connected.rooms) this.#enterRoom(room, cursor);
    const present = new Set(connected.rooms.map(({ room }) => room));
    for (const room of this.rooms) if (!present.has(room)) this.#sendJoin(room);
    for (const room of present) if (!this.#rooms.has(room)) this.leave(room); // left during the handshake
    this.#flush();
  }

  /** The frame's id is the room, so that a refusal can be told from others. */
  #sendJoin(room: string): void {
    const cursor = this.#rooms.get(room);
    this.#link.send({ type: "join", id: room, data: cursor ? { room, cursor } : { room } });
  }

  /** Start from the room's present end, unless this client has been there: then the server replays from its cursor. */
  #enterRoom(room: string, cursor: string | null): void {
    if (this.#rooms.get(room) !== null) return;
    this.#rooms.set(room, cursor);
    void this.#loadHistory(room);
  }

  #onMessage(message: ChatMessage): void {
    const cursor = advance(this.#rooms.get(message.room) ?? null, message.cursor);
    if (cursor === null) return; // seen before
    if (this.#rooms.has(message.room)) this.#rooms.set(message.room, cursor);
    // The room has it, so it is stored; the ack may have been lost with the connection before.
    if (message.clientId && message.userId === this.#auth.user?.id)
      this.#outbox.stored(message.clientId, message);
    this.emit("message", message);
  }

  /** Go on from where the server says, not from what is missing or of another life of the stream; and load the rest. */
  #onMissed({ room, cursor }: RoomGap | RoomResync): void {
    if (this.#rooms.has(room)) this.#rooms.set(room, cursor);
    void this.#loadHistory(room);
  }

  async #loadHistory(room: string): Promise<void> {
    // For display only: the cursor follows the live chain, else what arrives in between would be skipped.
    const page = await this.history(room).catch(asProblem);
    if (page instanceof ProblemError) this.emit("error", wireError(page));
    else this.emit("history", { room, ...page });
  }

  // -- sending -----------------------------------------------------------------------------------------------------

  #transmit(message: Outgoing): void {
    const { clientId, room, content, timestamp } = message;
    if (this.#busy.has(clientId)) return;
    const data = { room, content, clientId, timestamp, userId: this.#auth.user?.id };
    if (!this.#link.send({ type: "send_message", id: clientId, data })) void this.#post(message);
  }

  /** Send by HTTP; what fails for now is sent again later, by whichever way is open then. */
  async #post({ clientId, room, content }: Outgoing): Promise<void> {
    this.#busy.add(clientId);
    const message = { room, content, clientId };
    const result = await this.#auth.call<Ack>("POST", "/api/chat/messages", message).catch(asProblem);
    this.#busy.delete(clientId);
    if (result instanceof ProblemError) this.#onError(clientId, wireError(result));
    else this.#outbox.stored(clientId, result);
  }

  /** An error answers the frame with its id: a mark, a message, a join, or none of them. */
  #onError(id: string, error: WireError): void {
    if (error.retryAfterMs) this.#link.hold(error.retryAfterMs);
    if (id.startsWith(READ)) this.#onRefusedMark(id.slice(READ.length), error);
    else if (this.#outbox.has(id)) this.#onRefusedMessage(id, error);
    else if (this.#rooms.has(id)) this.#onRefusedRoom(id, error);
    else if (this.state !== "open" && ROOM_REFUSALS.has(error.code)) this.#onRefusedHandshake(error);
    else this.emit("error", error);
  }

  #onRefusedMessage(clientId: string, error: WireError): void {
    if (!error.retryable) {
      this.#outbox.refused(clientId, new ProblemError({ ...error, detail: error.message }));
      return;
    }
    this.#busy.add(clientId);
    setTimeout(() => {
      this.#busy.delete(clientId);
      this.#flush();
    }, error.retryAfterMs ?? RESEND_MS);
  }

  /** What is not refused for good is sent again in any case. */
  #onRefusedMark(room: string, { retryable }: WireError): void {
    if (!retryable) this.#marks.refused(room);
  }

  #onRefusedRoom(room: string, { message, retryable, retryAfterMs }: WireError): void {
    if (retryable && this.state === "open") {
      setTimeout(() => this.#rooms.has(room) && this.#sendJoin(room), retryAfterMs ?? RESEND_MS);
      return;
    }
    this.#rooms.delete(room);
    this.emit("left", { room, reason: message });
  }

  #onRefusedHandshake(error: WireError): void {
    const [first] = this.#rooms.keys();
    if (first !== undefined && (this.#oneByOne || this.#rooms.size === 1)) this.#onRefusedRoom(first, error);
    this.#oneByOne = true;
    if (this.#rooms.size) this.#link.reconnect();
  }

  #flush(): void {
    for (const message of this.#outbox.waiting) this.#transmit(message);
  }

  #onState(state: LinkState): void {
    this.emit("state", state);
    if (state !== "open") this.#renewal.cancel();
    // What was on its way when the line broke may be lost: its clientId makes sending it again harmless.
    if (state === "waiting") this.#flush();
  }
}

/** Return the address with each room and its own cursor, in pairs; an empty cursor means none. */
export function connectUrl(base: string, rooms: [room: string, cursor: string | null][]): string {
  const query = new URLSearchParams();
  for (const [room, cursor] of rooms) {
    query.append("room", room);
    query.append("cursor", cursor ?? "");
  }
  return `${base}?${query}`;
}

/** 96 random bits; `crypto.randomUUID` would need a secure context. */
function newClientId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join(
    "",
  );
}

function wireError({ code, message, retryable, retryAfterMs }: ProblemError): WireError {
  return { code, message, retryable, ...(retryAfterMs !== undefined && { retryAfterMs }) };
}
