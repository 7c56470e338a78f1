/**
 * Everything that mail refuses, with a stable code. web/routes/mail.ts maps codes to HTTP statuses
 * and roles/mail_smtp.ts to SMTP replies, once each. Failures of the store stay `KvError`.
 */
export type MailErrorCode =
  | "not_found"
  | "invalid_address"
  | "unknown_recipient"
  | "no_recipients"
  | "too_many_recipients"
  | "message_too_large"
  | "header_too_large"
  | "mail_loop"
  | "invalid_message"
  | "unknown_folder"
  | "folder_exists"
  | "invalid_folder"
  | "draft_conflict"
  | "draft_gone"
  | "not_your_address"
  | "attachment_missing"
  | "too_slow"
  | "conflict";

export class MailError extends Error {
  override readonly name = "MailError";
  /** @param address the one that is wrong, where the error is about an address */
  constructor(
    readonly code: MailErrorCode,
    message: string,
    readonly address?: string,
    options: ErrorOptions = {},
  ) {
    super(message, options);
  }
}
