/**
 * Messages that are not yet known to be stored. Each keeps its `clientId`, so that sending it again, by whichever
 * way, stores it once. A full outbox refuses the newest: what the user typed first goes first.
 */

import { ProblemError } from "./http";
import type { Receipt } from "./frames";

export interface Outgoing {
  clientId: string;
  room: string;
  content: string;
  timestamp: number;
}

interface Entry {
  message: Outgoing;
  resolve: (receipt: Receipt) => void;
  reject: (error: ProblemError) => void;
}

export class Outbox {
  readonly #entries = new Map<string, Entry>();
  readonly #max: number;

  constructor(max = 200) {
    this.#max = max;
  }

  /** What is waiting, oldest first. */
  get waiting(): Outgoing[] {
    return [...this.#entries.values()].map((entry) => entry.message);
  }

  has(clientId: string): boolean {
    return this.#entries.has(clientId);
  }

  /** Keep `message`; the promise settles when the server stored it or refused it for good. */
  add(message: Outgoing): Promise<Receipt> {
    const settled = new Promise<Receipt>((resolve, reject) => {
      if (this.#entries.size < this.#max) this.#entries.set(message.clientId, { message, resolve, reject });
      else reject(refusal("outbox_full", `${this.#max} messages are waiting to be sent.`));
    });
    settled.catch(() => undefined); // A caller that does not look is no unhandled rejection.
    return settled;
  }

  stored(clientId: string, receipt: Receipt): void {
    this.#take(clientId)?.resolve(receipt);
  }

  refused(clientId: string, error: ProblemError): void {
    this.#take(clientId)?.reject(error);
  }

  /** Refuse everything: the chat was closed. */
  clear(): void {
    for (const id of [...this.#entries.keys()]) this.refused(id, refusal("closed", "The chat was closed."));
  }

  #take(clientId: string): Entry | undefined {
    const entry = this.#entries.get(clientId);
    this.#entries.delete(clientId);
    return entry;
  }
}

function refusal(code: string, detail: string): ProblemError {
  return new ProblemError({ code, detail, retryable: false });
}
