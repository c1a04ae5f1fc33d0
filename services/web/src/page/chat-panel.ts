/** The chat panel: rooms, who is there, the log of the room in view, and the composer. */

import { type Chat, type ChatMessage, ProblemError, type ReadMarker, type User, asProblem } from "../client";
import { byId, hue, make, onSubmit } from "./dom";
import { RoomList } from "./room-list";
import { RoomLog } from "./room-log";
import { saveRooms } from "./settings";
import { toast } from "./toast";
import { TypingLine, announceTyping } from "./typing";

const MAX_FACES = 6;
const NEAR_END_PX = 80;
/** After a reconnect, what was missed comes first; and not all who come back ask at once. */
const ASK_AGAIN_AFTER_MS = 1_000;

interface Room {
  name: string;
  log: RoomLog;
  members: Set<string>;
  /** So many are in it that nobody is told who. */
  audience: boolean;
  unread: number;
}

export function openChatPanel(chat: Chat, user: User): void {
  new ChatPanel(chat, user);
}

class ChatPanel {
  readonly #chat: Chat;
  readonly #user: User;
  readonly #rooms = new Map<string, Room>();
  /** Names of users seen so far; presence speaks of ids only. */
  readonly #names = new Map<string, string>();
  readonly #log = byId("chat-log");
  readonly #latest = byId("jump-latest");
  readonly #typing = new TypingLine(byId("typing-line"), (id) => this.#nameOf(id));
  readonly #list = new RoomList(
    (name) => this.#show(name),
    (name) => this.#leaveRoom(name),
  );
  #current: Room;
  /** Whether the reader is at the end of the log, and wants to stay there. */
  #following = true;
  #asked = false;
  #asking: ReturnType<typeof setTimeout> | undefined;

  constructor(chat: Chat, user: User) {
    this.#chat = chat;
    this.#user = user;
    this.#names.set(user.id, user.username);
    const [first] = chat.rooms.map((name) => this.#addRoom(name));
    this.#current = first ?? this.#addRoom("general");
    this.#listen();
    this.#setUpForms();
    this.#show(this.#current.name);
  }

  #listen(): void {
    const chat = this.#chat;
    chat.on("message", (message) => this.#onMessage(message));
    chat.on("history", ({ room, messages, more }) => {
      for (const { userId, username } of messages) this.#names.set(userId, username);
      this.#keepingEnd(() => this.#rooms.get(room)?.log.addHistory(messages, more));
      this.#drawMembers();
    });
    chat.on("connected", ({ rooms }) => {
      rooms.forEach((entry) => this.#setMembers(entry.room, entry.members));
      this.#look();
      this.#askUnread();
    });
    chat.on("joined", ({ room, members }) => {
      this.#setMembers(room, members);
      this.#look();
    });
    chat.on("read", (read) => this.#onRead(read));
    chat.on("left", ({ room, reason }) => {
      if (!reason || !this.#rooms.has(room)) return;
      toast(`You are not in #${room} any more`, reason);
      this.#dropRoom(room);
    });
    chat.on("presence_update", ({ room, userId, username, status }) => {
      if (username) this.#names.set(userId, username);
      const members = this.#rooms.get(room)?.members;
      if (status === "offline") members?.delete(userId);
      else members?.add(userId);
      this.#drawMembers();
    });
    chat.on("typing_indicator", ({ room, userId, username, isTyping }) => {
      if (username) this.#names.set(userId, username);
      if (userId !== this.#user.id) this.#typing.set(room, userId, isTyping);
    });
    chat.on("gap", ({ room }) =>
      this.#notice(room, "Some messages may be missing here. The history was loaded again."),
    );
    chat.on("resync", ({ room }) => {
      if (room) this.#rooms.get(room)?.log.clear(); // the numbers of its messages begin anew
      this.#notice(room, "Some messages may be missing here. The history was loaded anew.");
    });
    chat.on("dropped", ({ count }) =>
      this.#notice(undefined, `${count} events were skipped on a slow connection.`),
    );
    chat.on("error", ({ message }) => toast("Chat", message));
  }

  #setUpForms(): void {
    const input = byId<HTMLInputElement>("chat-input");
    const stopTyping = announceTyping(input, (isTyping) => this.#chat.typing(this.#current.name, isTyping));
    onSubmit(byId("chat-form"), input, (content) => {
      stopTyping();
      this.#send(this.#current, content);
    });
    onSubmit(byId("room-form"), byId("room-input"), (name) => {
      if (!this.#rooms.has(name)) this.#addRoom(name);
      this.#chat.join(name);
      this.#show(name);
      this.#saveRooms();
    });
    this.#latest.addEventListener("click", () => this.#scrollToEnd());
    this.#log.addEventListener("scroll", () => {
      this.#following = this.#atEnd();
      if (this.#following) this.#latest.hidden = true;
    });
    new ResizeObserver(() => this.#following && this.#scrollToEnd()).observe(this.#log);
    document.addEventListener("visibilitychange", () => this.#look());
  }

  // -- messages ----------------------------------------------------------------------------------------------------

  #send(room: Room, content: string): void {
    const { clientId, stored } = this.#chat.send(room.name, content);
    room.log.addPending(clientId, content, this.#user.id, this.#user.username);
    this.#scrollToEnd();
    stored.then(
      (ack) => room.log.stored(clientId, ack),
      (error: unknown) =>
        room.log.refused(clientId, asProblem(error).message, () => this.#send(room, content)),
    );
  }

  #onMessage(message: ChatMessage): void {
    const room = this.#rooms.get(message.room);
    if (!room) return;
    this.#names.set(message.userId, message.username);
    this.#typing.set(message.room, message.userId, false);
    const fresh = this.#keepingEnd(() => room.log.add(message));
    if (room === this.#current) this.#look();
    if (!fresh || message.userId === this.#user.id) return;
    if (room !== this.#current || document.hidden) this.#setUnread(room, room.unread + 1);
    else if (!this.#following) this.#latest.hidden = false;
  }

  #notice(name: string | undefined, text: string): void {
    const room = name === undefined ? this.#current : this.#rooms.get(name);
    this.#keepingEnd(() => room?.log.notice(text));
  }

  async #loadEarlier(room: Room, before: string): Promise<void> {
    const height = this.#log.scrollHeight;
    const page = await this.#chat.history(room.name, before).catch(asProblem);
    if (page instanceof ProblemError) return toast("Chat", page.message);
    room.log.addHistory(page.messages, page.more);
    this.#log.scrollTop += this.#log.scrollHeight - height; // the reader stays where they were
  }

  // -- scrolling ---------------------------------------------------------------------------------------------------

  #atEnd(): boolean {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_END_PX;
  }

  #scrollToEnd(): void {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#latest.hidden = true;
  }

  /** Change the log; whoever was reading its end goes on doing so. */
  #keepingEnd<T>(change: () => T): T {
    const following = this.#following;
    const result = change();
    if (following) this.#scrollToEnd();
    return result;
  }

  // -- rooms and members -------------------------------------------------------------------------------------------

  #addRoom(name: string): Room {
    const log = new RoomLog(this.#user.id, (before) => void this.#loadEarlier(room, before));
    const room: Room = { name, log, members: new Set(), audience: false, unread: 0 };
    this.#rooms.set(name, room);
    this.#list.add(name);
    return room;
  }

  #leaveRoom(name: string): void {
    this.#chat.leave(name);
    this.#dropRoom(name);
  }

  #dropRoom(name: string): void {
    this.#rooms.delete(name);
    this.#list.remove(name);
    this.#saveRooms();
    const [next] = this.#rooms.keys();
    if (next !== undefined && name === this.#current.name) this.#show(next);
  }

  #show(name: string): void {
    this.#current = this.#rooms.get(name) ?? this.#current;
    byId("room-name").textContent = name;
    byId<HTMLInputElement>("chat-input").placeholder = `Message #${name}`;
    this.#list.setCurrent(name);
    this.#log.replaceChildren(this.#current.log.element);
    this.#typing.show(name);
    this.#look();
    this.#drawMembers();
    this.#scrollToEnd();
  }

  #saveRooms(): void {
    saveRooms(this.#user.id, [...this.#rooms.keys()]);
  }

  /** Whoever has the page before them reads the room in view. */
  #look(): void {
    if (document.hidden) return;
    this.#setUnread(this.#current, 0);
    this.#chat.markRead(this.#current.name);
  }

  #onRead({ room: name, unread }: ReadMarker): void {
    const room = this.#rooms.get(name);
    if (room && (room !== this.#current || document.hidden)) this.#setUnread(room, unread);
  }

  /** Between answers the panel counts by itself. */
  #askUnread(): void {
    const waitMs = this.#asked ? ASK_AGAIN_AFTER_MS * (0.5 + Math.random()) : 0;
    this.#asked = true;
    clearTimeout(this.#asking);
    this.#asking = setTimeout(async () => {
      const markers = await this.#chat.unread().catch(asProblem);
      if (!(markers instanceof ProblemError)) markers.forEach((marker) => this.#onRead(marker));
    }, waitMs);
  }

  #setUnread(room: Room, unread: number): void {
    room.unread = unread;
    this.#list.setUnread(room.name, unread);
    const total = [...this.#rooms.values()].reduce((sum, { unread }) => sum + unread, 0);
    document.title = total ? `(${total}) Fanfare` : "Fanfare";
  }

  #setMembers(name: string, members: string[]): void {
    const room = this.#rooms.get(name);
    if (room) {
      room.members = new Set(members);
      room.audience = members.length === 0;
    }
    if (members.some((id) => !this.#names.has(id))) void this.#loadNames(name);
    this.#drawMembers();
  }

  async #loadNames(room: string): Promise<void> {
    const members = await this.#chat.members(room).catch(asProblem);
    if (members instanceof ProblemError) return; // shown by their ids until they say something
    for (const { userId, username } of members) this.#names.set(userId, username);
    this.#drawMembers();
  }

  #drawMembers(): void {
    const members = this.#current.audience ? [] : [...this.#current.members];
    byId("online-count").textContent = this.#current.audience ? "many online" : `${members.length} online`;
    const faces = members.slice(0, MAX_FACES).map((id) => {
      const name = this.#nameOf(id);
      return make("li", {
        class: `face ${hue(id)}`,
        text: name.slice(0, 1).toUpperCase(),
        title: name,
        label: name,
      });
    });
    const rest = members.length - faces.length;
    if (rest > 0) faces.push(make("li", { class: "face rest", text: `+${rest}`, label: `and ${rest} more` }));
    byId("online-list").replaceChildren(...faces);
  }

  #nameOf(id: string): string {
    return this.#names.get(id) ?? id;
  }
}
