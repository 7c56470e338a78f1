/**
 * The coordinator's durable records, on a store that may be away, may fail a swap without a word on
 * whether it was done, and may come back as an older copy of itself.
 */
import type { Epoch, GroupId } from "../../proto/ids.ts";
import type { RangeMap } from "../../proto/moves.ts";
import type { GroupConfig } from "../../proto/replication.ts";
import type { MetadataRecords } from "../../roles/coordinator.ts";
import type { SeededRandom } from "./seeded_random.ts";

export class MetadataFault extends Error {
  override readonly name = "MetadataFault";
}

export class SimMetadata implements MetadataRecords {
  #records = new Map<GroupId, GroupConfig>();
  /** Every record that there ever was, oldest first. */
  readonly #history: GroupConfig[] = [];
  /** The same of the range maps. */
  readonly #maps: RangeMap[] = [];
  #map: RangeMap | null = null;
  readonly #random: SeededRandom;
  readonly #onSwap: (config: GroupConfig, before: GroupConfig | undefined) => void;
  readonly #onMap: (map: RangeMap) => void;
  /** Every access fails. */
  isAway = false;
  /** A swap fails with an unknown outcome: half of them were done. */
  unknown = 0;
  /** The store went back in time and was not repaired yet. */
  isRolledBack = false;

  constructor(options: {
    random: SeededRandom;
    onSwap: (config: GroupConfig, before: GroupConfig | undefined) => void;
    onMap: (map: RangeMap) => void;
  }) {
    this.#random = options.random;
    this.#onSwap = options.onSwap;
    this.#onMap = options.onMap;
  }

  configs(): GroupConfig[] {
    this.#reach();
    return [...this.#records.values()].sort((a, b) => a.gid - b.gid);
  }

  get(gid: GroupId): GroupConfig | null {
    this.#reach();
    return this.#records.get(gid) ?? null;
  }

  swap(gid: GroupId, expected: Epoch, config: GroupConfig): boolean {
    this.#reach();
    const isUnknown = this.#random.chance(this.unknown);
    if (isUnknown && this.#random.chance(0.5)) throw new MetadataFault("a swap was not done");
    const before = this.#records.get(gid);
    if ((before?.epoch ?? 0) !== expected) return false;
    this.#records.set(gid, config);
    this.#history.push(config);
    this.#onSwap(config, before);
    if (isUnknown) throw new MetadataFault("a swap was done");
    return true;
  }

  rangeMap(): RangeMap | null {
    this.#reach();
    return this.#map;
  }

  swapRangeMap(expected: number, map: RangeMap): boolean {
    this.#reach();
    const isUnknown = this.#random.chance(this.unknown);
    if (isUnknown && this.#random.chance(0.5)) throw new MetadataFault("a swap was not done");
    if ((this.#map?.version ?? 0) !== expected) return false;
    this.#map = map;
    this.#maps.push(map);
    this.#onMap(map);
    if (isUnknown) throw new MetadataFault("a swap was done");
    return true;
  }

  /** What is true, whoever can reach it. */
  get ranges(): RangeMap | null {
    return this.#map;
  }

  /** What is true, whoever can reach it. */
  record(gid: GroupId): GroupConfig | undefined {
    return this.#records.get(gid);
  }

  /** An operator restores a copy from some changes ago. */
  rollBack(changes: number): void {
    const kept = this.#history.slice(0, Math.max(1, this.#history.length - changes));
    this.#records = new Map(kept.map((config) => [config.gid, config]));
    this.#map = this.#maps[Math.max(0, this.#maps.length - 1 - (changes % 3))] ?? null;
    this.isRolledBack = true;
  }

  /** The operator finds the newest copy after all. */
  repair(): void {
    const newest = this.#history.toSorted((a, b) => a.epoch - b.epoch);
    this.#records = new Map(newest.map((config) => [config.gid, config]));
    this.#map = this.#maps.at(-1) ?? null;
    this.isRolledBack = false;
  }

  #reach(): void {
    if (this.isAway) throw new MetadataFault("the store is away");
  }
}
