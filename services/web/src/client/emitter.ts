/** A typed event emitter: the names and payloads of `Events` and nothing else. */

type Listener<T> = (payload: T) => void;

export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>();

  /** Call `listener` on each `type` event. Returns the function that ends it. */
  on<T extends keyof Events>(type: T, listener: Listener<Events[T]>): () => void {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set);
    set.add(listener as Listener<never>);
    return () => set.delete(listener as Listener<never>);
  }

  protected emit<T extends keyof Events>(type: T, payload: Events[T]): void {
    for (const listener of this.#listeners.get(type) ?? []) (listener as Listener<Events[T]>)(payload);
  }
}
