/** The notifications panel: the latest first, a toast for each that arrives live, and how to send one. */

import { type Notification, ProblemError, type Stream, type User, asProblem } from "../client";
import { byId, make, timeOf } from "./dom";
import { toast } from "./toast";

const MAX_SHOWN = 50;

export function openNotificationsPanel(stream: Stream, user: User): void {
  const list = byId("notification-list");
  const count = byId("notification-count");
  const shown = new Set<string>();
  let unseen = 0;

  function add(notification: Notification): boolean {
    if (shown.has(notification.id)) return false;
    shown.add(notification.id);
    const older = [...list.children].find(
      (child) => child instanceof HTMLElement && Number(child.dataset["at"]) <= notification.createdAt,
    );
    list.insertBefore(item(notification), older ?? null);
    if (list.childElementCount > MAX_SHOWN) list.lastElementChild?.remove();
    byId("notification-empty").hidden = true;
    return true;
  }

  function onLive(notification: Notification): void {
    if (!add(notification)) return;
    toast(notification.title, notification.body);
    unseen += 1;
    count.textContent = String(unseen);
    count.hidden = false;
  }

  /** What is stored, merged with what came live. */
  async function load(): Promise<void> {
    const stored = await stream.notifications().catch(asProblem);
    if (stored instanceof ProblemError) toast("Notifications", stored.message);
    else stored.forEach(add);
  }

  stream.on("notification", onLive);
  stream.on("gap", () =>
    toast("Some notifications may be missing", "Those that are stored were loaded again."),
  );
  stream.on("gap", () => void load());
  stream.on("resync", () => void load());
  byId("notifications").addEventListener("pointerenter", () => {
    unseen = 0;
    count.hidden = true;
  });
  showCommand(user);
  void load();
}

function item({ title, body, topic, createdAt }: Notification): HTMLLIElement {
  const head = make("div", { class: "head" }, make("strong", { text: title }), timeOf(createdAt));
  const element = make("li", {}, head);
  element.dataset["at"] = String(createdAt);
  if (body) element.append(make("p", { text: body }));
  if (topic) element.append(make("span", { class: "tag", text: topic }));
  return element;
}

function showCommand(user: User): void {
  const command = `nats pub notify.user.${user.id} '{"title":"hi"}'`;
  const copy = byId("copy-command");
  byId("user-id").textContent = user.id;
  byId("publish-command").textContent = command;
  copy.onclick = async () => {
    await navigator.clipboard.writeText(command);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1_500);
  };
}
