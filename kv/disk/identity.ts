/**
 * Whose data folder this is, and that it is in use by one process only.
 *
 * `LOCK` is held exclusively for the life of the process. `IDENTITY` is JSON: the cluster, the store's
 * own id, given when the folder was formatted, and how often the store has been started. The count is
 * raised, durably, before anything else happens, so that no two lives share an incarnation and a
 * message to a former life is told apart.
 */
import { crc32 } from "node:zlib";
import { z } from "zod";
import { Incarnation, incarnation, StoreId, storeId } from "../../proto/ids.ts";
import { CorruptionError } from "../errors.ts";
import { type Disk, RealDisk } from "./disk.ts";

const BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id";

const StoredIdentity = z.strictObject({
  clusterId: z.string().min(1),
  storeId: StoreId,
  bootCount: Incarnation,
  kernelBootId: z.string(),
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
}

export interface DataFolder {
  readonly identity: StoreIdentity;
  /** Whether the folder was formatted just now. */
  readonly isNew: boolean;
  /** Whether the machine, and not only the process, was restarted: unsynced writes may be lost. */
  readonly hostRestarted: boolean;
  /** Gives the lock back. */
  close(): Promise<void>;
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
}

/**
 * Locks the folder, formats it when it is new, checks that it belongs to the cluster, and counts this
 * start.
 *
 * @throws {DataFolderError} it is in use, or another cluster's
 * @throws {CorruptionError} its identity cannot be read
 */
export async function openDataFolder(options: OpenDataFolderOptions): Promise<DataFolder> {
  const { dir, clusterId } = options;
  const disk = new RealDisk();
  await disk.mkdir(dir);
  const lock = takeLock(dir);
  try {
    const former = await readIdentity(disk, dir);
    if (former === null && await holdsData(disk, dir)) {
      throw new CorruptionError(
        "Cannot use the data folder: it holds data but no identity",
        identityPath(dir),
        0,
      );
    }
    if (former !== null && former.clusterId !== clusterId) {
      throw new DataFolderError(
        `Cannot use data folder "${dir}": it belongs to cluster "${former.clusterId}", not to ` +
          `"${clusterId}"`,
      );
    }
    const identity: StoreIdentity = {
      clusterId,
      storeId: former?.storeId ?? storeId(crypto.randomUUID()),
      bootCount: incarnation((former?.bootCount ?? 0) + 1),
      kernelBootId: options.kernelBootId ?? await readKernelBootId(),
    };
    await writeIdentity(disk, dir, identity);
    return {
      identity,
      isNew: former === null,
      hostRestarted: former !== null && former.kernelBootId !== identity.kernelBootId,
      close: () => {
        lock.close();
        return Promise.resolve();
      },
    };
  } catch (error) {
    lock.close();
    throw error;
  }
}

const identityPath = (dir: string) => `${dir}/IDENTITY`;

function takeLock(dir: string): Deno.FsFile {
  const file = Deno.openSync(`${dir}/LOCK`, { create: true, write: true, mode: 0o600 });
  if (file.tryLockSync(true)) return file;
  file.close();
  throw new DataFolderError(`Cannot use data folder "${dir}": another process is using it`);
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

function crcOf({ clusterId, storeId, bootCount, kernelBootId }: StoreIdentity): number {
  return crc32(JSON.stringify([clusterId, storeId, bootCount, kernelBootId]));
}

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
