/**
 * What crosses the wire, as the browser sees it. Names are the public contract of the services.
 *
 * `tests/unit/contracts/test_frames_ts.py` compares these with the models that the services are held to.
 */

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
  cursor: string;
  /** Ids of the users who are online. */
  members: string[];
}

export interface ChatConnected {
  userId: string;
  username: string;
  /** `<edge>.<random>`. */
  session: string;
  /** Of the first room. */
  cursor: string;
  rooms: RoomEntry[];
  heartbeatMs: number;
  /** Messages of a user in a window (0: as many as they like), and rooms of a connection. */
  limits: { messages: number; windowMs: number; rooms: number };
  timestamp: number;
}

export interface Ack {
  id: string;
  room: string;
  seq: number;
  cursor: string;
  duplicate: boolean;
  clientId?: string;
}

/** Where a message is stored: its ack says so, and so does the message itself. */
export type Receipt = Omit<Ack, "duplicate">;

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
  /** The room that was refused. */
  room?: string;
}

export interface RoomGap {
  room: string;
  from: number;
  to: number;
  reason: "expired" | "too_many";
  /** Where this client stands now. */
  cursor: string;
}

export interface RoomResync {
  room: string;
  reason: "epoch_changed" | "unknown_position";
  /** As in `RoomGap`. */
  cursor: string;
}

/** Come back after `afterMs`. The client resumes from what it received; the cursors say the same to those that keep none. */
export interface ChatReconnect {
  afterMs: number;
  cursor: string | null;
  rooms: { room: string; cursor: string | null }[];
}

export interface Presence {
  room: string;
  userId: string;
  username: string;
  status: "online" | "offline";
  timestamp: number;
}

export interface TypingIndicator {
  room: string;
  userId: string;
  username: string;
  isTyping: boolean;
  timestamp: number;
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
  gap: RoomGap;
  resync: RoomResync;
  reconnect: ChatReconnect;
  dropped: { kind: string; count: number };
  error: WireError;
  token_expiring: { inMs: number };
  renewed: { expiresAt: number };
  pong: { timestamp: number };
}

export type ChatFrame = {
  [T in keyof ChatFrames]: { type: T; id?: string; data: ChatFrames[T] };
}[keyof ChatFrames];

export interface StreamConnected {
  timestamp: number;
  userId: string;
  /** `<edge>.<random>`; names this stream in a POST. */
  stream: string;
  cursor: string;
  topics: string[];
  /** How often the server writes a comment; no script can see those. */
  heartbeatMs: number;
}

export interface Notification {
  id: string;
  title: string;
  body: string;
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
  stale?: true;
}

export interface SystemStatus {
  component: string;
  instance: string;
  status: "up" | "degraded" | "draining" | "standby" | "down";
  metrics: Record<string, number | string>;
  timestamp: number;
}

/** A log record of a running part: `truncated` if it was too long, `dropped` if so many before it were not told. */
export interface LogRecord {
  component: string;
  instance: string;
  level: "debug" | "info" | "warning" | "error";
  event: string;
  fields: Record<string, boolean | number | string>;
  timestamp: number;
  truncated?: true;
  dropped?: number;
}

/** Something of a topic is missing, null for the user's own; the event's id says where this client stands now. */
export interface TopicGap {
  topic: string | null;
  from: number;
  to: number;
  reason: "expired" | "too_many";
}

/** As `TopicGap`. */
export interface TopicResync {
  topic: string | null;
  reason: "epoch_changed" | "unknown_position";
}

/** Events of the stream by `type`; on the wire the type is a field beside the others. */
export interface StreamFrames {
  connected: StreamConnected;
  notification: Notification;
  price_update: Price;
  snapshot: { symbols: Price[] };
  system_status: SystemStatus;
  log: LogRecord;
  gap: TopicGap;
  resync: TopicResync;
  reconnect: { afterMs: number; cursor: string | null };
  dropped: { kind: string; count: number };
  token_expiring: { inMs: number };
  error: { code: string; message: string; retryable: boolean };
}
