/**
 * How failures leave the building: each kind of error is mapped to an HTTP status in this one place.
 *
 * Routes throw `ApiError` for what they find wrong themselves and let everything else fly. The API
 * answers `{"error":{"code","message"}}`; pages answer with a page. A broken invariant of our own
 * ends the process by way of `Env.fatal`, because recovery is better than going on.
 */
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { AccountError, type AccountErrorCode } from "../apps/accounts/account_error.ts";
import { DriveError, type DriveErrorCode } from "../apps/drive/errors.ts";
import { MailError, type MailErrorCode } from "../apps/mail/mail_error.ts";
import { KvError, type KvErrorCode } from "../kv/errors.ts";

export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    readonly status: ContentfulStatusCode,
    readonly code: string,
    message: string,
    options: ErrorOptions & { headers?: Record<string, string> } = {},
  ) {
    super(message, options);
    this.headers = options.headers ?? {};
  }

  toJson(): { error: { code: string; message: string } } {
    return { error: { code: this.code, message: this.message } };
  }
}

const RETRY_SOON = { "Retry-After": "1" };
const AWAY = "The store is changing over to another machine. Nothing is lost; try again shortly.";
const UNKNOWN = "The store did not answer in time, so this may or may not have happened. " +
  "Look before you try again.";

const KV_ANSWERS: Record<KvErrorCode, () => ApiError> = {
  unavailable: () => new ApiError(503, "unavailable", AWAY, { headers: RETRY_SOON }),
  not_primary: () => new ApiError(503, "unavailable", AWAY, { headers: RETRY_SOON }),
  wrong_tablet: () => new ApiError(503, "unavailable", AWAY, { headers: RETRY_SOON }),
  frozen: () => new ApiError(503, "unavailable", AWAY, { headers: RETRY_SOON }),
  busy: () => new ApiError(503, "busy", "Too much at once. Try again.", { headers: RETRY_SOON }),
  outcome_unknown: () => new ApiError(503, "outcome_unknown", UNKNOWN, { headers: RETRY_SOON }),
  session_too_old: () => new ApiError(503, "outcome_unknown", UNKNOWN, { headers: RETRY_SOON }),
  snapshot_too_old: () =>
    new ApiError(503, "unavailable", "This took too long to read at once. Try again.", {
      headers: RETRY_SOON,
    }),
  disk_full: () =>
    new ApiError(507, "disk_full", "The disk is full. What is stored stays readable."),
  row_too_large: () => new ApiError(413, "too_large", "This is more than fits in one place."),
  invalid_request: () => new ApiError(422, "invalid_request", "A name or value is too long."),
  corrupted: () =>
    new ApiError(
      500,
      "corrupted",
      "A stored value is damaged. An administrator has to look at it.",
    ),
};

const ACCOUNT_STATUS: Record<AccountErrorCode, ContentfulStatusCode> = {
  name_taken: 409,
  invalid_username: 422,
  weak_password: 422,
  wrong_credentials: 401,
  wrong_password: 403,
  too_many_attempts: 429,
  no_such_user: 404,
  too_many: 409,
  busy: 503,
};

const MAIL_STATUS: Record<MailErrorCode, ContentfulStatusCode> = {
  not_found: 404,
  invalid_address: 422,
  unknown_recipient: 422,
  no_recipients: 422,
  too_many_recipients: 422,
  message_too_large: 413,
  header_too_large: 422,
  mail_loop: 422,
  invalid_message: 422,
  unknown_folder: 404,
  folder_exists: 409,
  invalid_folder: 422,
  draft_conflict: 409,
  draft_gone: 410,
  not_your_address: 403,
  attachment_missing: 422,
  too_slow: 408,
  conflict: 409,
};

const DRIVE_STATUS: Record<DriveErrorCode, ContentfulStatusCode> = {
  not_found: 404,
  name_exists: 409,
  into_itself: 409,
  invalid_name: 422,
  invalid_request: 422,
  not_a_folder: 422,
  not_a_file: 422,
  too_deep: 422,
  quota_exceeded: 507,
  file_too_large: 413,
  drive_full: 507,
  too_many_uploads: 429,
  upload_gone: 410,
  upload_conflict: 409,
  upload_aborted: 400,
  changed: 503,
  damaged: 500,
};

/** The answer to any error, or null when it is one that nobody expected. */
export function toApiError(error: unknown): ApiError | null {
  if (error instanceof ApiError) return error;
  if (error instanceof KvError) return KV_ANSWERS[error.code]();
  if (error instanceof MailError) {
    return new ApiError(MAIL_STATUS[error.code], error.code, `${error.message}.`);
  }
  if (error instanceof DriveError) {
    const headers = error.code === "changed" ? RETRY_SOON : {};
    return new ApiError(DRIVE_STATUS[error.code], error.code, `${error.message}.`, { headers });
  }
  if (error instanceof AccountError) {
    const { code, message, retryAfterSeconds } = error;
    return new ApiError(ACCOUNT_STATUS[code], code, message, {
      headers: retryAfterSeconds === null ? {} : { "Retry-After": String(retryAfterSeconds) },
    });
  }
  return null;
}

/** What is said when something broke that nobody foresaw. Details go to the log only. */
export const internalError = () =>
  new ApiError(500, "internal", "Something went wrong on our side. It has been noted in the log.");
