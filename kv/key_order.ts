/**
 * The one order of rows and columns: by the bytes of their UTF-8, which is also the order of code
 * points and the order in which SQLite sorts text. JavaScript's `<` compares UTF-16 units, which
 * differs where a surrogate pair (code points above U+FFFF) meets U+E000 to U+FFFF.
 */

/** Negative when a sorts before b, 0 when equal, positive otherwise. */
export function compareKeys(a: string, b: string): number {
  return a === b ? 0 : compareFrom(a, b, sharedLength(a, b, 0));
}

/** How many UTF-16 units both begin with, when the first `from` of them are known to be equal. */
export function sharedLength(a: string, b: string, from: number): number {
  const length = Math.min(a.length, b.length);
  let i = from;
  while (i < length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  return i;
}

/** `compareKeys`, when the first `shared` units are equal and the next ones are not. */
export function compareFrom(a: string, b: string, shared: number): number {
  if (shared >= a.length || shared >= b.length) return a.length - b.length;
  const x = a.charCodeAt(shared), y = b.charCodeAt(shared);
  const xHigh = x >= 0xd800 && x <= 0xdfff, yHigh = y >= 0xd800 && y <= 0xdfff;
  if (xHigh !== yHigh && x >= 0xd800 && y >= 0xd800) return xHigh ? 1 : -1;
  return x - y;
}

/** Sorts behind every key: those have 1024 bytes at most. */
export const LAST_KEY = "\u{10ffff}".repeat(257);

/**
 * The smallest key that is larger than every key with this prefix; null when there is none (only
 * for a prefix of U+10FFFF alone, or the empty prefix).
 */
export function prefixEnd(prefix: string): string | null {
  const points = Array.from(prefix, (char) => char.codePointAt(0)!);
  while (points.length > 0) {
    const last = points.pop()!;
    if (last < 0x10ffff) {
      const next = last === 0xd7ff ? 0xe000 : last + 1;
      return String.fromCodePoint(...points, next);
    }
  }
  return null;
}

/** Whether `key` lies in the half-open range `[startKey, endKey)`; an end of null means no end. */
export function inRange(key: string, startKey: string, endKey: string | null): boolean {
  return compareKeys(key, startKey) >= 0 && (endKey === null || compareKeys(key, endKey) < 0);
}
