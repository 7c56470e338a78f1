/**
 * The self-signed certificate that a new cluster begins with, for STARTTLS and TLS until the operator
 * names a real one in `cluster.toml`. Made with WebCrypto and a small DER writer, so that a first
 * start needs no openssl.
 *
 * ECDSA on P-256 with SHA-256, an X.509 v3 certificate (RFC 5280) with
 *
 *     basicConstraints   CA:FALSE   rustls refuses an end entity that could sign others
 *     keyUsage           digitalSignature
 *     extendedKeyUsage   serverAuth
 *     subjectAltName     every name and address under which the cluster is reached
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";

export interface CertificateRequest {
  /** DNS names and IP addresses; the first is the subject's common name. At most 100. */
  readonly names: readonly string[];
  readonly notBefore: Date;
  readonly days: number;
}

export interface PemPair {
  readonly certificate: string;
  /** PKCS #8. */
  readonly privateKey: string;
}

const OID = {
  commonName: "2.5.4.3",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  keyUsage: "2.5.29.15",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
} as const;

/** Makes a fresh key and a certificate for it, signed with itself. */
export async function makeSelfSignedCertificate(request: CertificateRequest): Promise<PemPair> {
  const names = request.names.slice(0, 100);
  const commonName = names[0];
  if (commonName === undefined) throw new Error("Cannot make a certificate without a name");
  const keys = await crypto.subtle.generateKey(
    { name: "ECDSA", namedCurve: "P-256" },
    true,
    ["sign", "verify"],
  );
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
  const privateKey = new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey));

  const algorithm = sequence(oid(OID.ecdsaWithSha256));
  // RFC 5280 caps a common name at 64 characters; the whole name still stands among the SANs.
  const subject = sequence(
    set(sequence(oid(OID.commonName), der(0x0c, utf8(commonName.slice(0, 64))))),
  );
  const notAfter = new Date(request.notBefore.getTime() + request.days * 86_400_000);
  const toBeSigned = sequence(
    der(0xa0, integer(Uint8Array.of(2))), // version 3
    integer(crypto.getRandomValues(new Uint8Array(16))),
    algorithm,
    subject, // issuer: itself
    sequence(time(request.notBefore), time(notAfter)),
    subject,
    publicKey,
    der(0xa3, extensions(names)),
  );
  const signature = new Uint8Array(
    await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, toBeSigned),
  );
  // WebCrypto gives r and s as two halves; X.509 wants a sequence of two integers.
  const half = signature.length / 2;
  const signed = sequence(
    toBeSigned,
    algorithm,
    bitString(sequence(
      integer(signature.subarray(0, half)),
      integer(signature.subarray(half)),
    )),
  );
  return { certificate: pem("CERTIFICATE", signed), privateKey: pem("PRIVATE KEY", privateKey) };
}

/** When a certificate in PEM ends, in milliseconds since 1970. */
export function expiryMs(pem: string): number {
  return Date.parse(new X509Certificate(pem).validTo);
}

function extensions(names: readonly string[]): Bytes {
  const critical = der(0x01, Uint8Array.of(0xff));
  const alternatives = names.map((name) =>
    isIP(name) === 0 ? der(0x82, utf8(name)) : der(0x87, ipBytes(name))
  );
  return sequence(
    // CA:FALSE is the default of the empty sequence, and DER leaves defaults out.
    sequence(oid(OID.basicConstraints), critical, octets(sequence())),
    // One bit, digitalSignature, so seven unused ones.
    sequence(oid(OID.keyUsage), critical, octets(der(0x03, Uint8Array.of(7, 0x80)))),
    sequence(oid(OID.extendedKeyUsage), octets(sequence(oid(OID.serverAuth)))),
    sequence(oid(OID.subjectAltName), octets(sequence(...alternatives))),
  );
}

type Bytes = Uint8Array<ArrayBuffer>;

function der(tag: number, ...content: Bytes[]): Bytes {
  const length = content.reduce((sum, part) => sum + part.length, 0);
  const head = length < 0x80
    ? [tag, length]
    : length < 0x100
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  const bytes = new Uint8Array(head.length + length);
  bytes.set(head);
  let offset = head.length;
  for (const part of content) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

const sequence = (...parts: Bytes[]): Bytes => der(0x30, ...parts);
const set = (...parts: Bytes[]): Bytes => der(0x31, ...parts);
const octets = (content: Bytes): Bytes => der(0x04, content);
const bitString = (content: Bytes): Bytes => der(0x03, Uint8Array.of(0), content);
const utf8 = (text: string): Bytes => new TextEncoder().encode(text);

/** Unsigned, most significant byte first: no needless leading zeros, one where the sign bit is set. */
function integer(bytes: Uint8Array): Bytes {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const digits = bytes.slice(start) as Bytes;
  return digits[0]! >= 0x80 ? der(0x02, Uint8Array.of(0), digits) : der(0x02, digits);
}

function oid(dotted: string): Bytes {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return der(0x06, Uint8Array.from(bytes));
}

/** UTCTime until 2049, GeneralizedTime from then on, as RFC 5280 asks. */
function time(date: Date): Bytes {
  const digits = date.toISOString().replace(/[-:T]|\.\d+/g, "");
  return date.getUTCFullYear() < 2050 ? der(0x17, utf8(digits.slice(2))) : der(0x18, utf8(digits));
}

function ipBytes(address: string): Bytes {
  if (isIP(address) === 4) return Uint8Array.from(address.split(".").map(Number));
  const [left = "", right] = address.split("::");
  const words = (text: string) => text === "" ? [] : text.split(":").map((w) => parseInt(w, 16));
  const before = words(left), after = words(right ?? "");
  const zeros = new Array<number>(8 - before.length - after.length).fill(0);
  return Uint8Array.from(
    [...before, ...zeros, ...after].flatMap((word) => [word >> 8, word & 255]),
  );
}

function pem(label: string, bytes: Uint8Array): string {
  const lines = bytes.toBase64().replace(/(.{64})/g, "$1\n").trimEnd();
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}
