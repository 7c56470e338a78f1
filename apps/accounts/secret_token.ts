/**
 * Secrets that we hand out: session tokens and app passwords. The store keeps only their SHA-256,
 * so that whoever reads it cannot use them. They are long enough that no slow hash is needed.
 */
import { createHash } from "node:crypto";
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
export function digestId(secret: string): string {
  // Every request asks for one; WebCrypto would send these few bytes to another thread and back.
  const bytes = createHash("sha256").update(secret).digest();
  let id = LETTERS[bytes[0]! % 26]!;
  for (let i = 1; i <= 26; i++) id += SYMBOLS[bytes[i]! & 31]!;
  return id;
}
