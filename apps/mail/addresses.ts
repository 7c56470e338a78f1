/**
 * Mail addresses: reading what people type, and telling ours from the rest.
 *
 * Strict about what goes into an envelope (one line, sane lengths, a domain of labels), lenient
 * about how it is written: `Ann <ann@x.org>`, `"Doe, Jo" <jo@x.org>` and bare addresses. Addresses
 * with non-ASCII letters before the `@` are refused: they need SMTPUTF8 all the way.
 */
import addressparser from "nodemailer/lib/addressparser";
import { MailError } from "./mail_error.ts";

export interface Address {
  readonly name: string;
  readonly address: string;
}

const LOCAL_PART = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/;
const DOMAIN_LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const NAME_LENGTH_MAX = 200;
// deno-lint-ignore no-control-regex -- control characters are what it is for
const CONTROLS = /[\u0000-\u001f\u007f]/;

/** Lower-cases the domain, turns it into its ASCII form; null when this is no address. */
export function normalizeAddress(text: string): string | null {
  const trimmed = text.trim();
  if (trimmed.length > 254 || CONTROLS.test(trimmed)) return null;
  const at = trimmed.lastIndexOf("@");
  if (at < 1 || at > 64) return null;
  const local = trimmed.slice(0, at), domain = asciiDomain(trimmed.slice(at + 1));
  if (!LOCAL_PART.test(local) || domain === null) return null;
  return `${local}@${domain}`;
}

function asciiDomain(text: string): string | null {
  if (text === "" || text.length > 253 || /[/\\?#@:\s%[\]]/.test(text)) return null;
  let domain = text.toLowerCase();
  if (/[^a-z0-9.-]/.test(domain)) {
    try {
      domain = new URL(`http://${domain}/`).hostname;
    } catch {
      return null;
    }
  }
  const labels = domain.split(".");
  // A name of digits alone would be an IPv4 address, which is no mail domain.
  if (labels.length < 2 || /^\d+$/.test(labels.at(-1)!)) return null;
  return labels.every((label) => DOMAIN_LABEL.test(label)) ? domain : null;
}

/**
 * Reads one field of recipients: a string with commas, or a list of strings or `{name, address}`.
 *
 * @throws {MailError} `invalid_address`, naming the first bad one
 */
export function parseRecipients(
  field: string | readonly (string | { name?: string | undefined; address: string })[] | undefined,
): Address[] {
  if (field === undefined) return [];
  const addresses: Address[] = [];
  const add = (name: string, address: string, shown: string) => {
    const normalized = normalizeAddress(address);
    if (normalized === null) throw invalid(shown);
    const clean = name.replaceAll(/[\p{Cc}"]/gu, " ").trim().slice(0, NAME_LENGTH_MAX);
    addresses.push({ name: clean, address: normalized });
  };
  for (const item of typeof field === "string" ? [field] : field) {
    if (typeof item !== "string") {
      add(item.name ?? "", item.address, item.address);
      continue;
    }
    if (item.trim() === "") continue;
    if (CONTROLS.test(item.trim())) throw invalid(item);
    for (const found of addressparser(item, { flatten: true })) {
      add(found.name, found.address, found.address || found.name || item);
    }
  }
  return addresses;
}

function invalid(text: string): MailError {
  const shown = text.replaceAll(/\p{Cc}/gu, " ").trim().slice(0, 100);
  return new MailError("invalid_address", `"${shown}" is not a mail address`, shown);
}

/** Keeps the first of each address, comparing without case. */
export function uniqueAddresses(addresses: readonly Address[]): Address[] {
  const seen = new Set<string>();
  return addresses.filter(({ address }) => {
    const key = address.toLowerCase();
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

/** Whether the address is one that this cluster delivers itself. */
export function isLocal(address: string, mailDomain: string): boolean {
  return address.slice(address.lastIndexOf("@") + 1).toLowerCase() === mailDomain;
}

/** The account an address of ours belongs to: `ann+shop@…` is ann's. */
export function localUser(address: string): string {
  const local = address.slice(0, address.lastIndexOf("@")).toLowerCase();
  const plus = local.indexOf("+");
  return plus > 0 ? local.slice(0, plus) : local;
}

/** `Name <address>`, for people. */
export function formatAddress({ name, address }: Address): string {
  return name === "" ? address : `${name} <${address}>`;
}
