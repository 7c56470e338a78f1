/**
 * What a user may be called, and what a password must be like. The rules are told in whole
 * sentences, because the sign-up page shows them next to the field.
 */
import { AccountError } from "./account_error.ts";

const USERNAME = /^[a-z][a-z0-9._-]{1,31}$/;
export const PASSWORD_CHARACTERS_MIN = 8;
/** More would only cost time: Argon2id reads every byte. */
export const PASSWORD_CHARACTERS_MAX = 256;

/** Names that mail software and people give a meaning of their own. Operators may create them. */
const RESERVED = new Set([
  ...["abuse", "admin", "administrator", "anonymous", "daemon", "everyone", "help", "hostmaster"],
  ...["info", "mail", "mailer-daemon", "noc", "no-reply", "nobody", "noreply", "operator"],
  ...["penncloud", "postmaster", "root", "security", "support", "system", "webmaster", "www"],
]);

const COMMON = new Set([
  ...["password", "passw0rd", "12345678", "123456789", "1234567890", "qwertyui", "qwertyuiop"],
  ...["iloveyou", "sunshine", "princess", "football", "baseball", "superman", "trustno1"],
  ...["abcdefgh", "abcd1234", "1q2w3e4r", "letmein1", "welcome1", "password1", "penncloud"],
]);

/** The user name that somebody typed at a login: `Alice@home.example ` is `alice`. */
export function normalizeLogin(typed: string, mailDomain: string): string {
  const name = typed.trim().toLowerCase();
  const suffix = `@${mailDomain}`;
  return name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
}

/** Whether this could be the name of an account; says nothing about whether there is one. */
export function isUsername(name: string): boolean {
  // Two dots in a row are not allowed in the local part of a mail address either.
  return USERNAME.test(name) && !/[.-]$/.test(name) && !name.includes("..");
}

/** @throws {AccountError} `invalid_username` */
export function checkUsername(name: string, options: { allowReserved: boolean }): void {
  if (!isUsername(name)) {
    throw new AccountError("invalid_username", describeUsernameProblem(name));
  }
  if (RESERVED.has(name) && !options.allowReserved) {
    throw new AccountError("invalid_username", `The name "${name}" is reserved. Choose another.`);
  }
}

function describeUsernameProblem(name: string): string {
  if (name.length < 2) return "A user name has at least 2 characters.";
  if (name.length > 32) return "A user name has at most 32 characters.";
  if (/[A-Z]/.test(name)) return "Use small letters only.";
  if (!/^[a-z]/.test(name)) return "A user name begins with a letter from a to z.";
  if (/[.-]$/.test(name)) return "A user name cannot end in a dot or a hyphen.";
  if (name.includes("..")) return "A user name cannot have two dots in a row.";
  return "Use letters from a to z, digits, dots, hyphens and underscores.";
}

/** @throws {AccountError} `weak_password` */
export function checkNewPassword(password: string, username: string): void {
  const refuse = (message: string) => {
    throw new AccountError("weak_password", message);
  };
  const length = [...password].length;
  if (length < PASSWORD_CHARACTERS_MIN) {
    refuse(`Use at least ${PASSWORD_CHARACTERS_MIN} characters.`);
  }
  if (length > PASSWORD_CHARACTERS_MAX) {
    refuse(`Use at most ${PASSWORD_CHARACTERS_MAX} characters.`);
  }
  const lower = password.toLowerCase();
  if (lower.includes(username) && length < username.length + 6) {
    refuse("This password is too close to the user name.");
  }
  if (COMMON.has(lower) || new Set(lower).size < 3) {
    refuse("This password is among the first that anybody would try. Choose another.");
  }
}
