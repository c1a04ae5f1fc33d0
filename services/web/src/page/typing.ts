/** Typing: telling others while the user types, and the line that shows who does. */

/** Told again this often while the user goes on: the server forgets it after 6 s. */
const REPEAT_MS = 3_000;
const PAUSE_MS = 4_000;
const FORGET_MS = 6_500;

/** Watch `input`; returns what to call when the message went out. */
export function announceTyping(input: HTMLInputElement, tell: (isTyping: boolean) => void): () => void {
  let toldAt = -Infinity;
  let pause: ReturnType<typeof setTimeout> | undefined;

  function stop(): void {
    clearTimeout(pause);
    if (toldAt !== -Infinity) tell(false);
    toldAt = -Infinity;
  }

  input.addEventListener("input", () => {
    if (!input.value) return stop();
    clearTimeout(pause);
    pause = setTimeout(stop, PAUSE_MS);
    if (performance.now() - toldAt < REPEAT_MS) return;
    toldAt = performance.now();
    tell(true);
  });
  input.addEventListener("blur", stop);
  return stop;
}

/** Who is typing in the room in view. */
export class TypingLine {
  readonly #line: HTMLElement;
  readonly #nameOf: (userId: string) => string;
  readonly #typing = new Map<string, Map<string, ReturnType<typeof setTimeout>>>();
  #room = "";

  constructor(line: HTMLElement, nameOf: (userId: string) => string) {
    this.#line = line;
    this.#nameOf = nameOf;
  }

  show(room: string): void {
    this.#room = room;
    this.#draw();
  }

  set(room: string, userId: string, isTyping: boolean): void {
    const users = this.#typing.get(room) ?? new Map<string, ReturnType<typeof setTimeout>>();
    this.#typing.set(room, users);
    clearTimeout(users.get(userId));
    if (isTyping)
      users.set(
        userId,
        setTimeout(() => this.set(room, userId, false), FORGET_MS),
      );
    else users.delete(userId);
    this.#draw();
  }

  #draw(): void {
    const names = [...(this.#typing.get(this.#room)?.keys() ?? [])].map(this.#nameOf);
    this.#line.textContent = sentence(names);
  }
}

function sentence(names: string[]): string {
  if (names.length === 0) return "";
  if (names.length > 2) return "Several people are typing…";
  return `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} typing…`;
}
