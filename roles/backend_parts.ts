/**
 * What a backend stands on: its disk, checkpoints, links and what it notes for its next life. In
 * production these are files and sockets; the simulator (tests/sim/) hands in its own.
 */
import { Ballast } from "../kv/disk/ballast.ts";
import type { CheckpointedStore } from "../kv/cell_store.ts";
import { type Disk, RealDisk } from "../kv/disk/disk.ts";
import type { DataFolder, StoreFolder } from "../kv/disk/identity.ts";
import { type QuarantineContent, quarantineContent } from "../kv/disk/quarantine.ts";
import { CacheBudget, CheckpointWriter, SqliteCellStore } from "../kv/disk/sqlite_cell_store.ts";
import type { CleanCells } from "../kv/node_memory.ts";
import type { GroupId } from "../proto/ids.ts";
import { systemUptimeMs } from "./clock_watch.ts";
import { Metrics } from "./metrics.ts";
import { type PeerLinks, Peers } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";
import { fetchSnapshot } from "./snapshot_transfer.ts";

export interface BackendParts {
  readonly disk: Disk;
  /** Sizes of the log's segments; those of kv/disk/wal.ts when absent. */
  readonly log?: { readonly segmentBytes: number; readonly keepBytes: number };
  /** Cells in one piece of a tablet that moves; that of move_source.ts when absent. */
  readonly moveCells?: number;
  readonly metrics: Metrics;
  readonly peers: PeerLinks;
  /** Where damage is survived; absent: it ends the process. */
  readonly folder?: StoreFolder;
  readonly openStore: (gid: GroupId) => CheckpointedStore;
  /** What the stores keep in memory and can read again. */
  readonly cache?: CleanCells;
  /** After the last of them was closed. */
  readonly closeStores: () => Promise<void>;
  readonly fetchSnapshot: (options: Parameters<typeof fetchSnapshot>[0]) => Promise<void>;
  /** Null where nobody can tell. */
  readonly uptimeMs?: () => number | null;
  readonly keepDiverged: (gid: GroupId, lines: string) => Promise<void>;
  /** Space to be given back when there is none left; absent: nothing is kept. */
  readonly ballast?: () => Promise<Ballast>;
  /** What outlives the process and is no promise; absent: nothing does. */
  readonly notes?: BackendNotes;
}

export interface BackendNotes {
  /** When everything was last read again, in wall time. */
  readonly scrubbedMs: number | null;
  noteScrubbed(wallMs: number): void;
  readonly quarantine: () => Promise<QuarantineContent>;
}

function realNotes(dir: string): BackendNotes {
  const path = `${dir}/scrubbed`;
  let scrubbedMs: number | null = null;
  try {
    scrubbedMs = Number(Deno.readTextFileSync(path)) || null;
  } catch {
    // Never, or not known: then soon.
  }
  return {
    scrubbedMs,
    noteScrubbed: (wallMs) => void Deno.writeTextFile(path, String(wallMs)).catch(() => {}),
    quarantine: () => quarantineContent(dir),
  };
}

/** Of a process in production. */
export function realParts(context: RoleContext, folder: DataFolder): BackendParts {
  const { dataDir } = context;
  const writer = new CheckpointWriter();
  let ballast: Promise<Ballast> | undefined;
  const budget = new CacheBudget(context.config.store.memory_bytes);
  return {
    disk: new RealDisk(),
    folder,
    metrics: new Metrics(),
    peers: new Peers(context),
    cache: budget,
    openStore: (gid) => SqliteCellStore.open({ dir: dataDir, gid, budget, writer }),
    closeStores: () => writer.close(),
    notes: realNotes(dataDir),
    ballast: () => ballast ??= Ballast.open(dataDir),
    fetchSnapshot,
    uptimeMs: systemUptimeMs,
    keepDiverged: async (gid, lines) => {
      const dir = `${dataDir}/diverged`;
      await Deno.mkdir(dir, { recursive: true });
      await Deno.writeTextFile(`${dir}/${gid}.jsonl`, lines, { append: true });
    },
  };
}
