/**
 * A campaign: real processes, concurrent clients, and one fault after the other for as long as is
 * asked; then quiet, and the questions. Was anything lost, doubled or invented? Did every client see
 * one history? Are all replicas equal?
 *
 * Between two faults the campaign waits until the cluster is whole again: every node up and every
 * tablet with all of its replicas. While a fault lasts, probes measure for how long each tablet takes
 * no writes. The seed decides which faults strike whom, and for how long; what the machine makes of
 * it differs from run to run.
 *
 * Start at {@link runCampaign}. Faults are in nemeses.ts, workloads in workloads.ts.
 */
import { join } from "node:path";
import { kvConversation } from "../../proto/kv_wire.ts";
import { groupId } from "../../proto/ids.ts";
import type { HistoryEvent } from "../checkers/history.ts";
import { replicasEqual } from "../cluster/cluster_calls.ts";
import type { FullCell, Kv } from "../../kv/kv.ts";
import type { MutantName } from "../../kv/mutant.ts";
import { SeededRandom } from "../sim/seeded_random.ts";
import { FaultCluster } from "./fault_cluster.ts";
import { type Figure, Figures } from "./figures.ts";
import { GapProbe, readProbe, writeProbe } from "./gap_probe.ts";
import { type Fault, GuaranteeBroken, type Nemesis } from "./nemesis.ts";
import { PatientKv } from "./patient_kv.ts";
import { Tally } from "./tally.ts";
import { prefixOf, type ReplicaQuestion, type Workload, type WorkloadContext } from "./workload.ts";

/** Nothing is asserted on time, but a cluster that does not mend itself at all is broken. */
const WHOLE_WITHIN_MS = 150_000;
/** Of probing before a fault strikes, so that gaps have a beginning. */
const CALM_MS = 300;
/** The same for a fault that holds so long that times before it and meanwhile can be compared. */
const LONG_CALM_MS = 60_000;
const LONG_HOLD_MS = 60_000;
const COMBINED_SHARE = 0.25;
const CLIENT_COUNT = 4;
/** A request that was passed on this often is not passed on again. */
const HOPS_MAX = 3;
const FLUSH_CHARS = 64 * 1024;
/** Room for everything that a campaign keeps, several times over. */
const DISK_MIB = 768;

export interface CampaignOptions {
  readonly seed: number;
  readonly durationMs: number;
  readonly backends: number;
  readonly nemeses: readonly Nemesis[];
  readonly workloads: readonly ((context: WorkloadContext) => Workload)[];
  /** Told of everything that happens. */
  readonly onEvent: (event: CampaignEvent) => void;
  /** How long each fault holds, instead of what the seed draws. */
  readonly holdMs?: number;
  /** A deliberate bug that the campaign should find. */
  readonly mutant?: MutantName;
  /** Where the recorded history goes, as JSON lines; absent: into the cluster's folder. */
  readonly historyFile?: string;
}

export type CampaignEvent =
  | { readonly event: "started"; readonly dir: string; readonly seconds: number }
  | { readonly event: "strike"; readonly fault: string; readonly what: string }
  | {
    readonly event: "mended";
    readonly fault: string;
    readonly what: string;
    readonly wholeMs: number;
    readonly gaps: readonly TabletGap[];
  }
  | { readonly event: "checking" };

/** What a fault cost one group. */
export interface TabletGap {
  readonly group: number;
  readonly role: "primary" | "secondary" | "moved" | "other";
  readonly ms: number;
  /** When it began, counted from the strike. */
  readonly atMs: number;
  /** The longest gap of reads. */
  readonly readMs: number;
}

interface GroupProbes {
  readonly group: number;
  readonly role: TabletGap["role"];
  readonly writes: GapProbe;
  readonly reads: GapProbe;
}

export interface CampaignResult {
  readonly seed: number;
  readonly seconds: number;
  /** The machine's load average over the last minute, before and after. */
  readonly load: readonly [number, number];
  readonly faults: Readonly<Record<string, number>>;
  /** Processes ended by SIGKILL. */
  readonly kills: number;
  /** Of writes and of linearizable reads. */
  readonly gaps: readonly Figure[];
  readonly readGaps: readonly Figure[];
  /** Of single writes and reads, around a long fault that nobody may notice. */
  readonly times: readonly Figure[];
  readonly operations: {
    readonly ok: number;
    readonly unknown: number;
    readonly refused: Readonly<Record<string, number>>;
  };
  readonly checked: readonly string[];
  /** "GUARANTEE BROKEN: …", "NOT MENDED …", "NOT SERVED: …" or "NOT FINISHED: …". */
  readonly violations: readonly string[];
  /** Where the cluster's folders and the history were kept; null when there is nothing to look for. */
  readonly keptDir: string | null;
  readonly historyFile: string | null;
}

export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const loadBefore = Deno.loadavg()[0]!, startedMs = performance.now();
  const cluster = await FaultCluster.start({
    backends: options.backends,
    ...(options.mutant === undefined ? {} : { mutant: options.mutant }),
    links: options.nemeses.some((nemesis) => nemesis.needsLinks),
    ...(options.nemeses.some((nemesis) => nemesis.needsDisks) ? { diskMib: DISK_MIB } : {}),
  });
  const history = new LineFile(options.historyFile ?? join(cluster.dir, "history.jsonl"));
  const campaign = new Campaign(cluster, history, options);
  try {
    options.onEvent({
      event: "started",
      dir: cluster.dir,
      seconds: (performance.now() - startedMs) / 1000,
    });
    await campaign.run();
  } catch (error) {
    // Whatever it was, the report and the folders are worth more than a bare stack.
    campaign.violations.push(`NOT FINISHED: ${(error as Error).stack}`);
  } finally {
    await cluster.stop();
    history.close();
  }
  const broken = campaign.violations.length > 0;
  if (!broken) await cluster.removeFolder();
  return {
    ...campaign.result(),
    seed: options.seed,
    seconds: (performance.now() - startedMs) / 1000,
    load: [loadBefore, Deno.loadavg()[0]!],
    keptDir: broken ? cluster.dir : null,
    historyFile: broken || options.historyFile !== undefined ? history.path : null,
  };
}

class Campaign {
  readonly violations: string[] = [];
  readonly #cluster: FaultCluster;
  readonly #options: CampaignOptions;
  readonly #random: SeededRandom;
  readonly #writeGaps = new Figures();
  readonly #readGaps = new Figures();
  readonly #times = new Figures();
  readonly #tally = new Tally();
  readonly #faultCounts: Record<string, number> = {};
  readonly #workloads: readonly Workload[];
  /** Of its own, so that what it does is not among what clients did. */
  readonly #kv: Kv;
  /** Nemeses in the order of their turns; dealt anew when used up, so that each gets its turn. */
  #deck: Nemesis[] = [];

  constructor(cluster: FaultCluster, history: LineFile, options: CampaignOptions) {
    this.#cluster = cluster;
    this.#kv = new PatientKv(cluster.connect());
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    const context: WorkloadContext = {
      clients: Array.from({ length: CLIENT_COUNT }, () => cluster.connect()),
      groups: cluster.groups,
      random: new SeededRandom(options.seed + 1),
      tally: this.#tally,
      door: cluster.opsUrl("frontend/0"),
      askReplica: askReplicaOf(cluster),
      onHistory: (event: HistoryEvent) => history.write(JSON.stringify(event)),
      keep: (name, lines) => {
        Deno.mkdirSync(join(cluster.dir, "evidence"), { recursive: true });
        const path = join(cluster.dir, "evidence", `${name}.jsonl`);
        Deno.writeTextFileSync(path, [...lines, ""].join("\n"));
      },
    };
    this.#workloads = options.workloads.map((make) => make(context));
  }

  result() {
    const { okCount, unknownCount, refused } = this.#tally;
    return {
      faults: this.#faultCounts,
      kills: this.#cluster.killCount,
      gaps: this.#writeGaps.list(),
      readGaps: this.#readGaps.list(),
      times: this.#times.list(),
      operations: {
        ok: okCount,
        unknown: unknownCount,
        refused: Object.fromEntries(refused),
      },
      checked: this.#workloads.map((workload) => workload.describe()),
      violations: this.violations,
    };
  }

  async run(): Promise<void> {
    for (const workload of this.#workloads) {
      await this.#asked(workload, () => workload.prepare?.());
    }
    if (this.violations.length > 0) return;
    const stop = new AbortController();
    const running = Promise.all(
      this.#workloads.map((workload) =>
        workload.run(stop.signal).catch((error) => this.#unexpected(workload, error))
      ),
    );
    const untilMs = performance.now() + this.#options.durationMs;
    while (performance.now() < untilMs && this.violations.length === 0) {
      await this.#oneFault();
      for (const workload of this.#workloads) {
        await this.#asked(workload, () => workload.settle?.(this.#kv));
      }
    }
    stop.abort();
    await running;
    if (this.violations.length === 0) await this.#check();
  }

  /** A judge that gets no answers cannot say that anything was lost. */
  async #asked(workload: Workload, ask: () => Promise<void> | undefined): Promise<void> {
    try {
      await ask();
    } catch (error) {
      this.violations.push(`NOT SERVED: ${workload.name} cannot be judged: ${error}`);
    }
  }

  #unexpected(workload: Workload, error: Error): void {
    this.violations.push(
      `GUARANTEE BROKEN: ${workload.name} met an error that no store may cause: ${error.stack}`,
    );
  }

  async #oneFault(): Promise<void> {
    const nemesis = this.#draw();
    const fault = await this.#plan(nemesis);
    const others = this.#options.nemeses.filter((it) => it.combines && it !== nemesis);
    const second = nemesis.combines && others.length > 0 && this.#random.chance(COMBINED_SHARE)
      ? await this.#plan(this.#random.pick(others))
      : null;
    const name = second === null ? nemesis.name : "several at once";
    const outlasts = second !== null && this.#random.chance(0.5);
    const what = second === null
      ? fault.what
      : `${fault.what}${outlasts ? ", outlasting" : " and"} ${second.what}`;
    this.#faultCounts[name] = (this.#faultCounts[name] ?? 0) + 1;
    this.#options.onEvent({ event: "strike", fault: name, what });

    const roles = await this.#rolesOf([...fault.victims, ...(second?.victims ?? [])]);
    const probes = this.#cluster.groups.map((group): GroupProbes => {
      const row = `${prefixOf(group)}-probe`;
      return {
        group: group.id,
        role: group.id === fault.moved ? "moved" : roles.get(group.id) ?? "other",
        writes: new GapProbe(writeProbe(this.#kv, row)),
        reads: new GapProbe(readProbe(this.#kv, row)),
      };
    });
    try {
      const isLong = fault.harmless === true && fault.holdMs >= LONG_HOLD_MS && second === null;
      await sleep(isLong ? LONG_CALM_MS : CALM_MS);
      const failedBefore = this.#tally.failedCount;
      const strikeMs = performance.now();
      const endedMs = second === null
        ? await strike(fault)
        : await strikeBoth(fault, second, { outlasts, random: this.#random });
      const failed = this.#tally.failedCount - failedBefore;
      if (fault.harmless && second === null && failed > 0) {
        this.violations.push(`NOT SERVED: ${failed} operations failed during "${what}"`);
      }
      if (isLong) this.#compareTimes(name, probes, { strikeMs, endedMs });
      await this.#cluster.waitWhole({ withinMs: WHOLE_WITHIN_MS });
      await this.#answered(probes.flatMap(({ writes, reads }) => [writes, reads]));
      const gaps = probes.map(({ group, role, writes, reads }): TabletGap => {
        const gap = writes.longestSince(strikeMs);
        return {
          group,
          role,
          ms: Math.round(gap.ms),
          atMs: Math.round(gap.fromMs - strikeMs),
          readMs: Math.round(reads.longestSince(strikeMs).ms),
        };
      });
      if (second === null) {
        for (const [i, { role, ms, readMs }] of gaps.entries()) {
          const name = fault.gaps?.[role];
          if (name === undefined) continue;
          const { writes, reads } = probes[i]!, sinceEnd = fault.gaps?.sinceEnd === true;
          this.#writeGaps.add(name, sinceEnd ? writes.waitFrom(endedMs) : ms);
          this.#readGaps.add(name, sinceEnd ? reads.waitFrom(endedMs) : readMs);
        }
      }
      this.#options.onEvent({
        event: "mended",
        fault: name,
        what,
        wholeMs: Math.round(performance.now() - endedMs),
        gaps,
      });
    } catch (error) {
      const { message } = error as Error;
      this.violations.push(
        error instanceof GuaranteeBroken
          ? `${message} (during "${what}")`
          : `NOT MENDED after "${what}": ${message}`,
      );
    } finally {
      await Promise.all(probes.flatMap(({ writes, reads }) => [writes.stop(), reads.stop()]));
    }
  }

  async #plan(nemesis: Nemesis): Promise<Fault> {
    const fault = await nemesis.plan(this.#cluster, this.#random);
    const { holdMs } = this.#options;
    if (holdMs === undefined) return fault;
    return { ...fault, holdMs, what: `${fault.what}, held for ${holdMs} ms` };
  }

  #compareTimes(
    name: string,
    probes: readonly GroupProbes[],
    { strikeMs, endedMs }: { strikeMs: number; endedMs: number },
  ): void {
    for (const what of ["writes", "reads"] as const) {
      for (const { [what]: probe } of probes) {
        const before = probe.timesBetween(strikeMs - LONG_CALM_MS, strikeMs);
        for (const ms of before) this.#times.add(`${what} before ${name}`, ms);
        const during = probe.timesBetween(strikeMs, endedMs);
        for (const ms of during) this.#times.add(`${what} during ${name}`, ms);
      }
    }
  }

  #draw(): Nemesis {
    if (this.#deck.length === 0) this.#deck = [...this.#options.nemeses];
    return this.#deck.splice(this.#random.integer(this.#deck.length), 1)[0]!;
  }

  /** What the victims are for each group that is theirs. */
  async #rolesOf(victims: readonly string[]): Promise<Map<number, "primary" | "secondary">> {
    const { tablets } = await this.#cluster.status();
    const roles = new Map<number, "primary" | "secondary">();
    for (const { groupId, primary, secondaries } of tablets) {
      if (victims.includes(`backend/${primary}`)) roles.set(groupId, "primary");
      else if (secondaries.some((id) => victims.includes(`backend/${id}`))) {
        roles.set(groupId, "secondary");
      }
    }
    return roles;
  }

  /** One more answer everywhere, so that a gap that is still open at the end is seen in full. */
  async #answered(probes: readonly GapProbe[]): Promise<void> {
    const counts = probes.map((probe) => probe.ackCount);
    const untilMs = performance.now() + WHOLE_WITHIN_MS;
    while (probes.some((probe, i) => probe.ackCount === counts[i])) {
      if (performance.now() > untilMs) {
        throw new Error("A tablet takes no writes, or answers no reads");
      }
      await sleep(10);
    }
  }

  async #check(): Promise<void> {
    this.#options.onEvent({ event: "checking" });
    for (const workload of this.#workloads) {
      await this.#asked(workload, async () => {
        for (const problem of await workload.check(this.#kv)) {
          this.violations.push(`GUARANTEE BROKEN: ${workload.name}: ${problem}`);
        }
      });
    }
    await replicasEqual(this.#cluster).catch((error) => {
      this.violations.push(`GUARANTEE BROKEN: replicas differ: ${error.message}`);
    });
  }
}

/** Lets the fault hold. Gives the time of its end. */
async function strike(fault: Fault): Promise<number> {
  await fault.begin();
  await sleep(fault.holdMs);
  await fault.end();
  return performance.now();
}

/**
 * Lets the second fault begin while the first one holds. Each ends when its time is up; or the first
 * one outlasts the second, however long that takes. Gives the time of the last end.
 */
async function strikeBoth(
  first: Fault,
  second: Fault,
  { outlasts, random }: { outlasts: boolean; random: SeededRandom },
): Promise<number> {
  await first.begin();
  const leadMs = random.integer(Math.max(50, first.holdMs));
  await sleep(leadMs);
  if (outlasts) {
    await strike(second);
    await first.end();
  } else {
    const ended = sleep(first.holdMs - leadMs).then(() => first.end());
    await Promise.all([ended, strike(second)]);
  }
  return performance.now();
}

/** Asks with no hops left, so that a replica that is not the primary refuses. */
function askReplicaOf(cluster: FaultCluster) {
  const { peers } = cluster.connection();
  return async (question: ReplicaQuestion): Promise<FullCell | null> => {
    const { node, gid, row, column, timeoutMs } = question;
    const body = { gid: groupId(gid), hops: HOPS_MAX, row, column };
    const peer = peers.of("backend", node);
    const answer = await peer.call(kvConversation, "get", body, undefined, { timeoutMs });
    const { cell } = answer.body;
    return cell === null
      ? null
      : { column, version: cell.version, size: cell.size, value: answer.payload };
  };
}

/** Lines that go to a file a few at a time. */
class LineFile {
  readonly #file: Deno.FsFile;
  #waiting = "";

  constructor(readonly path: string) {
    this.#file = Deno.openSync(path, { write: true, create: true, truncate: true });
  }

  write(line: string): void {
    this.#waiting += line + "\n";
    if (this.#waiting.length >= FLUSH_CHARS) this.#flush();
  }

  close(): void {
    this.#flush();
    this.#file.close();
  }

  #flush(): void {
    const bytes = new TextEncoder().encode(this.#waiting);
    this.#waiting = "";
    for (let at = 0; at < bytes.length;) at += this.#file.writeSync(bytes.subarray(at));
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
