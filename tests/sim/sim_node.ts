/** One backend of the simulated cluster: its disk, which outlives processes, and the process on it. */
import { SimDisk } from "../../kv/disk/sim_disk.ts";
import { type GroupId, type NodeId, nodeId } from "../../proto/ids.ts";
import type { Backend } from "../../roles/backend.ts";
import type { SeededRandom } from "./seeded_random.ts";
import { SimCheckpoints } from "./sim_checkpoints.ts";
import { SimFolder } from "./sim_folder.ts";
import type { SimClock, SimProcess } from "./sim_process.ts";

const LOG_DIR = "data/wal";
/** More than the last two batches of the simulated workload hold. */
const BATCHES_BYTES = 40_000;

export class SimNode {
  readonly id: NodeId;
  readonly name: string;
  readonly clock: SimClock;
  readonly #random: SeededRandom;
  disk: SimDisk;
  checkpoints = new SimCheckpoints();
  folder = new SimFolder(this);
  /** The store on this disk; a replaced disk is another store. */
  store: string;
  #storeCount = 1;
  /** Starts of this store: the incarnation of its process. */
  boots = 0;
  process: SimProcess | null = null;
  /** Null while it starts. */
  backend: Backend | null = null;
  spawnId = "";
  /** When a down node starts again. */
  bootAtMs = Infinity;
  /** What is known to be on this disk, by group: what its last process said was synced. */
  readonly durable = new Map<GroupId, number>();
  /** A sync was made to fail in the life of this process. */
  hasSyncError = false;
  /** On its way down, as planned. */
  isDraining = false;
  /** Bits of its log were flipped, or parts of it are missing: it must not be counted on as it is. */
  isDamaged = false;
  /** Milliseconds that a sync takes. */
  syncMs = 1;
  stalledUntilMs = -Infinity;
  /** Checkpoints are not done before. */
  checkpointsUntilMs = -Infinity;

  constructor(id: number, options: { clock: SimClock; random: SeededRandom }) {
    this.id = nodeId(id);
    this.name = `backend/${id}`;
    this.clock = options.clock;
    this.#random = options.random;
    this.store = `store-${id}-1`;
    this.disk = this.#newDisk();
  }

  get isUp(): boolean {
    return this.process?.alive === true;
  }

  /** What is on the disk is another store from now on, in its first life. */
  rename(): void {
    this.#storeCount += 1;
    this.store = `store-${this.id}-${this.#storeCount}`;
    this.boots = 1;
    this.durable.clear();
  }

  /** All of the log is moved aside. */
  loseLog(): void {
    for (const name of this.segments) this.disk.loseFile(`${LOG_DIR}/${name}`);
  }

  get segments(): string[] {
    return this.disk.filesIn(LOG_DIR);
  }

  loseSegment(name: string): void {
    this.disk.loseFile(`${LOG_DIR}/${name}`);
  }

  /** The disk is gone for good; an empty one takes its place. */
  replaceDisk(): void {
    this.rename();
    this.boots = 0;
    this.disk = this.#newDisk();
    this.checkpoints = new SimCheckpoints();
    this.folder = new SimFolder(this);
    this.isDamaged = false;
    this.hasSyncError = false;
  }

  /** What the process was doing ends here; the disk keeps what it must. */
  stopDisk(powerLoss: boolean): void {
    if (powerLoss) this.disk.crash();
    else this.disk.endProcess();
    this.checkpoints.crash(this.#random);
  }

  /** A place in the log that was synced, by what follows it; null when there is none for sure. */
  syncedByte(random: SeededRandom): { path: string; offset: number } | null {
    const { segments } = this;
    const last = segments.at(-1);
    if (last === undefined) return null;
    // A segment is begun only after all before it was synced.
    const older = segments.length > 1 ? random.pick(segments.slice(0, -1)) : last;
    const path = `${LOG_DIR}/${older}`, { length } = this.disk.bytesOf(path);
    const end = older === last ? length - BATCHES_BYTES : length;
    return end <= 0 ? null : { path, offset: random.integer(end) };
  }

  /** Waits as long as the disk takes for a sync; never comes back once the process has ended. */
  takeTime(): Promise<void> {
    const process = this.process!;
    const spike = this.#random.chance(0.02) ? 20 : 1;
    return process.sleep(
      this.syncMs * spike * (0.1 + this.#random.next()) + this.#stallMs(process),
    );
  }

  /** As long as a checkpoint takes. */
  async takeCheckpointTime(): Promise<void> {
    const process = this.process!;
    await this.takeTime();
    await process.sleep(Math.max(0, this.checkpointsUntilMs - process.worldMs));
  }

  #stallMs(process: SimProcess): number {
    const nowMs = process.worldMs;
    return Math.max(0, this.stalledUntilMs - nowMs);
  }

  #newDisk(): SimDisk {
    return new SimDisk({
      seed: this.#random.integer(2 ** 31),
      takeTime: (kind) => kind === "sync" ? this.takeTime() : null,
    });
  }
}
