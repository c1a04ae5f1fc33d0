/** The desk of a signed-in user: the connections, and the panels that show what they bring. */

import { type Auth, Chat, Stream, type User } from "../client";
import { openChatPanel } from "./chat-panel";
import { Chip } from "./chip";
import { byId } from "./dom";
import { openNotificationsPanel } from "./notifications-panel";
import { openPricesPanel } from "./prices-panel";
import { loadRooms } from "./settings";
import { openStatusPanel } from "./status-panel";

/** Open the panels and connect; it ends with the page. */
export function openDesk(auth: Auth, user: User): void {
  const chat = new Chat({ auth, rooms: loadRooms(user.id) });
  const stream = new Stream({ auth });

  openAccount(auth, user);
  openChips(chat, stream);
  openChatPanel(chat, user);
  openPricesPanel(stream, user);
  openNotificationsPanel(stream, user);
  openStatusPanel(stream);

  // Closed by the server for good: perhaps the session is over, and then the sign-in form should say so.
  chat.on("state", (state) => state === "closed" && void auth.refresh().catch(() => undefined));

  chat.open();
  stream.open();
}

function openAccount(auth: Auth, user: User): void {
  byId("user-name").textContent = user.displayName ?? user.username;
  byId("user-name").title = user.id;
  // Signed out here in any case; a server that did not hear of it lets the session run out.
  byId("sign-out").onclick = () => void auth.logout().catch(() => undefined);
}

function openChips(chat: Chat, stream: Stream): void {
  const chatChip = new Chip(byId("connection-chat"), "Chat");
  chat.on("state", (state) => chatChip.setState(state));
  chat.on("connected", ({ session }) => chatChip.setSession(session));
  const streamChip = new Chip(byId("connection-stream"), "Stream");
  stream.on("state", (state) => streamChip.setState(state));
  stream.on("connected", (connected) => streamChip.setSession(connected.stream));
}
