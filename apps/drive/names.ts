/**
 * Names of files and folders: which are allowed, and how they sort.
 *
 * A name is 1 to 255 bytes of UTF-8 after NFC normalisation, without "/", control characters or
 * lone surrogates, not "." or "..", and not blank. Names are unique within a folder, files and
 * folders together, and case matters: "Notes" and "notes" may stand side by side.
 *
 * Within a folder the store itself keeps children in the order people expect: folders first, then
 * without regard to case and accents, numbers by value ("page 9" before "page 10").
 */
import { DriveError } from "./errors.ts";

export const NAME_BYTES_MAX = 255;

/** Enough to order names; ties are broken by the name itself, which follows in the column. */
const SORT_KEY_CHARS_MAX = 128;
const encoder = new TextEncoder();

/** The name as it is stored. Throws `DriveError` `invalid_name`. */
export function checkName(raw: unknown): string {
  const refuse = (why: string) => {
    throw new DriveError("invalid_name", `Cannot use this name: ${why}`);
  };
  if (typeof raw !== "string" || !raw.isWellFormed()) return refuse("it is not valid text");
  const name = raw.normalize("NFC");
  if (name.trim() === "") return refuse("it is empty");
  if (name === "." || name === "..") return refuse(`"${name}" has a meaning of its own`);
  if (name.includes("/")) return refuse('"/" stands between folders');
  if (/\p{Cc}/u.test(name)) return refuse("it holds control characters");
  const bytes = encoder.encode(name).length;
  if (bytes > NAME_BYTES_MAX) {
    return refuse(`it has ${bytes} bytes, at most ${NAME_BYTES_MAX} are possible`);
  }
  return name;
}

/** Orders names by the bytes of the result. Holds no control characters, at most 512 bytes. */
export function sortKey(name: string): string {
  const folded = name.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "").normalize("NFC");
  // A run of digits is led by its length, so that longer numbers sort behind shorter ones. Lengths
  // 10 to 16 use the characters after "9", which still come before letters.
  const natural = folded.replace(/[0-9]+/g, (digits) => {
    const value = digits.replace(/^0+(?=[0-9])/, "");
    return String.fromCharCode(0x30 + Math.min(value.length, 16)) + value;
  });
  return Array.from(natural).slice(0, SORT_KEY_CHARS_MAX).join("");
}

/** "report.pdf", 2 → "report (2).pdf", shortened where the number would make it too long. */
export function numberedName(name: string, number: number): string {
  const dot = name.lastIndexOf(".");
  const hasExtension = dot > 0 && name.length - dot <= 16;
  const extension = hasExtension ? name.slice(dot) : "";
  const suffix = ` (${number})${extension}`;
  const stem = Array.from(hasExtension ? name.slice(0, dot) : name);
  while (
    stem.length > 1 && encoder.encode(stem.join("") + suffix).length > NAME_BYTES_MAX
  ) stem.pop();
  return stem.join("") + suffix;
}
