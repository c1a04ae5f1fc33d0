/** A chip that says how a connection stands and which edge serves it. */

import type { LinkState } from "../client";
import { make } from "./dom";

const WORDS = {
  connecting: "connecting",
  open: "connected",
  waiting: "reconnecting",
  closed: "disconnected",
};

export class Chip {
  readonly #element: HTMLElement;
  readonly #name: string;
  #state: LinkState = "closed";
  #edge = "";

  constructor(element: HTMLElement, name: string) {
    this.#element = element;
    this.#name = name;
    this.#draw();
  }

  setState(state: LinkState): void {
    this.#state = state;
    this.#draw();
  }

  /** Take the edge from a session's name, `<edge>.<random>`. */
  setSession(session: string): void {
    this.#edge = session.slice(0, session.lastIndexOf("."));
    this.#draw();
  }

  #draw(): void {
    const word = WORDS[this.#state];
    const edge = this.#state === "open" ? this.#edge : "";
    this.#element.dataset["state"] = this.#state;
    this.#element.title = `${this.#name}: ${word}${edge && ` to ${edge}`}`;
    const label = make("span", { class: "chip-label", text: this.#name });
    this.#element.replaceChildren(make("span", { class: "dot" }), label, make("b", { text: edge || word }));
  }
}
