/**
 * The replicas of a backend, by group: those that take part, and those that found damage.
 *
 * A damaged replica is *suspect*. In the turn in which the damage shows it stops taking part: it reads
 * nothing, acknowledges nothing, cannot lead, and says so to the coordinator, which elects another
 * primary if need be. Its files stay as they are until the group is certainly led by another node
 * (copy_safety.ts). Then they are moved to quarantine, and the replica begins anew under a new name,
 * empty, as a learner that its peers fill by log or by checkpoint. The node's other groups go on.
 */
import type { CheckpointedStore } from "../kv/cell_store.ts";
import { isDiskFull } from "../kv/disk/disk.ts";
import type { StoreFolder } from "../kv/disk/identity.ts";
import type { Wal } from "../kv/disk/wal.ts";
import type { Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import { mutated } from "../kv/mutant.ts";
import type { Self } from "../kv/replica.ts";
import type { GroupReport } from "../proto/control.ts";
import { epoch, type GroupId, type Lsn, lsn, type StoreId } from "../proto/ids.ts";
import type { GroupConfig } from "../proto/replication.ts";
import type { GroupShell } from "./backend_group.ts";
import { RecoveredGroup } from "./backend_recovery.ts";
import type { CopySafety } from "./copy_safety.ts";

export interface BackendGroupsOptions {
  /** Null where damage is not survived. */
  readonly folder: StoreFolder | null;
  readonly self: Self;
  readonly wal: Wal;
  readonly env: Env;
  readonly safety: CopySafety;
  readonly openStore: (gid: GroupId) => CheckpointedStore;
  readonly makeShell: (parts: {
    readonly gid: GroupId;
    readonly copy: StoreId;
    readonly store: CheckpointedStore;
    readonly recovered: RecoveredGroup;
    readonly onDamage: (error: CorruptionError) => void;
    readonly onMismatch: (lsn: Lsn) => void;
  }) => GroupShell;
  /** Finds out whose state is wrong when ours and the primary's differ. */
  readonly onMismatch: (shell: GroupShell, lsn: Lsn) => void;
  /** Something that the coordinator should hear of at once. */
  readonly onChanged: () => void;
}

/** What a group has on disk at the start. */
export interface FoundGroup {
  readonly gid: GroupId;
  readonly recovered: RecoveredGroup;
  /** The damage that its checkpoint was found with, if so. */
  readonly store: CheckpointedStore | CorruptionError;
}

interface SuspectGroup {
  /** The copy that is damaged. */
  readonly copy: StoreId;
  readonly config: GroupConfig | null;
  readonly damage: CorruptionError;
  /** Why it is not being rebuilt yet. */
  why: string;
}

const DISK_FULL_PAUSE_MS = 500;

export class BackendGroups {
  /** Those that take part. */
  readonly shells = new Map<GroupId, GroupShell>();
  readonly #options: BackendGroupsOptions;
  readonly #suspects = new Map<GroupId, SuspectGroup>();
  readonly #closing = new AbortController();
  readonly #healing = new Set<Promise<void>>();
  /** How many replicas were begun anew since the start. */
  rebuildCount = 0;

  constructor(options: BackendGroupsOptions) {
    this.#options = options;
  }

  /** Takes up what was found on disk. */
  open(found: FoundGroup): void {
    const { gid, recovered, store } = found;
    const { config } = recovered;
    if (store instanceof Error) {
      return this.#suspect(gid, { copy: this.#copyOf(gid), config, damage: store });
    }
    try {
      this.#add(gid, store, recovered);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      store.close();
      this.#suspect(gid, { copy: this.#copyOf(gid), config, damage: error });
    }
  }

  isSuspect(gid: GroupId): boolean {
    return this.#suspects.has(gid);
  }

  /** One sentence for the operator, or null. */
  get problem(): string | null {
    for (const [gid, { damage, why }] of this.#suspects) {
      return `its copy of group ${gid} is damaged and takes no part: ${damage.message}. It is ` +
        `rebuilt from the others; ${why}`;
    }
    return null;
  }

  reports(): GroupReport[] {
    const sound = Array.from(this.shells.values(), (shell) => shell.report());
    return [...sound, ...Array.from(this.#suspects, ([gid, { copy }]) => suspectReport(gid, copy))];
  }

  /** What the replicas adopted last, those of damaged ones too as far as it could be read. */
  configs(): GroupConfig[] {
    const all = [
      ...Array.from(this.shells.values(), (shell) => shell.replica.config),
      ...Array.from(this.#suspects.values(), (suspect) => suspect.config),
    ];
    return all.filter((config) => config !== null);
  }

  /** The group's replica must not go on. Harmless when it has been given up meanwhile. */
  damaged(shell: GroupShell, damage: CorruptionError): void {
    const { gid } = shell;
    if (this.shells.get(gid) !== shell) return;
    this.shells.delete(gid);
    const retired = shell.retire();
    const { config } = shell.replica;
    this.#suspect(gid, { copy: shell.copy, config, damage, retired });
  }

  /**
   * Something of the group cannot be read any more. False when nobody else is there: then what can be
   * read goes on being read.
   */
  unreadable(shell: GroupShell, damage: CorruptionError): boolean {
    if (this.shells.get(shell.gid) !== shell) return true;
    if (!shell.hasCompany) {
      shell.problem =
        `group ${shell.gid}: ${damage.message}. No other replica is there to heal it from`;
      return false;
    }
    this.damaged(shell, damage);
    return true;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#healing);
  }

  #copyOf(gid: GroupId): StoreId {
    if (mutated("rebuilt-under-old-name")) return this.#options.self.store;
    return this.#options.folder?.copyOf(gid) ?? this.#options.self.store;
  }

  #add(gid: GroupId, store: CheckpointedStore, recovered: RecoveredGroup): void {
    const shell: GroupShell = this.#options.makeShell({
      gid,
      copy: this.#copyOf(gid),
      store,
      recovered,
      onDamage: (error) => this.damaged(shell, error),
      onMismatch: (lsn) => this.#options.onMismatch(shell, lsn),
    });
    this.shells.set(gid, shell);
  }

  #suspect(
    gid: GroupId,
    { retired, ...found }: Omit<SuspectGroup, "why"> & { retired?: Promise<void> },
  ): void {
    const { env, onChanged } = this.#options;
    const { damage } = found;
    if (this.#options.folder === null) env.fatal(damage);
    const suspect = { ...found, why: "it asks whether they have everything" };
    this.#suspects.set(gid, suspect);
    env.log("error", "damaged replica", { gid, copy: found.copy, damage: damage.message });
    onChanged();
    const healing = this.#heal(gid, suspect, retired ?? Promise.resolve()).catch((error) => {
      if (!this.#closing.signal.aborted) env.fatal(error);
    });
    this.#healing.add(healing);
    void healing.finally(() => this.#healing.delete(healing));
  }

  async #heal(gid: GroupId, suspect: SuspectGroup, retired: Promise<void>): Promise<void> {
    const { folder, wal, env, safety, openStore, onChanged } = this.#options;
    const { signal } = this.#closing;
    const onWaiting = (why: string) => {
      suspect.why = why;
      env.log("warning", "a damaged replica waits", { gid, why });
    };
    await safety.untilSafe(gid, { onWaiting, signal });
    await retired;
    signal.throwIfAborted();
    for (;;) {
      try {
        await folder!.giveUpCopy(gid, suspect.damage);
        // The log still holds entries of the copy that is gone.
        await wal.append([{ type: "reset", gid, epoch: epoch(0), lsn: lsn(0) }]);
        break;
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        suspect.why = "its disk is full";
        await env.sleep(DISK_FULL_PAUSE_MS, signal);
      }
    }
    const recovered = new RecoveredGroup(gid, { lsn: lsn(0), history: [] });
    recovered.config = suspect.config;
    this.#suspects.delete(gid);
    this.#add(gid, openStore(gid), recovered);
    this.rebuildCount += 1;
    env.log("info", "a replica begins anew", { gid, copy: this.#copyOf(gid) });
    onChanged();
  }
}

function suspectReport(gid: GroupId, store: StoreId): GroupReport {
  return {
    gid,
    store,
    suspect: true,
    epoch: epoch(0),
    role: "idle",
    lastEpoch: epoch(0),
    lastLsn: lsn(0),
    commitLsn: lsn(0),
    serving: false,
    silentMs: 0,
    tablets: [],
  };
}
