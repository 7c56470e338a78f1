/**
 * What can go wrong with an account through the fault of a request, not of the store.
 *
 * | code                | meaning                                                    |
 * | ------------------- | ---------------------------------------------------------- |
 * | `name_taken`        | somebody has this user name                                |
 * | `invalid_username`  | the user name breaks a rule or is reserved                 |
 * | `weak_password`     | the new password is too short, too long or too common      |
 * | `wrong_credentials` | user name and password do not belong together              |
 * | `wrong_password`    | the current password, asked for again, is not right        |
 * | `too_many_attempts` | wait `retryAfterSeconds`, then try again                   |
 * | `no_such_user`      | an operator named an account that does not exist           |
 * | `too_many`          | the account has as many app passwords as it may have       |
 * | `busy`              | more logins at once than this process can check            |
 *
 * web/errors.ts maps them to HTTP statuses.
 */
export type AccountErrorCode =
  | "name_taken"
  | "invalid_username"
  | "weak_password"
  | "wrong_credentials"
  | "wrong_password"
  | "too_many_attempts"
  | "no_such_user"
  | "too_many"
  | "busy";

export class AccountError extends Error {
  override readonly name = "AccountError";
  /** Set for `too_many_attempts` and `busy`. */
  readonly retryAfterSeconds: number | null;
  constructor(readonly code: AccountErrorCode, message: string, retryAfterSeconds?: number) {
    super(message);
    this.retryAfterSeconds = retryAfterSeconds ?? null;
  }
}
