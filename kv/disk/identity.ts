/**
 * Whose data folder this is, and that it is in use by one process only.
 *
 * `LOCK` is held exclusively for the life of the process. `IDENTITY` is JSON: the cluster, the store's
 * own id, given when the folder was formatted, how often the store has been started, and how often the
 * replica of each group was given up and begun anew. The count of starts is raised, durably, before
 * anything else happens, so that no two lives share an incarnation and a message to a former life is
 * told apart.
 *
 * A store that may not be whole must never be counted on as the one it was. So whoever finds damage
 * *renames first and moves files later*: `renew` gives the folder a new id, `giveUpCopy` one group's
 * replica; only then do the damaged files go to quarantine (quarantine.ts). A crash in between leaves
 * a new name with old files, which is found as damage again, and never the old name with files missing.
 *
 * `SUSPECT` holds one sentence of a process that could not trust its disk any more, for the next one.
 */
import { crc32 } from "node:zlib";
import { z } from "zod";
import {
  copyId,
  type GroupId,
  Incarnation,
  incarnation,
  StoreId,
  storeId,
} from "../../proto/ids.ts";
import { CorruptionError } from "../errors.ts";
import { type Disk, RealDisk } from "./disk.ts";
import { moveAside } from "./quarantine.ts";
import { equalBytes, idDigest } from "./wal_record.ts";
import { logOwner } from "./wal_salvage.ts";

const BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id";

const StoredIdentity = z.strictObject({
  clusterId: z.string().min(1),
  storeId: StoreId,
  bootCount: Incarnation,
  kernelBootId: z.string(),
  /** By group: how often its replica was given up. */
  rebuilds: z.record(z.string(), z.int().positive()),
  /** Whether the log was begun: one that is missing later was lost. */
  hasLog: z.boolean(),
  /** By group: the kernel's boot since which its log was seen to be whole. Absent: no group's. */
  confirmed: z.record(z.string(), z.string()).optional(),
  /** CRC-32 of the JSON of all the above: a bootCount that fell by a flipped bit would be unsafe. */
  crc: z.int(),
});

export interface StoreIdentity {
  readonly clusterId: string;
  readonly storeId: StoreId;
  /** This life of the store: 1 for the first. */
  readonly bootCount: Incarnation;
  /** Changes when the operating system starts anew; "" where it does not say. */
  readonly kernelBootId: string;
  readonly rebuilds: Readonly<Record<string, number>>;
  readonly hasLog: boolean;
  readonly confirmed?: Readonly<Record<string, string>> | undefined;
}

/** The folder cannot be used; the message tells the operator what to do. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError";
}

export interface OpenDataFolderOptions {
  readonly dir: string;
  readonly clusterId: string;
  /** For tests; default: what the operating system says. */
  readonly kernelBootId?: string;
  /**
   * Asked when the identity is damaged, or a former life did not trust the disk. Once it resolves, the
   * folder goes on as a new store. Absent: the damage is thrown.
   */
  readonly mayRenew?: (damage: CorruptionError) => Promise<void>;
}

/**
 * Locks the folder, formats it when it is new, checks that it belongs to the cluster, and counts this
 * start.
 *
 * @throws {DataFolderError} it is in use, or another cluster's
 * @throws {CorruptionError} its identity cannot be read, and it may not be renewed
 */
export async function openDataFolder(options: OpenDataFolderOptions): Promise<DataFolder> {
  const { dir, clusterId, mayRenew } = options;
  const disk = new RealDisk();
  await disk.mkdir(dir);
  const lock = takeLock(dir);
  try {
    const kernelBootId = options.kernelBootId ?? await readKernelBootId();
    let former: StoreIdentity | null;
    try {
      former = await readSoundIdentity(disk, dir);
    } catch (error) {
      if (!(error instanceof CorruptionError) || mayRenew === undefined) throw error;
      await mayRenew(error);
      const identity = freshIdentity(clusterId, kernelBootId);
      const folder = new DataFolder(dir, lock, identity, { isNew: true, hostRestarted: false });
      await folder.renew(error);
      return folder;
    }
    refuseOtherCluster(dir, former, clusterId);
    const identity: StoreIdentity = former === null ? freshIdentity(clusterId, kernelBootId) : {
      ...former,
      bootCount: incarnation(former.bootCount + 1),
      kernelBootId,
    };
    await writeIdentity(disk, dir, identity);
    return new DataFolder(dir, lock, identity, {
      isNew: former === null,
      hostRestarted: former !== null && former.kernelBootId !== kernelBootId,
    });
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** What an open backend needs of its folder; the simulator has one of its own. */
export type StoreFolder = Pick<
  DataFolder,
  "identity" | "copyOf" | "noteLog" | "giveUpCopy" | "isConfirmed" | "confirm"
>;

/** A locked folder, until it is closed. */
export class DataFolder {
  readonly dir: string;
  readonly #lock: Deno.FsFile;
  #identity: StoreIdentity;
  #changes: Promise<void> = Promise.resolve();
  /** Whether the folder was formatted just now. */
  readonly isNew: boolean;
  /** Whether the machine, and not only the process, was restarted: unsynced writes may be lost. */
  readonly hostRestarted: boolean;

  constructor(
    dir: string,
    lock: Deno.FsFile,
    identity: StoreIdentity,
    { isNew, hostRestarted }: { isNew: boolean; hostRestarted: boolean },
  ) {
    this.dir = dir;
    this.#lock = lock;
    this.#identity = identity;
    this.isNew = isNew;
    this.hostRestarted = hostRestarted;
  }

  get identity(): StoreIdentity {
    return this.#identity;
  }

  /** What this folder's replica of the group goes by. */
  copyOf(gid: GroupId): StoreId {
    const { storeId: folder, rebuilds } = this.#identity;
    return copyId(folder, rebuilds[gid] ?? 0);
  }

  /**
   * The folder goes on as a new store, with a log of its own. Checkpoints and large values stay: they
   * carry their own checksums, and what they hold was committed; from there a new replica catches up.
   */
  renew(damage: Error): Promise<void> {
    return this.#inTurn(() => this.#renew(damage));
  }

  async #renew(damage: Error): Promise<void> {
    const disk = new RealDisk();
    const { clusterId, kernelBootId } = this.#identity;
    await keepCopy(identityPath(this.dir), `${this.dir}/IDENTITY.damaged`);
    this.#identity = freshIdentity(clusterId, kernelBootId);
    await writeIdentity(disk, this.dir, this.#identity);
    const names = ["wal", "IDENTITY.damaged", "SUSPECT"];
    await moveAside(this.dir, { names, reason: damage.message });
  }

  /** Several groups may be damaged at once; what is written here is one file. */
  #inTurn(change: () => Promise<void>): Promise<void> {
    const done = this.#changes.then(change);
    this.#changes = done.catch(() => {});
    return done;
  }

  /** The log is there now. */
  noteLog(): Promise<void> {
    return this.#inTurn(() => this.#noteLog());
  }

  async #noteLog(): Promise<void> {
    if (this.#identity.hasLog) return;
    this.#identity = { ...this.#identity, hasLog: true };
    await writeIdentity(new RealDisk(), this.dir, this.#identity);
  }

  /** The group's replica here goes by a new name, and its checkpoint is moved aside. */
  giveUpCopy(gid: GroupId, damage: Error): Promise<void> {
    return this.#inTurn(() => this.#giveUpCopy(gid, damage));
  }

  async #giveUpCopy(gid: GroupId, damage: Error): Promise<void> {
    const { rebuilds } = this.#identity;
    this.#identity = {
      ...this.#identity,
      rebuilds: { ...rebuilds, [gid]: (rebuilds[gid] ?? 0) + 1 },
    };
    await writeIdentity(new RealDisk(), this.dir, this.#identity);
    // The write-ahead log last: without it the file could look like an older state of itself.
    const names = ["", "-shm", "-wal"].map((suffix) => `groups/${gid}.db${suffix}`);
    await moveAside(this.dir, { names, reason: damage.message });
  }

  /**
   * Whether the group's log is known to be whole in spite of the last restart of the machine, after
   * which a disk that lied about syncs may have forgotten the end of it.
   */
  isConfirmed(gid: GroupId): boolean {
    const { kernelBootId, confirmed = {} } = this.#identity;
    return kernelBootId !== "" && confirmed[gid] === kernelBootId;
  }

  /** The group's log was compared with others': it is whole, until the machine is restarted again. */
  confirm(gid: GroupId): Promise<void> {
    return this.#inTurn(async () => {
      const { kernelBootId, confirmed } = this.#identity;
      this.#identity = { ...this.#identity, confirmed: { ...confirmed, [gid]: kernelBootId } };
      await writeIdentity(new RealDisk(), this.dir, this.#identity);
    });
  }

  /** Gives the lock back. */
  close(): Promise<void> {
    this.#lock.close();
    return Promise.resolve();
  }
}

/** Where a log is put together before it replaces the damaged one. */
const SALVAGED_LOG = "wal.salvaged";

/**
 * The locked folder of a stopped node in whatever state it is, for saving what its log still holds
 * (wal_salvage.ts). No start is counted. Nothing is changed before {@link replaceLog}.
 */
export class DamagedFolder {
  readonly dir: string;
  readonly #lock: Deno.FsFile;
  /** Null when it cannot be read. */
  readonly identity: StoreIdentity | null;
  /** Why no process would trust the folder even if its log were sound. */
  readonly distrust: CorruptionError | null;

  private constructor(dir: string, lock: Deno.FsFile, found: {
    identity: StoreIdentity | null;
    distrust: CorruptionError | null;
  }) {
    this.dir = dir;
    this.#lock = lock;
    this.identity = found.identity;
    this.distrust = found.distrust;
  }

  /** @throws {DataFolderError} it is in use, not there, or another cluster's */
  static async open(dir: string, clusterId: string): Promise<DamagedFolder> {
    const disk = new RealDisk();
    if (await disk.stat(dir) === null) {
      throw new DataFolderError(`Cannot use data folder "${dir}": it does not exist`);
    }
    const lock = takeLock(dir);
    try {
      const distrust = await damageOf(() => readSoundIdentity(disk, dir));
      let identity: StoreIdentity | null = null;
      await damageOf(async () => identity = await readIdentity(disk, dir));
      refuseOtherCluster(dir, identity, clusterId);
      return new DamagedFolder(dir, lock, { identity, distrust });
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /** Ends what `replaceLog` began and a crash cut short. Returns the quarantine, or null: nothing. */
  async finishReplacing(reason: string): Promise<string | null> {
    const disk = new RealDisk(), logDir = `${this.dir}/${SALVAGED_LOG}`;
    const owner = await logOwner(disk, logDir);
    const isOurs = owner !== null && this.identity !== null &&
      equalBytes(owner, idDigest(this.identity.storeId));
    // Without the identity's word it may be incomplete.
    if (!isOurs) return null;
    return await this.#putLogInPlace(disk, reason);
  }

  /**
   * The folder goes on as a new store, with the log that `build` writes for it. In this order: the new
   * log, the new identity, the old files to quarantine, the new log in their place. A crash before the
   * identity leaves all as it was; one behind it, a folder that no process uses before
   * `finishReplacing`.
   *
   * @returns where the old files are
   */
  async replaceLog(
    clusterId: string,
    { reason, build }: {
      readonly reason: string;
      readonly build: (target: { dir: string; storeId: string }) => Promise<void>;
    },
  ): Promise<string> {
    const disk = new RealDisk(), logDir = `${this.dir}/${SALVAGED_LOG}`;
    await Deno.remove(logDir, { recursive: true }).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    const identity = { ...freshIdentity(clusterId, await readKernelBootId()), hasLog: true };
    await build({ dir: logDir, storeId: identity.storeId });
    await disk.syncDir(this.dir);
    await keepCopy(identityPath(this.dir), `${this.dir}/IDENTITY.damaged`);
    await writeIdentity(disk, this.dir, identity);
    return await this.#putLogInPlace(disk, reason);
  }

  async #putLogInPlace(disk: Disk, reason: string): Promise<string> {
    const names = ["wal", "IDENTITY.damaged", "SUSPECT"];
    const place = await moveAside(this.dir, { names, reason });
    await disk.rename(`${this.dir}/${SALVAGED_LOG}`, `${this.dir}/wal`);
    await disk.syncDir(this.dir);
    return place;
  }

  /** Gives the lock back. */
  close(): void {
    this.#lock.close();
  }
}

/** The damage that `read` finds, or null. */
async function damageOf(read: () => Promise<unknown>): Promise<CorruptionError | null> {
  try {
    await read();
    return null;
  } catch (error) {
    if (error instanceof CorruptionError) return error;
    throw error;
  }
}

/**
 * Leaves word for the next process that this store cannot be trusted. Synchronous, because the process
 * is about to end; a disk that fails may refuse this too.
 */
export function markSuspect(dir: string, reason: string): void {
  try {
    using file = Deno.openSync(suspectPath(dir), { create: true, write: true, truncate: true });
    const bytes = new TextEncoder().encode(`${reason}\n`);
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    file.syncSync();
  } catch {
    // Then the checksums, and what the peers know, have to find it.
  }
}

function refuseOtherCluster(dir: string, found: StoreIdentity | null, clusterId: string): void {
  if (found === null || found.clusterId === clusterId) return;
  throw new DataFolderError(
    `Cannot use data folder "${dir}": it belongs to cluster "${found.clusterId}", not to ` +
      `"${clusterId}"`,
  );
}

const suspectPath = (dir: string) => `${dir}/SUSPECT`;
const identityPath = (dir: string) => `${dir}/IDENTITY`;

function takeLock(dir: string): Deno.FsFile {
  const file = Deno.openSync(`${dir}/LOCK`, { create: true, write: true, mode: 0o600 });
  if (file.tryLockSync(true)) return file;
  file.close();
  throw new DataFolderError(`Cannot use data folder "${dir}": another process is using it`);
}

/** Null for a new folder. */
async function readSoundIdentity(disk: Disk, dir: string): Promise<StoreIdentity | null> {
  if (await disk.stat(suspectPath(dir)) !== null) {
    const why = (await Deno.readTextFile(suspectPath(dir))).trim();
    throw new CorruptionError(why === "" ? "The disk failed" : why, suspectPath(dir), 0);
  }
  const identity = await readIdentity(disk, dir);
  if (identity === null && await holdsData(disk, dir)) {
    throw new CorruptionError(
      "Cannot use the data folder: it holds data but no identity",
      identityPath(dir),
      0,
    );
  }
  return identity;
}

const freshIdentity = (clusterId: string, kernelBootId: string): StoreIdentity => ({
  clusterId,
  storeId: storeId(crypto.randomUUID()),
  bootCount: incarnation(1),
  kernelBootId,
  rebuilds: {},
  hasLog: false,
});

/** No error when there is nothing to keep. */
async function keepCopy(from: string, to: string): Promise<void> {
  await Deno.copyFile(from, to).catch(() => {});
}

async function readIdentity(disk: Disk, dir: string): Promise<StoreIdentity | null> {
  const path = identityPath(dir);
  if (await disk.stat(path) === null) return null;
  const text = await Deno.readTextFile(path);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw new CorruptionError("Cannot use the data folder: its identity is not JSON", path, 0);
  }
  const parsed = StoredIdentity.safeParse(content);
  if (parsed.success) {
    const { crc, ...identity } = parsed.data;
    if (crc === crcOf(identity)) return identity;
  }
  throw new CorruptionError("Cannot use the data folder: its identity is damaged", path, 0);
}

function crcOf(identity: StoreIdentity): number {
  const { clusterId, storeId, bootCount, kernelBootId, rebuilds, hasLog, confirmed } = identity;
  const counts = sorted(rebuilds);
  const boots = confirmed === undefined ? [] : [sorted(confirmed)];
  const all = [clusterId, storeId, bootCount, kernelBootId, counts, hasLog, ...boots];
  return crc32(JSON.stringify(all));
}

const sorted = <T>(byGroup: Readonly<Record<string, T>>): [string, T][] =>
  Object.entries(byGroup).sort(([a], [b]) => Number(a) - Number(b));

/** A lost identity must not be replaced by a fresh one: the store would pose as an empty one. */
async function holdsData(disk: Disk, dir: string): Promise<boolean> {
  const entries = await disk.list(dir);
  return entries.some(({ name }) => name === "wal" || name === "groups" || name === "blobs");
}

async function writeIdentity(disk: Disk, dir: string, identity: StoreIdentity): Promise<void> {
  const path = identityPath(dir);
  const content = { ...identity, crc: crcOf(identity) };
  const bytes = new TextEncoder().encode(`${JSON.stringify(content, null, 2)}\n`);
  await disk.remove(`${path}.new`);
  const file = await disk.open(`${path}.new`, { create: true });
  try {
    await file.writeAt(0, bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.new`, path);
  await disk.syncDir(dir);
}

async function readKernelBootId(): Promise<string> {
  try {
    return (await Deno.readTextFile(BOOT_ID_FILE)).trim();
  } catch {
    return "";
  }
}
