/** Bytes that the members of a relay room say to each other; docs/protocol.md has the two forms. */

const VERSION = 1;

export interface Relayed {
  room: string;
  /** Who said it, by the server's word. */
  userId: string;
  payload: Uint8Array;
}

/** Return the message that has `payload` relayed in a room. */
export function encodeRelay(room: string, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(room);
  const message = new Uint8Array(2 + name.length + payload.length);
  message.set([VERSION, name.length]);
  message.set(name, 2);
  message.set(payload, 2 + name.length);
  return message;
}

/** Return what an edge has relayed; null if it is of a version that this client does not know. */
export function decodeRelayed(data: ArrayBuffer): Relayed | null {
  const bytes = new Uint8Array(data);
  if (bytes[0] !== VERSION) return null;
  const [room, userAt] = takeName(bytes, 1);
  const [userId, payloadAt] = takeName(bytes, userAt);
  return { room, userId, payload: bytes.subarray(payloadAt) };
}

function takeName(bytes: Uint8Array, at: number): [name: string, end: number] {
  const end = at + 1 + (bytes[at] ?? 0);
  return [new TextDecoder().decode(bytes.subarray(at + 1, end)), end];
}
