/**
 * Who a data folder is: which cluster's, which store, and which life of it this process is.
 *
 *     LOCK       held exclusively by the one process that uses the folder, for as long as it lives
 *     IDENTITY   JSON; replaced by a new file that is synced before it takes the name
 *
 * The boot counter is raised, durably, after the lock is held. So a process with a higher number
 * proves that all lower ones have ended.
 */
import { z } from "zod";
import { type Incarnation, incarnation, StoreId, storeId } from "../../proto/ids.ts";

const Identity = z.object({
  clusterId: z.string(),
  storeId: StoreId,
  bootCount: z.int().nonnegative(),
  /** The kernel's boot id at the last start: a change means power loss or a restart of the host. */
  kernelBootId: z.string(),
});

export interface DataFolder {
  readonly identity: {
    readonly clusterId: string;
    readonly storeId: StoreId;
    readonly bootCount: Incarnation;
    readonly kernelBootId: string;
  };
  /** The host itself was restarted since the last life of this store. */
  readonly hostRestarted: boolean;
  close(): Promise<void>;
}

/** @throws when another process uses the folder, or it belongs to another cluster */
export async function openDataFolder(
  options: { dir: string; clusterId: string },
): Promise<DataFolder> {
  const { dir, clusterId } = options;
  await Deno.mkdir(dir, { recursive: true });
  const lock = await Deno.open(`${dir}/LOCK`, { create: true, write: true });
  try {
    if (!await lock.tryLock(true)) {
      throw new Error(`Cannot use ${dir}: another process of PennCloud is using it`);
    }
    const before = await readIdentity(dir);
    if (before !== null && before.clusterId !== clusterId) {
      throw new Error(
        `Cannot use ${dir}: it belongs to cluster ${before.clusterId}, not to ${clusterId}`,
      );
    }
    const kernelBootId = await readKernelBootId();
    const identity = {
      clusterId,
      storeId: before?.storeId ?? storeId(crypto.randomUUID()),
      bootCount: (before?.bootCount ?? 0) + 1,
      kernelBootId,
    };
    await writeIdentity(dir, JSON.stringify(identity));
    return {
      identity: { ...identity, bootCount: incarnation(identity.bootCount) },
      hostRestarted: before !== null && before.kernelBootId !== kernelBootId,
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

async function readIdentity(dir: string): Promise<z.infer<typeof Identity> | null> {
  const path = `${dir}/IDENTITY`;
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  try {
    return Identity.parse(JSON.parse(text));
  } catch (cause) {
    // Without its number a store could be taken for an earlier life of itself.
    throw new Error(`Cannot use ${dir}: ${path} is damaged; restore it or replace the folder`, {
      cause,
    });
  }
}

async function writeIdentity(dir: string, text: string): Promise<void> {
  const path = `${dir}/IDENTITY.new`;
  const file = await Deno.open(path, { create: true, write: true, truncate: true });
  try {
    const bytes = new TextEncoder().encode(text);
    for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(path, `${dir}/IDENTITY`);
  const folder = await Deno.open(dir);
  try {
    await folder.sync();
  } finally {
    folder.close();
  }
}

async function readKernelBootId(): Promise<string> {
  try {
    return (await Deno.readTextFile("/proc/sys/kernel/random/boot_id")).trim();
  } catch {
    return "unknown";
  }
}
