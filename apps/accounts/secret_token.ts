/**
 * Secrets that we hand out: session tokens and app passwords. The store keeps only their SHA-256,
 * so that whoever reads it cannot use them. They are long enough that no slow hash is needed.
 */
import type { Env } from "../../kv/env.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const SYMBOLS = "abcdefghijklmnopqrstuvwxyz234567";

/** 256 unpredictable bits as 43 characters that are safe in a cookie. */
export function makeToken(env: Pick<Env, "secretBytes">): string {
  const text = btoa(String.fromCharCode(...env.secretBytes(32)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** 100 unpredictable bits that a person can copy by hand: `abcde-fghij-klmno-pqrst`. */
export function makeAppPassword(env: Pick<Env, "secretBytes">): string {
  const symbols = Array.from(env.secretBytes(20), (byte) => SYMBOLS[byte & 31]!);
  return [0, 5, 10, 15].map((start) => symbols.slice(start, start + 5).join("")).join("-");
}

/**
 * What the store keeps in place of a secret: 27 characters of its SHA-256. The first is one of a to
 * z, so that rows named by it spread over all tablets; the others carry 130 bits.
 */
export async function digestId(secret: string): Promise<string> {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(secret));
  const [first, ...rest] = new Uint8Array(bytes);
  return LETTERS[first! % 26]! + rest.slice(0, 26).map((byte) => SYMBOLS[byte & 31]!).join("");
}
