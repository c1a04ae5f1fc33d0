/** Cursors, `<epoch>:<seq>`: where this client stands in a room (shared/contracts/cursor.py). */

/** Return `next` if it is ahead of `current`, else null: the message that carries it was seen before. */
export function advance(current: string | null, next: string): string | null {
  if (current === null) return next;
  const [epoch, seq] = split(current);
  const [nextEpoch, nextSeq] = split(next);
  // Another epoch is another life of the stream: its numbers do not compare with ours.
  return nextEpoch !== epoch || nextSeq > seq ? next : null;
}

/** Say whether `cursor` is before `other`; of another life of the stream it never is. */
export function isBehind(cursor: string, other: string): boolean {
  const [epoch, seq] = split(cursor);
  const [otherEpoch, otherSeq] = split(other);
  return epoch === otherEpoch && seq < otherSeq;
}

function split(cursor: string): [epoch: string, seq: number] {
  const at = cursor.indexOf(":");
  return [cursor.slice(0, at), Number(cursor.slice(at + 1))];
}
