/**
 * Sessions, kept in the store so that any frontend serves any user.
 *
 *     <id>~session      session        who, since when, until when, from where
 *     alice/sessions    <id>           one column per session, to list and end them
 *
 * The id is a digest of the token that the browser holds. A session is good while it has not
 * expired and while its `generation` is the account's: raising that number, as a change of
 * password does, ends all sessions in one write, whatever else happens afterwards.
 */
import { z } from "zod";
import type { Env } from "../../kv/env.ts";
import { compareAndPut, decodeJson, encodeJson, type Kv, put, remove } from "../../kv/kv.ts";
import { digestId, makeToken } from "./secret_token.ts";

/** Beyond it the oldest session ends. */
export const SESSIONS_MAX = 50;
/** A session in use is written at most this often. */
export const TOUCH_MS = 5 * 60_000;
const DEVICE_CHARACTERS_MAX = 300;

const SessionRecord = z.object({
  username: z.string(),
  generation: z.int(),
  createdMs: z.number(),
  lastUsedMs: z.number(),
  expiresMs: z.number(),
  /** The browser's `User-Agent`. */
  device: z.string(),
  address: z.string(),
});
export type SessionRecord = z.infer<typeof SessionRecord>;

export interface Session extends SessionRecord {
  readonly id: string;
}

export interface NewSession {
  readonly username: string;
  readonly generation: number;
  readonly device: string;
  readonly address: string;
}

const sessionRow = (id: string) => `${id}~session`;
const indexRow = (username: string) => `${username}/sessions`;

export class Sessions {
  constructor(
    readonly kv: Kv,
    readonly env: Pick<Env, "wallMs" | "secretBytes" | "log">,
    readonly lifetimeMs: number,
  ) {}

  /** Starts a session. The token is in no store and cannot be had again. */
  async start(options: NewSession): Promise<{ token: string; session: Session }> {
    const token = makeToken(this.env), id = digestId(token);
    const nowMs = this.env.wallMs();
    const record: SessionRecord = {
      username: options.username,
      generation: options.generation,
      createdMs: nowMs,
      lastUsedMs: nowMs,
      expiresMs: nowMs + this.lifetimeMs,
      device: options.device.slice(0, DEVICE_CHARACTERS_MAX),
      address: options.address,
    };
    // The list first: a session that is in no list could not be ended.
    await put(this.kv, indexRow(record.username), id, encodeJson({ createdMs: nowMs }));
    await put(this.kv, sessionRow(id), "session", encodeJson(record));
    await this.#limit(record.username);
    return { token, session: { id, ...record } };
  }

  /**
   * The session of a token, or null when there is none or it has expired. Whether its generation
   * is still the account's is for the caller to check.
   */
  async find(token: string): Promise<Session | null> {
    if (token.length < 20 || token.length > 100) return null;
    const session = await this.#read(digestId(token));
    return session === null || session.expiresMs <= this.env.wallMs() ? null : session;
  }

  /**
   * Notes that a session is in use, and thereby prolongs it; at most every few minutes. A store
   * that is away does not fail the request: the note can wait.
   *
   * @returns whether it was written, so that the cookie can be renewed too
   */
  async touch(session: Session): Promise<boolean> {
    const nowMs = this.env.wallMs();
    if (nowMs - session.lastUsedMs < TOUCH_MS) return false;
    const touched = { lastUsedMs: nowMs, expiresMs: nowMs + this.lifetimeMs };
    try {
      return await this.#change(session.id, touched, 1000);
    } catch (error) {
      this.env.log("debug", "could not prolong a session", { error: String(error) });
      return false;
    }
  }

  /** Lets a session go on after the account's generation was raised. */
  async renew(session: Session, generation: number): Promise<void> {
    await this.#change(session.id, { generation }, 10_000);
  }

  /** Sessions that a user has, the last used first. */
  async list(username: string): Promise<Session[]> {
    const page = await this.kv.getRow(indexRow(username), { limit: SESSIONS_MAX * 2 });
    const sessions = await Promise.all(page.cells.map((cell) => this.#read(cell.column)));
    const nowMs = this.env.wallMs();
    return sessions.filter((session) => session !== null)
      .filter((session) => session.username === username && session.expiresMs > nowMs)
      .sort((a, b) => b.lastUsedMs - a.lastUsedMs);
  }

  /** Ends one session of a user; false when the user has no such session. */
  async end(username: string, id: string): Promise<boolean> {
    const session = await this.#read(id);
    if (session !== null && session.username !== username) return false;
    await this.kv.apply({
      row: sessionRow(id),
      mutations: [{ kind: "deletePrefix", prefix: "" }],
    });
    await remove(this.kv, indexRow(username), id);
    return session !== null;
  }

  /** Ends all sessions of a user but one. */
  async endAll(username: string, options: { exceptId?: string } = {}): Promise<void> {
    const page = await this.kv.getRow(indexRow(username), { limit: SESSIONS_MAX * 2 });
    const ids = page.cells.map((cell) => cell.column).filter((id) => id !== options.exceptId);
    await Promise.all(ids.map((id) => this.end(username, id)));
  }

  async #read(id: string): Promise<Session | null> {
    const cell = await this.kv.get(sessionRow(id), "session");
    return cell === null ? null : { id, ...SessionRecord.parse(decodeJson(cell.value)) };
  }

  async #change(
    id: string,
    fields: Partial<SessionRecord>,
    deadlineMs: number,
  ): Promise<boolean> {
    const row = sessionRow(id);
    for (let attempt = 0; attempt < 5; attempt++) {
      const cell = await this.kv.get(row, "session", { deadlineMs });
      if (cell === null) return false;
      const value = encodeJson({ ...SessionRecord.parse(decodeJson(cell.value)), ...fields });
      const expected = cell.version;
      const result = await compareAndPut(
        this.kv,
        { row, column: "session", value, expected },
        { deadlineMs },
      );
      if (result.applied) return true;
    }
    return false;
  }

  /** Sweeps expired sessions out of the list, and ends the oldest when there are too many. */
  async #limit(username: string): Promise<void> {
    const page = await this.kv.getRow(indexRow(username), { limit: SESSIONS_MAX * 2 });
    if (page.cells.length <= SESSIONS_MAX) return;
    const living = await this.list(username);
    const keep = new Set(living.slice(0, SESSIONS_MAX).map((session) => session.id));
    const ended = page.cells.filter((cell) => !keep.has(cell.column));
    await Promise.all(ended.map((cell) => this.end(username, cell.column)));
  }
}
