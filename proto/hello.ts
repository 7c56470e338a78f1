/**
 * The handshake: before anything else on a connection, both ends prove that they know the cluster's
 * secret and speak the same protocol.
 *
 *     server → client   {"penncloud":1,"nonce":S}
 *     client → server   {"penncloud":1,"cluster":"home","from":"backend/4","nonce":C,"proof":P}
 *     server → client   {"re":"hello","from":"backend/1","proof":Q}
 *     or, from either   {"error":{"code","message"}}, and the connection closes
 *
 * P and Q are HMAC-SHA256 with the secret over the direction, the version, the cluster, the sender's
 * name and both nonces, in hex. Both nonces are fresh, so a recorded proof is worth nothing later,
 * and the direction keeps one end's proof from being played back as the other's.
 *
 * Not promised: secrecy, or protection from somebody who sits on the cable and changes bytes after
 * the handshake. Nodes on networks that others can reach belong behind a tunnel.
 */
import { z } from "zod";
import type { FrameLimits } from "./codec.ts";
import { PROTOCOL_VERSION } from "./version.ts";

/** Nobody who is not let in yet gets to send more than this. */
export const HELLO_LIMITS: FrameLimits = { lineBytesMax: 1024, payloadBytesMax: 0 };
/** The whole handshake, so that silent connections cannot pile up. */
export const HELLO_TIMEOUT_MS = 5_000;

const Nonce = z.string().regex(/^[0-9a-f]{32}$/);
const Proof = z.string().regex(/^[0-9a-f]{64}$/);
/** `backend/4`, `supervisor`, `client`. */
export const PeerName = z.string().regex(/^[a-z][a-z0-9_/-]{0,63}$/);

/** server → client: who are you? */
export const ServerHello = z.object({ penncloud: z.int(), nonce: Nonce });
export type ServerHello = z.infer<typeof ServerHello>;

/** client → server: this is me, and I know the secret. */
export const ClientHello = z.object({
  penncloud: z.int(),
  cluster: z.string().max(32),
  from: PeerName,
  nonce: Nonce,
  proof: Proof,
});
export type ClientHello = z.infer<typeof ClientHello>;

/** server → client: welcome, and I know it too. */
export const Welcome = z.object({ re: z.literal("hello"), from: PeerName, proof: Proof });
export type Welcome = z.infer<typeof Welcome>;

export type HelloErrorCode =
  | "wrong_version"
  | "wrong_cluster"
  | "wrong_secret"
  | "bad_hello";

/** The two ends cannot work together. Retrying does not help until somebody mends a setting. */
export class HelloError extends Error {
  override readonly name = "HelloError";
  constructor(readonly code: HelloErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options);
  }
}

/** What both ends know once the client's hello is there. */
export interface HelloTerms {
  readonly secret: string;
  readonly cluster: string;
  readonly serverNonce: string;
  readonly clientNonce: string;
}

/** One end's proof: `from` is the name of the end that gives it. */
export async function proveHello(
  terms: HelloTerms & { readonly direction: "client" | "server"; readonly from: string },
): Promise<string> {
  const proof = await crypto.subtle.sign("HMAC", await secretKey(terms.secret), spoken(terms));
  return new Uint8Array(proof).toHex();
}

/** Whether `proof` is the other end's. Takes the same time wherever the two differ. */
export async function checkProof(
  terms: HelloTerms & { readonly direction: "client" | "server"; readonly from: string },
  proof: string,
): Promise<boolean> {
  const given = Uint8Array.fromHex(proof);
  return await crypto.subtle.verify("HMAC", await secretKey(terms.secret), given, spoken(terms));
}

/** @throws {HelloError} the other end speaks another protocol */
export function checkVersion(version: number): void {
  if (version !== PROTOCOL_VERSION) {
    throw new HelloError(
      "wrong_version",
      `Cannot talk to a node of protocol version ${version}: this one speaks ${PROTOCOL_VERSION}; ` +
        "run the same release on both",
    );
  }
}

function spoken(
  terms: HelloTerms & { readonly direction: string; readonly from: string },
): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify([
    "penncloud hello",
    terms.direction,
    PROTOCOL_VERSION,
    terms.cluster,
    terms.from,
    terms.serverNonce,
    terms.clientNonce,
  ]));
}

async function secretKey(secret: string): Promise<CryptoKey> {
  return await crypto.subtle.importKey(
    "raw",
    new TextEncoder().encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign", "verify"],
  );
}
