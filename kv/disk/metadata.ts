/**
 * The coordinator's durable records: one configuration a group, and one map of who owns which rows,
 * changed only by compare-and-swap.
 *
 * One SQLite file in exclusive mode with synchronous = FULL, so a second coordinator cannot open it
 * and what `swap` acknowledged survives a power loss. Losing the coordinator costs no reads and no
 * writes; losing this file is noticed, because nodes report newer epochs than a fresh file has.
 */
import { DatabaseSync } from "node:sqlite";
import { RangeMap } from "../../proto/moves.ts";
import { GroupConfig } from "../../proto/replication.ts";
import type { Epoch, GroupId, Incarnation, StoreId } from "../../proto/ids.ts";

/** A forced election: what its primary lacked was given up. */
export interface Loss {
  readonly gid: GroupId;
  readonly epoch: Epoch;
  readonly atMs: number;
  readonly text: string;
}

export class Metadata {
  readonly #db: DatabaseSync;
  readonly #lives = new Map<StoreId, { inc: number; spawn: string }>();

  /** @throws when another process holds the file, or it belongs to another cluster */
  constructor(options: { path: string; clusterId: string }) {
    const db = new DatabaseSync(options.path);
    this.#db = db;
    db.exec("PRAGMA locking_mode = EXCLUSIVE");
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL");
    db.exec("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT");
    db.exec(
      "CREATE TABLE IF NOT EXISTS groups " +
        "(gid INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, config TEXT NOT NULL) STRICT",
    );
    db.exec(
      "CREATE TABLE IF NOT EXISTS lives " +
        "(store TEXT PRIMARY KEY, inc INTEGER NOT NULL, spawn TEXT NOT NULL) STRICT",
    );
    db.exec(
      "CREATE TABLE IF NOT EXISTS losses " +
        "(gid INTEGER NOT NULL, epoch INTEGER NOT NULL, at_ms INTEGER NOT NULL, text TEXT NOT NULL) " +
        "STRICT",
    );
    db.exec(
      "CREATE TABLE IF NOT EXISTS range_map " +
        "(one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, map TEXT NOT NULL) STRICT",
    );
    const found = db.prepare("SELECT value FROM facts WHERE name = 'clusterId'").get();
    if (found === undefined) {
      db.prepare("INSERT INTO facts VALUES ('clusterId', ?)").run(options.clusterId);
    } else if (found.value !== options.clusterId) {
      db.close();
      throw new Error(
        `Cannot use ${options.path}: it belongs to cluster ${found.value}, not to ` +
          options.clusterId,
      );
    }
  }

  configs(): GroupConfig[] {
    return this.#db.prepare("SELECT config FROM groups ORDER BY gid").all()
      .map((row) => GroupConfig.parse(JSON.parse(String(row.config))));
  }

  get(gid: GroupId): GroupConfig | null {
    const row = this.#db.prepare("SELECT config FROM groups WHERE gid = ?").get(gid);
    return row === undefined ? null : GroupConfig.parse(JSON.parse(String(row.config)));
  }

  /** Replaces the group's record if it is still at `expected` (0: if there is none). Durable. */
  swap(gid: GroupId, expected: Epoch, config: GroupConfig): boolean {
    const text = JSON.stringify(config);
    const { changes } = expected === 0
      ? this.#db.prepare("INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .run(gid, config.epoch, text)
      : this.#db.prepare("UPDATE groups SET epoch = ?, config = ? WHERE gid = ? AND epoch = ?")
        .run(config.epoch, text, gid, expected);
    return Number(changes) === 1;
  }

  /** Who owns which rows; null before the first start. */
  rangeMap(): RangeMap | null {
    const row = this.#db.prepare("SELECT map FROM range_map").get();
    return row === undefined ? null : RangeMap.parse(JSON.parse(String(row.map)));
  }

  /** Replaces the map if it is still at version `expected` (0: if there is none). Durable. */
  swapRangeMap(expected: number, map: RangeMap): boolean {
    const text = JSON.stringify(map);
    const { changes } = expected === 0
      ? this.#db.prepare("INSERT INTO range_map VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .run(map.version, text)
      : this.#db.prepare("UPDATE range_map SET version = ?, map = ? WHERE version = ?")
        .run(map.version, text, expected);
    return Number(changes) === 1;
  }

  /**
   * Takes note of the newest life of a store. False when a later one is known, or this very one under
   * another name: then the store's folder was put back to an older state of itself.
   */
  noteLife({ store, inc, spawn }: { store: StoreId; inc: Incarnation; spawn: string }): boolean {
    let known = this.#lives.get(store);
    if (known === undefined) {
      const row = this.#db.prepare("SELECT inc, spawn FROM lives WHERE store = ?").get(store);
      if (row !== undefined) known = { inc: Number(row.inc), spawn: String(row.spawn) };
    }
    if (known !== undefined && known.inc >= inc) return known.inc === inc && known.spawn === spawn;
    this.#db.prepare(
      "INSERT INTO lives VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET inc = excluded.inc, " +
        "spawn = excluded.spawn",
    ).run(store, inc, spawn);
    this.#lives.set(store, { inc, spawn });
    return true;
  }

  /** A person accepted the loss of data. Kept for ever. */
  noteLoss(loss: Loss): void {
    const { gid, epoch, atMs, text } = loss;
    this.#db.prepare("INSERT INTO losses VALUES (?, ?, ?, ?)").run(gid, epoch, atMs, text);
  }

  losses(): Loss[] {
    return this.#db.prepare("SELECT gid, epoch, at_ms, text FROM losses ORDER BY at_ms").all()
      .map((row) => ({
        gid: Number(row.gid) as GroupId,
        epoch: Number(row.epoch) as Epoch,
        atMs: Number(row.at_ms),
        text: String(row.text),
      }));
  }

  /** A number that is raised, and on disk, before this returns. */
  raise(name: string): number {
    const row = this.#db.prepare(
      "INSERT INTO facts VALUES (?, '1') ON CONFLICT DO UPDATE SET value = value + 1 " +
        "RETURNING value",
    ).get(name);
    return Number(row?.value);
  }

  close(): void {
    this.#db.close();
  }
}
