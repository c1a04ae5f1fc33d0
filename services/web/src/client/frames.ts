/** What crosses the wire, as the browser sees it. Names are the public contract of the services. */

export interface ChatMessage {
  id: string;
  room: string;
  seq: number;
  cursor: string;
  userId: string;
  username: string;
  content: string;
  /** ms since the epoch, by the server's clock. */
  timestamp: number;
  clientId?: string;
}

export interface History {
  messages: ChatMessage[];
  cursor: string;
  more: boolean;
}

export interface Member {
  userId: string;
  username: string;
}

export interface RoomEntry {
  room: string;
  cursor: string | null;
  /** Ids of the users who are online. */
  members: string[];
}

export interface ChatConnected {
  userId: string;
  username: string;
  /** `<edge>.<random>`. */
  session: string;
  rooms: RoomEntry[];
  heartbeatMs: number;
  limits?: Record<string, number>;
}

export interface Ack {
  id: string;
  seq: number;
  cursor: string;
  duplicate?: boolean;
  clientId?: string;
}

/** How far this user has read a room, on whichever device, and how many messages are behind that. */
export interface ReadMarker {
  room: string;
  cursor: string;
  unread: number;
}

export interface WireError {
  code: string;
  message: string;
  retryable: boolean;
  retryAfterMs?: number;
  clientId?: string;
}

export interface Gap {
  room?: string;
  from: number;
  to: number;
  reason: string;
  /** Of a room: where this client stands now. A stream's is the event's id. */
  cursor?: string;
}

export interface Resync {
  room?: string;
  reason: string;
  /** As in `Gap`. */
  cursor?: string;
}

/** Come back after `afterMs`. The client resumes from what it received; the cursors say the same to those that keep none. */
export interface ReconnectNotice {
  afterMs: number;
  cursor?: string | null;
  rooms?: { room: string; cursor: string | null }[];
}

export interface Presence {
  room: string;
  userId: string;
  username?: string;
  status: "online" | "away" | "offline";
}

export interface TypingIndicator {
  room: string;
  userId: string;
  username?: string;
  isTyping: boolean;
}

/** Server frames of the chat by `type`, with their `data`. */
export interface ChatFrames {
  connected: ChatConnected;
  chat_message: ChatMessage;
  ack: Ack;
  joined: RoomEntry;
  /** This client is not in the room any more; with a reason if that was not its own wish. */
  left: { room: string; reason?: string };
  presence_update: Presence;
  typing_indicator: TypingIndicator;
  /** A room was marked as read, by this client or by another of the same user. */
  read: ReadMarker;
  gap: Gap;
  resync: Resync;
  reconnect: ReconnectNotice;
  dropped: { kind: string; count: number };
  error: WireError;
  token_expiring: { inMs: number };
  pong: unknown;
}

export type ChatFrame = {
  [T in keyof ChatFrames]: { type: T; id?: string; data: ChatFrames[T] };
}[keyof ChatFrames];

export interface StreamConnected {
  timestamp: number;
  userId: string;
  /** `<edge>.<random>`; names this stream in a POST. */
  stream: string;
  cursor?: string;
  /** How often the server writes a comment; no script can see those. */
  heartbeatMs: number;
}

export interface Notification {
  id: string;
  title: string;
  body?: string;
  topic?: string;
  createdAt: number;
  data?: Record<string, unknown>;
}

export interface Price {
  symbol: string;
  price: number;
  previous?: number;
  change?: number;
  changePercent?: number;
  timestamp: number;
  stale?: boolean;
}

export interface SystemStatus {
  component: string;
  instance: string;
  status: "up" | "degraded" | "draining" | "standby" | "down";
  metrics: Record<string, number | string>;
  timestamp: number;
}

/** Events of the stream by `type`; on the wire the type is a field beside the others. */
export interface StreamFrames {
  connected: StreamConnected;
  notification: Notification;
  price_update: Price;
  snapshot: { symbols: Price[] };
  system_status: SystemStatus;
  gap: Gap;
  resync: Resync;
  reconnect: ReconnectNotice;
  dropped: { kind: string; count: number };
  token_expiring: { inMs: number };
  error: WireError;
}
