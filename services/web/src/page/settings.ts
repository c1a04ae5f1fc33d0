/** What this browser remembers for a user: rooms and watched symbols. Messages and cursors are not kept. */

function load(key: string): string[] | null {
  const text = localStorage.getItem(key);
  return text ? (JSON.parse(text) as string[]) : null;
}

/** Return the rooms to enter; everyone starts in `general`. */
export function loadRooms(userId: string): string[] {
  return load(`fanfare.rooms.${userId}`) ?? ["general"];
}

export function saveRooms(userId: string, rooms: string[]): void {
  localStorage.setItem(`fanfare.rooms.${userId}`, JSON.stringify(rooms));
}

/** Return the symbols that this user watches here; null if they never chose. */
export function loadSymbols(userId: string): string[] | null {
  return load(`fanfare.symbols.${userId}`);
}

export function saveSymbols(userId: string, symbols: string[]): void {
  localStorage.setItem(`fanfare.symbols.${userId}`, JSON.stringify(symbols));
}
