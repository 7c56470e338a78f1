/**
 * The drive's housekeeping: expired uploads, garbage chunks, folders being deleted, old trash.
 *
 * Every frontend runs one. Users who ever stored something are listed in 26 rows; a lease in the
 * store lets one frontend at a time walk that list, a bounded piece per round. After a walk that found
 * nothing left to do there is a rest, during which an idle cluster is not written to. The lease only saves
 * work: every step is safe when two sweepers do it at once, so clocks that disagree do no harm.
 *
 * Users whose drive was just changed by this process (`soon`) come first and need no lease.
 */
import { crc32 } from "node:zlib";
import { z } from "zod";
import { type Env, freshId } from "../../kv/env.ts";
import { compareAndPut, decodeJson, encodeJson, type Kv, put } from "../../kv/kv.ts";
import { untilBeatMs } from "../../kv/repeat.ts";
import type { ClusterConfig } from "../../proto/cluster_config.ts";
import { version } from "../../proto/ids.ts";
import { freeGarbage } from "./garbage.ts";
import { purgeFolders, purgeTrash, trashDue } from "./purge.ts";
import { forgetFinished } from "./resumable.ts";
import { DriveTree } from "./tree.ts";
import { abandonMutations, decodeUpload } from "./uploads.ts";

const ROUND_MS = 10_000;
const LEASE_MS = 45_000;
/** What the walk looks for has been due for hours or days. */
const REST_MS = 5 * 60_000;
const USERS_PER_ROUND = 50;
/** Work for one user in one round; the rest waits for the next. */
const CHUNKS_PER_VISIT = 512;
const STEPS_PER_VISIT = 200;
const TRASH_PER_VISIT = 600;
/** Remembered users: a full list only costs the sweeper's usual patience. */
const SOON_MAX = 1000;
const LISTED_MAX = 20_000;

const LEASE_ROW = "drive~sweeper";
const LEASE_COLUMN = "lease";
const LETTERS = "abcdefghijklmnopqrstuvwxyz";

const Lease = z.object({
  owner: z.string(),
  untilMs: z.number(),
  /** Where the walk over the users stands: a row of the list, and the user visited last. */
  list: z.int().min(0).max(25),
  after: z.string().optional(),
  /** Somebody who was visited on this walk had more to do than one visit does. */
  hasMore: z.boolean().optional(),
  /** The next walk begins then. */
  restUntilMs: z.number().optional(),
});
type Lease = z.infer<typeof Lease>;

const listRow = (index: number): string => `${LETTERS[index]!}~drive/users`;

export class DriveSweeper {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #config: ClusterConfig["drive"];
  readonly #owner: string;
  readonly #soon = new Set<string>();
  readonly #listed = new Set<string>();

  constructor(context: { kv: Kv; env: Env; config: ClusterConfig }) {
    this.#kv = context.kv;
    this.#env = context.env;
    this.#config = context.config.drive;
    this.#owner = freshId(context.env);
  }

  /** Puts the user on the list of those to visit. Cheap when this process did it before. */
  async list(user: string): Promise<void> {
    if (this.#listed.has(user)) return;
    await put(this.#kv, listRow(crc32(user) % 26), user, "");
    if (this.#listed.size >= LISTED_MAX) this.#listed.clear();
    this.#listed.add(user);
  }

  /** Visits the user in the next round. */
  soon(user: string): void {
    if (this.#soon.size < SOON_MAX) this.#soon.add(user);
  }

  /** Sweeps until the signal aborts. A store that is away is tried again in the next round. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const waitMs = ROUND_MS * (0.75 + this.#env.random() / 2);
        await this.#env.sleep(untilBeatMs(this.#env, waitMs), signal);
        await this.round();
      } catch (error) {
        if (signal.aborted) return;
        this.#env.log("warning", "a round of the drive's sweeper failed", {
          error: error instanceof Error ? error.message : String(error),
        });
      }
    }
  }

  /** One bounded piece of work. */
  async round(): Promise<void> {
    for (const user of [...this.#soon].slice(0, USERS_PER_ROUND)) {
      this.#soon.delete(user);
      if (!await this.visit(user)) this.soon(user);
    }
    const lease = await this.#takeLease();
    if (lease !== null) await this.#walk(lease);
  }

  /** Does what is due in one user's drive; false when something due is left. */
  async visit(user: string): Promise<boolean> {
    const tree = new DriveTree(this.#kv, this.#env, user);
    await this.#expireUploads(tree);
    const beforeMs = trashDue(this.#env.wallMs(), this.#config.trash_days);
    const purged = await purgeTrash(tree, { beforeMs, itemsMax: TRASH_PER_VISIT });
    const foldersDone = await purgeFolders(tree, STEPS_PER_VISIT);
    const freed = await freeGarbage(tree, CHUNKS_PER_VISIT);
    return foldersDone && freed < CHUNKS_PER_VISIT && purged < TRASH_PER_VISIT;
  }

  async #expireUploads(tree: DriveTree): Promise<void> {
    const beforeMs = this.#env.wallMs() - this.#config.upload_hours * 60 * 60_000;
    const { cells } = await tree.page("u/", { limit: 1000 });
    for (const { column, version, value } of cells) {
      const record = decodeUpload(value!);
      if (record.touchedMs > beforeMs) continue;
      await tree.commit(
        [{ column, is: "version", version }],
        abandonMutations(tree, column.slice(2), record),
      );
    }
    await forgetFinished(tree, beforeMs);
  }

  async #walk(lease: Lease): Promise<void> {
    const { owner } = lease;
    let { list, after, hasMore = false, restUntilMs = 0 } = lease;
    let visited = 0, isOver = false;
    while (!isOver && visited < USERS_PER_ROUND) {
      const page = await this.#kv.getRow(listRow(list), {
        limit: USERS_PER_ROUND - visited,
        keysOnly: true,
        ...(after === undefined ? {} : { after }),
      });
      for (const { column: user } of page.cells) {
        if (!await this.visit(user)) hasMore = true;
        visited++;
      }
      after = page.next ?? undefined;
      if (page.next !== null) continue;
      list = (list + 1) % LETTERS.length;
      isOver = list === 0;
    }
    if (isOver) {
      restUntilMs = hasMore ? 0 : this.#env.wallMs() + REST_MS;
      hasMore = false;
    }
    const place = after === undefined ? { list } : { list, after };
    await this.#writeLease({ owner, ...place, hasMore, restUntilMs });
  }

  async #takeLease(): Promise<Lease | null> {
    const cell = await this.#kv.get(LEASE_ROW, LEASE_COLUMN);
    const held = cell === null ? null : Lease.safeParse(decodeJson(cell.value)).data ?? null;
    const nowMs = this.#env.wallMs();
    // A lease far in the future comes from a clock that was wrong.
    const valid = held !== null && held.untilMs > nowMs && held.untilMs < nowMs + 2 * LEASE_MS;
    if (valid && held.owner !== this.#owner) return null;
    // As far in the future as no rest ends: the clock was wrong.
    const { restUntilMs = 0 } = held ?? {};
    if (restUntilMs > nowMs && restUntilMs < nowMs + 2 * REST_MS) return null;
    const lease = { list: 0, ...held, owner: this.#owner, untilMs: nowMs + LEASE_MS };
    const result = await compareAndPut(this.#kv, {
      row: LEASE_ROW,
      column: LEASE_COLUMN,
      value: encodeJson(lease),
      expected: cell?.version ?? version(0),
    });
    return result.applied ? lease : null;
  }

  /** Keeps the place for whoever comes next. */
  async #writeLease(lease: Omit<Lease, "untilMs">): Promise<void> {
    const untilMs = this.#env.wallMs() + LEASE_MS;
    await put(this.#kv, LEASE_ROW, LEASE_COLUMN, encodeJson({ ...lease, untilMs }));
  }
}
