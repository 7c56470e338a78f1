/**
 * App passwords: for mail programs and scripts, made by us, shown once, revocable one by one. They
 * open HTTP Basic and SMTP, not a session in the browser, and they survive a change of password.
 *
 *     alice/app-passwords    <digest of the password>    its label, since when, last used
 */
import { z } from "zod";
import type { Env } from "../../kv/env.ts";
import { decodeJson, encodeJson, type Kv } from "../../kv/kv.ts";
import { AccountError } from "./account_error.ts";
import { digestId, makeAppPassword } from "./secret_token.ts";

export const APP_PASSWORDS_MAX = 30;
const TOUCH_MS = 60 * 60_000;

const AppPasswordRecord = z.object({
  label: z.string(),
  createdMs: z.number(),
  lastUsedMs: z.number().nullable(),
});

export interface AppPassword extends z.infer<typeof AppPasswordRecord> {
  readonly id: string;
}

const appPasswordRow = (username: string) => `${username}/app-passwords`;

export class AppPasswords {
  constructor(readonly kv: Kv, readonly env: Pick<Env, "wallMs" | "secretBytes" | "log">) {}

  /** @returns the password itself, which cannot be had again */
  async create(
    username: string,
    label: string,
  ): Promise<{ password: string; entry: AppPassword }> {
    if ((await this.list(username)).length >= APP_PASSWORDS_MAX) {
      throw new AccountError("too_many", "Revoke an app password before you make another.");
    }
    const password = makeAppPassword(this.env), id = digestId(canonical(password));
    const record = { label: label.slice(0, 100), createdMs: this.env.wallMs(), lastUsedMs: null };
    await this.kv.apply({
      row: appPasswordRow(username),
      mutations: [{ kind: "put", column: id, value: encodeJson(record) }],
    });
    return { password, entry: { id, ...record } };
  }

  /** Newest first. */
  async list(username: string): Promise<AppPassword[]> {
    const page = await this.kv.getRow(appPasswordRow(username), { limit: APP_PASSWORDS_MAX * 2 });
    return page.cells
      .map((cell) => ({
        id: cell.column,
        ...AppPasswordRecord.parse(decodeJson(cell.value!)),
      }))
      .sort((a, b) => b.createdMs - a.createdMs);
  }

  /** @returns false when the user has no such app password */
  async revoke(username: string, id: string): Promise<boolean> {
    const result = await this.kv.apply({
      row: appPasswordRow(username),
      conditions: [{ column: id, is: "present" }],
      mutations: [{ kind: "delete", column: id }],
    });
    return result.applied;
  }

  /** Whether this is one of the user's app passwords; with or without its hyphens. */
  async verify(username: string, password: string): Promise<boolean> {
    const plain = canonical(password);
    if (plain.length !== 20) return false;
    const row = appPasswordRow(username), column = digestId(plain);
    const cell = await this.kv.get(row, column);
    if (cell === null) return false;
    const record = AppPasswordRecord.parse(decodeJson(cell.value));
    const nowMs = this.env.wallMs();
    if (nowMs - (record.lastUsedMs ?? 0) > TOUCH_MS) {
      try {
        await this.kv.apply({
          row,
          // Only if it is still as we read it: a password that was just revoked stays so.
          conditions: [{ column, is: "version", version: cell.version }],
          mutations: [{
            kind: "put",
            column,
            value: encodeJson({ ...record, lastUsedMs: nowMs }),
          }],
        }, { deadlineMs: 1000 });
      } catch (error) {
        this.env.log("debug", "could not note the use of an app password", {
          error: String(error),
        });
      }
    }
    return true;
  }
}

const canonical = (password: string) => password.replace(/[\s-]/g, "").toLowerCase();
