/**
 * Passwords as they are kept: Argon2id, written as a PHC string
 *
 *     $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>        (base64 without padding)
 *
 * The cost stands in the string, so that it can be raised: old hashes go on to verify, and
 * `needsRehash()` tells when to make a new one. Hashing takes 19 MiB and about 90 ms of one core,
 * so `PasswordHasher` runs only a few at a time and refuses when too many wait.
 */
import type { Env } from "../../kv/env.ts";
import { AccountError } from "./account_error.ts";

export interface HashCost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly parallelism: number;
}

/** OWASP's first recommendation for Argon2id. */
export const HASH_COST: HashCost = { memoryKib: 19_456, passes: 2, parallelism: 1 };

const SALT_BYTES = 16;
const HASH_BYTES = 32;
/** Two keep a small host responsive and hold at most 38 MiB. */
const PARALLEL_MAX = 2;
/** About 12 s of work: beyond it a caller would give up before being served. */
const WAITING_MAX = 256;

interface ParsedHash {
  readonly cost: HashCost;
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** Hashes and verifies passwords, a bounded number at a time. */
export class PasswordHasher {
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #env: Pick<Env, "secretBytes">;
  readonly #cost: HashCost;
  /** Verified when the account does not exist, so that this takes as long as if it did. */
  readonly #decoy: string;

  constructor(env: Pick<Env, "secretBytes">, cost: HashCost = HASH_COST) {
    this.#env = env;
    this.#cost = cost;
    this.#decoy = formatHash({
      cost,
      salt: env.secretBytes(SALT_BYTES),
      hash: env.secretBytes(HASH_BYTES),
    });
  }

  /** @throws {AccountError} `busy` */
  async hash(password: string): Promise<string> {
    const salt = this.#env.secretBytes(SALT_BYTES);
    const hash = await this.#derive(password, salt, this.#cost);
    return formatHash({ cost: this.#cost, salt, hash });
  }

  /**
   * @param stored null when there is no such account; the answer is then false, as late as ever
   * @throws {AccountError} `busy`
   */
  async verify(password: string, stored: string | null): Promise<boolean> {
    const parsed = parseHash(stored ?? this.#decoy);
    const derived = await this.#derive(password, parsed.salt, parsed.cost);
    return equalBytes(derived, parsed.hash) && stored !== null;
  }

  /** Whether a hash was made at a lower cost than is asked for today. */
  needsRehash(stored: string): boolean {
    const { cost } = parseHash(stored);
    return cost.memoryKib < this.#cost.memoryKib || cost.passes < this.#cost.passes;
  }

  async #derive(password: string, salt: Uint8Array, cost: HashCost): Promise<Uint8Array> {
    await this.#enter();
    try {
      return await argon2id(password, salt, cost);
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  async #enter(): Promise<void> {
    if (this.#running >= PARALLEL_MAX) {
      if (this.#waiting.length >= WAITING_MAX) {
        throw new AccountError("busy", "Too many people log in right now. Try again.", 3);
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#running++;
  }
}

async function argon2id(password: string, salt: Uint8Array, cost: HashCost): Promise<Uint8Array> {
  // The DOM types do not know these names yet; the runtime does.
  const subtle = crypto.subtle as unknown as {
    importKey(...args: unknown[]): Promise<CryptoKey>;
    deriveBits(...args: unknown[]): Promise<ArrayBuffer>;
  };
  const secret = new TextEncoder().encode(password.normalize("NFC"));
  const key = await subtle.importKey("raw-secret", secret, "Argon2id", false, ["deriveBits"]);
  const { memoryKib: memory, passes, parallelism } = cost;
  const parameters = { name: "Argon2id", nonce: salt, parallelism, memory, passes };
  return new Uint8Array(await subtle.deriveBits(parameters, key, HASH_BYTES * 8));
}

function formatHash({ cost, salt, hash }: ParsedHash): string {
  const costs = `m=${cost.memoryKib},t=${cost.passes},p=${cost.parallelism}`;
  return `$argon2id$v=19$${costs}$${toBase64(salt)}$${toBase64(hash)}`;
}

function parseHash(stored: string): ParsedHash {
  const match = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/
    .exec(stored);
  if (match === null) throw new Error("Cannot read a stored password hash: not in PHC form");
  return {
    cost: {
      memoryKib: Number(match[1]),
      passes: Number(match[2]),
      parallelism: Number(match[3]),
    },
    salt: fromBase64(match[4]!),
    hash: fromBase64(match[5]!),
  };
}

const toBase64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes)).replace(/=+$/, "");
const fromBase64 = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

/** Takes equally long wherever the first difference is. */
function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
