/**
 * Accounts: signing up, logging in, changing passwords, roles.
 *
 *     alice/account     account     name, role, password hash, generation
 *     =users            alice       what the list of users shows
 *
 * Promises: of any number of simultaneous sign-ups for one name exactly one succeeds; a sign-up cut
 * short by a crash is finished by the next login or by signing up again with the same password;
 * a login takes equally long whether the account exists or not. Not here: cookies and HTTP (web/).
 *
 * Start at {@link Accounts.create} and {@link Accounts.logIn}.
 */
import { z } from "zod";
import type { Env } from "../../kv/env.ts";
import { compareAndPut, decodeJson, encodeJson, type FullCell, type Kv, put } from "../../kv/kv.ts";
import { version } from "../../proto/ids.ts";
import { AccountError } from "./account_error.ts";
import { AppPasswords } from "./app_passwords.ts";
import { LoginLimit } from "./login_limit.ts";
import { type HashCost, PasswordHasher } from "./password_hash.ts";
import { digestId } from "./secret_token.ts";
import { type Session, Sessions } from "./sessions.ts";
import { checkNewPassword, checkUsername, isUsername, normalizeLogin } from "./user_name.ts";

const AccountRecord = z.object({
  username: z.string(),
  admin: z.boolean(),
  createdMs: z.number(),
  passwordHash: z.string(),
  passwordChangedMs: z.number(),
  /** Sessions of an older generation have ended. */
  generation: z.int(),
  /** False until mail and drive have made what a new user needs. */
  ready: z.boolean(),
});
type AccountRecord = z.infer<typeof AccountRecord>;

/** What others may know of an account. */
export interface Account {
  readonly username: string;
  /** `alice@penncloud.test` */
  readonly address: string;
  readonly admin: boolean;
  readonly createdMs: number;
  readonly passwordChangedMs: number;
}

export interface AccountSummary {
  readonly username: string;
  readonly createdMs: number;
}

export interface AccountsOptions {
  readonly kv: Kv;
  readonly env: Env;
  readonly mailDomain: string;
  readonly sessionDays: number;
  /** Tests lower it. */
  readonly hashCost?: HashCost;
}

export interface Credentials {
  /** As typed: capitals and `@mail-domain` are taken away. */
  readonly username: string;
  readonly password: string;
  /** Where the client is, for the limit on attempts; null for the command line. */
  readonly address: string | null;
}

/** Makes what an app needs for a new user. It may run more than once and must not mind. */
export type CreateHook = (username: string) => Promise<void>;

const DAY_MS = 24 * 60 * 60_000;
const COLUMN = "account";
const USERS_ROW = "=users";
const accountRow = (username: string) => `${username}/account`;

/** Passwords that were verified lately, so that HTTP Basic does not pay for Argon2id each time. */
const REMEMBERED_MAX = 1000;
const REMEMBERED_MS = 5 * 60_000;

export class Accounts {
  readonly sessions: Sessions;
  readonly appPasswords: AppPasswords;
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #mailDomain: string;
  readonly #hasher: PasswordHasher;
  readonly #limit: LoginLimit;
  readonly #hooks: CreateHook[] = [];
  readonly #remembered = new Map<string, { generation: number; untilMs: number }>();

  constructor(options: AccountsOptions) {
    this.#kv = options.kv;
    this.#env = options.env;
    this.#mailDomain = options.mailDomain;
    this.#hasher = new PasswordHasher(options.env, options.hashCost);
    this.#limit = new LoginLimit(options.kv, options.env);
    this.sessions = new Sessions(options.kv, options.env, options.sessionDays * DAY_MS);
    this.appPasswords = new AppPasswords(options.kv, options.env);
  }

  /** Mail and drive make their folders here. Call it before the first request. */
  onCreate(hook: CreateHook): void {
    this.#hooks.push(hook);
  }

  /**
   * Makes an account.
   *
   * @param options.operator allows reserved names such as `postmaster`
   * @throws {AccountError} `name_taken`, `invalid_username`, `weak_password`, `busy`
   */
  async create(options: {
    readonly username: string;
    readonly password: string;
    readonly admin?: boolean;
    readonly operator?: boolean;
  }): Promise<Account> {
    const { username, password } = options;
    checkUsername(username, { allowReserved: options.operator ?? false });
    checkNewPassword(password, username);
    // Asked first only to spare the hash; the compare below is what decides.
    const existing = await this.#read(username);
    if (existing !== null) return await this.#resumeCreate(existing.record, password);
    const nowMs = this.#env.wallMs();
    const record: AccountRecord = {
      username,
      admin: options.admin ?? false,
      createdMs: nowMs,
      passwordHash: await this.#hasher.hash(password),
      passwordChangedMs: nowMs,
      generation: 1,
      ready: false,
    };
    const row = accountRow(username), value = encodeJson(record);
    const result = await compareAndPut(this.#kv, {
      row,
      column: COLUMN,
      value,
      expected: version(0),
    });
    if (!result.applied) {
      throw new AccountError("name_taken", `The name "${username}" is taken. Choose another.`);
    }
    await this.#finish(record);
    return this.#account(record);
  }

  /** The account of this exact user name, or null. */
  async find(username: string): Promise<Account | null> {
    if (!isUsername(username)) return null;
    const found = await this.#read(username);
    return found === null ? null : this.#account(found.record);
  }

  /**
   * Checks a password and starts a session.
   *
   * @throws {AccountError} `wrong_credentials`, `too_many_attempts`, `busy`
   */
  async logIn(
    options: Credentials & { readonly device: string },
  ): Promise<{ account: Account; token: string; session: Session }> {
    const record = await this.#checkPassword(options);
    await this.#finish(record);
    return { account: this.#account(record), ...(await this.#startSession(record, options)) };
  }

  /** A session for an account that was made in this same request. */
  async startSession(
    account: Account,
    from: { readonly device: string; readonly address: string | null },
  ): Promise<{ token: string; session: Session }> {
    const found = await this.#read(account.username);
    if (found === null) throw noSuchUser(account.username);
    return await this.#startSession(found.record, from);
  }

  /** Who a session token belongs to, or null. Prolongs the session as it is used. */
  async authenticate(
    token: string,
  ): Promise<{ account: Account; session: Session; prolonged: boolean } | null> {
    const session = await this.sessions.find(token);
    if (session === null) return null;
    const found = await this.#read(session.username);
    if (found === null || found.record.generation !== session.generation) return null;
    const prolonged = await this.sessions.touch(session);
    return { account: this.#account(found.record), session, prolonged };
  }

  /**
   * Checks a password or an app password, for HTTP Basic and SMTP.
   *
   * @throws {AccountError} `wrong_credentials`, `too_many_attempts`, `busy`
   */
  async verifyPassword(options: Credentials): Promise<Account> {
    const username = normalizeLogin(options.username, this.#mailDomain);
    if (isUsername(username)) {
      const found = await this.#read(username);
      if (found !== null) {
        const key = digestId(`${username} ${options.password}`);
        const remembered = this.#remembered.get(key);
        const nowMs = this.#env.monotonicMs();
        if (
          remembered !== undefined && remembered.untilMs > nowMs &&
          remembered.generation === found.record.generation
        ) return this.#account(found.record);
        if (await this.appPasswords.verify(username, options.password)) {
          await this.#finish(found.record);
          return this.#account(found.record);
        }
      }
    }
    const record = await this.#checkPassword(options);
    await this.#finish(record);
    this.#remember(record, options.password);
    return this.#account(record);
  }

  /**
   * Changes the password and ends every session but the one that asks.
   *
   * @param keep the session that goes on, if the request came in one
   * @throws {AccountError} `wrong_password`, `weak_password`, `too_many_attempts`, `busy`
   */
  async changePassword(options: {
    readonly username: string;
    readonly current: string;
    readonly next: string;
    readonly address: string | null;
    readonly keep?: Session;
  }): Promise<void> {
    const { username, current, next, address, keep } = options;
    checkNewPassword(next, username);
    try {
      await this.#checkPassword({ username, password: current, address });
    } catch (error) {
      if (error instanceof AccountError && error.code === "wrong_credentials") {
        throw new AccountError("wrong_password", "This is not your current password.");
      }
      throw error;
    }
    await this.#replacePassword(username, next, keep);
  }

  /** Sets a password without knowing the old one, as an operator may, and ends all sessions. */
  async setPassword(username: string, next: string): Promise<void> {
    checkNewPassword(next, username);
    await this.#replacePassword(username, next, undefined);
  }

  async setAdmin(username: string, admin: boolean): Promise<Account> {
    return this.#account(await this.#change(username, (record) => ({ ...record, admin })));
  }

  /** All users in the order of their names, page by page. */
  async list(
    options: { readonly after?: string; readonly limit?: number } = {},
  ): Promise<{ users: AccountSummary[]; next: string | null }> {
    const { after, limit = 100 } = options;
    const page = await this.#kv.getRow(USERS_ROW, {
      limit,
      ...(after === undefined ? {} : { after }),
    });
    const users = page.cells.map((cell) => ({
      username: cell.column,
      ...UserListEntry.parse(decodeJson(cell.value!)),
    }));
    return { users, next: page.next };
  }

  /** `alice` for what somebody typed as `Alice@penncloud.test`. */
  normalize(typed: string): string {
    return normalizeLogin(typed, this.#mailDomain);
  }

  #account({ username, admin, createdMs, passwordChangedMs }: AccountRecord): Account {
    const address = `${username}@${this.#mailDomain}`;
    return { username, address, admin, createdMs, passwordChangedMs };
  }

  async #read(username: string): Promise<{ record: AccountRecord; cell: FullCell } | null> {
    const cell = await this.#kv.get(accountRow(username), COLUMN);
    return cell === null ? null : { record: AccountRecord.parse(decodeJson(cell.value)), cell };
  }

  async #change(
    username: string,
    alter: (record: AccountRecord) => AccountRecord,
  ): Promise<AccountRecord> {
    for (let attempt = 0; attempt < 10; attempt++) {
      const found = isUsername(username) ? await this.#read(username) : null;
      if (found === null) throw noSuchUser(username);
      const record = alter(found.record);
      const result = await compareAndPut(this.#kv, {
        row: accountRow(username),
        column: COLUMN,
        value: encodeJson(record),
        expected: found.cell.version,
      });
      if (result.applied) return record;
    }
    throw new AccountError("busy", "Somebody else is changing this account. Try again.", 1);
  }

  /** The rest of a sign-up. Safe to repeat; a crash in the middle leaves `ready` false. */
  async #finish(record: AccountRecord): Promise<void> {
    if (record.ready) return;
    await put(this.#kv, USERS_ROW, record.username, encodeJson({ createdMs: record.createdMs }));
    // A process without the apps (the command line) leaves the rest to the first login.
    if (this.#hooks.length === 0) return;
    for (const hook of this.#hooks) await hook(record.username);
    await this.#change(record.username, (latest) => ({ ...latest, ready: true }));
  }

  async #resumeCreate(record: AccountRecord, password: string): Promise<Account> {
    // A sign-up that broke off is finished for whoever knows its password.
    if (!record.ready && await this.#hasher.verify(password, record.passwordHash)) {
      await this.#finish(record);
      return this.#account(record);
    }
    throw new AccountError("name_taken", `The name "${record.username}" is taken. Choose another.`);
  }

  async #checkPassword(options: Credentials): Promise<AccountRecord> {
    const username = normalizeLogin(options.username, this.#mailDomain);
    const attempt = await this.#limit.begin(username.slice(0, 100), options.address);
    const found = isUsername(username) ? await this.#read(username) : null;
    const hash = found?.record.passwordHash ?? null;
    if (!await this.#hasher.verify(options.password, hash) || found === null) {
      await attempt.failed();
      throw new AccountError("wrong_credentials", "User name or password is not right.");
    }
    await attempt.succeeded();
    if (!this.#hasher.needsRehash(found.record.passwordHash)) return found.record;
    const passwordHash = await this.#hasher.hash(options.password);
    return await this.#change(
      username,
      // Unless the password was changed meanwhile.
      (latest) => latest.passwordHash === hash ? { ...latest, passwordHash } : latest,
    );
  }

  async #replacePassword(
    username: string,
    next: string,
    keep: Session | undefined,
  ): Promise<void> {
    const passwordHash = await this.#hasher.hash(next);
    const record = await this.#change(username, (latest) => ({
      ...latest,
      passwordHash,
      passwordChangedMs: this.#env.wallMs(),
      generation: latest.generation + 1,
    }));
    if (keep !== undefined) await this.sessions.renew(keep, record.generation);
    // They have ended with the write above; this only clears them away.
    await this.sessions.endAll(username, keep === undefined ? {} : { exceptId: keep.id });
  }

  #startSession(
    record: AccountRecord,
    from: { readonly device: string; readonly address: string | null },
  ) {
    return this.sessions.start({
      username: record.username,
      generation: record.generation,
      device: from.device,
      address: from.address ?? "",
    });
  }

  #remember(record: AccountRecord, password: string): void {
    if (this.#remembered.size >= REMEMBERED_MAX) {
      for (const key of this.#remembered.keys()) {
        this.#remembered.delete(key);
        break;
      }
    }
    const key = digestId(`${record.username} ${password}`);
    const untilMs = this.#env.monotonicMs() + REMEMBERED_MS;
    this.#remembered.set(key, { generation: record.generation, untilMs });
  }
}

const UserListEntry = z.object({ createdMs: z.number() });

const noSuchUser = (username: string) =>
  new AccountError("no_such_user", `There is no user "${username}".`);
