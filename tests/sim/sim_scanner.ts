/**
 * Scans of the simulated cluster as the apps make them: page by page as of one position of each group,
 * with small pages and pauses between them, while everything else goes on. What the pages of a group
 * show together has to be its state as of one position, whatever was split, overwritten or elected
 * meanwhile; a scan that cannot have that is told so.
 */
import { crc32 } from "node:zlib";
import type { KvClient } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import { compareKeys, inRange } from "../../kv/key_order.ts";
import type { ScanPage, ScanPosition } from "../../kv/kv.ts";
import type { KeyRange } from "../../kv/tablets.ts";
import type { ClusterHistory } from "./cluster_history.ts";
import type { GroupOracle, ScannedCell } from "./oracle.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimRow } from "./sim_clients.ts";
import type { SimProcess } from "./sim_process.ts";
import { SimViolation } from "./violation.ts";

export interface SimScannerOptions {
  readonly process: SimProcess;
  readonly kv: KvClient;
  readonly random: SeededRandom;
  readonly history: ClusterHistory;
  readonly rows: () => readonly SimRow[];
  readonly oracle: (gid: number) => GroupOracle;
  /** See `WorkloadShape`. */
  readonly mayBeDamaged: boolean;
  readonly onScan: (how: "scans" | "scansOfOnePage" | "scansTooOld" | "scansBroken") => void;
  readonly onViolation: (error: unknown) => void;
}

/** What a scan has seen of one group. */
interface GroupScan {
  /** The group's last position when its first page was asked for. */
  readonly calledAt: number;
  /** As of which the pages are, where an answer said so. */
  snapshotLsn: number | null;
  readonly cells: ScannedCell[];
}

/** Of one group, without a gap. */
type OwnedRange = KeyRange & { readonly gid: number };

const DEADLINE_MS = 4_000;
const PAUSE_BEFORE_MS = 1_000;

export class SimScanner {
  readonly #options: SimScannerOptions;
  #stopped = false;

  constructor(options: SimScannerOptions) {
    this.#options = options;
  }

  start(): void {
    void this.#run().catch(this.#options.onViolation);
  }

  stop(): void {
    this.#stopped = true;
  }

  async #run(): Promise<void> {
    const { process, random } = this.#options;
    for (;;) {
      await process.env.sleep(random.next() * PAUSE_BEFORE_MS);
      if (this.#stopped) return;
      await this.#scan();
    }
  }

  async #scan(): Promise<void> {
    const { process, kv, random, onScan } = this.#options;
    const limit = random.pick([1, 4, 10, 40, 1000]), pauseMs = random.pick([0, 0, 40, 400]);
    const startRow = random.chance(0.5) ? "" : random.pick(this.#options.rows()).row;
    const seen = new Map<OwnedRange, GroupScan>();
    const { history } = this.#options, calledAt = history.now;
    const ranges = joined(history.owners);
    let after: ScanPosition | null = null, pages = 0, crossedMove = false;
    try {
      do {
        const from: string = after?.row ?? startRow;
        const pageAt = history.now;
        const position: { after?: ScanPosition } = after === null ? {} : { after };
        const page: ScanPage = await kv.scan({
          startRow,
          limit,
          ...position,
          snapshot: true,
          deadlineMs: DEADLINE_MS,
        });
        pages += 1;
        if (this.#take(page, { from, calledAt, pageAt, ranges, seen })) crossedMove = true;
        after = page.next;
        if (after !== null) await process.env.sleep(random.next() * pauseMs);
      } while (after !== null && !this.#stopped);
      onScan(pages === 1 ? "scansOfOnePage" : "scans");
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      if (error.code === "corrupted" && !this.#options.mayBeDamaged) throw error;
      onScan(error.code === "snapshot_too_old" ? "scansTooOld" : "scansBroken");
    }
    // What came before a scan broke off has to be right as well.
    const isComplete = after === null && pages > 0;
    // Where rows changed their group meanwhile, nothing but each row by itself is as of one position.
    if (history.movedAt >= calledAt || crossedMove) {
      this.#checkRows({ startRow, end: after, isComplete, calledAt, seen });
    } else this.#check({ startRow, end: after, isComplete, seen, pages });
  }

  #checkRows({ startRow, end, isComplete, calledAt, seen }: {
    startRow: string;
    end: ScanPosition | null;
    isComplete: boolean;
    calledAt: number;
    seen: ReadonlyMap<OwnedRange, GroupScan>;
  }): void {
    if (!isComplete && end === null) return;
    const { history, oracle } = this.#options;
    const byRow = Map.groupBy([...seen.values()].flatMap(({ cells }) => cells), ({ row }) => row);
    // The last row may have been shown in part.
    for (const row of history.rowsWithin({ startKey: startRow, endKey: end?.row ?? null })) {
      const cells = byRow.get(row) ?? [];
      const what = `a scan from "${startRow}" across a move`;
      const range = { startKey: row, endKey: row + "\0" };
      oracle(history.ownerOf(row)).checkScan(what, cells, {
        calledAt,
        snapshotLsn: null,
        startRow: row,
        end: null,
        range,
      });
    }
  }

  /**
   * Takes note of what a page shows. Whether it goes on in rows that came to the group only behind the
   * position of the pages before: a primary that cannot decide yet what the end of its log is worth
   * answers, as of before that end, for rows which it does not touch.
   */
  #take(
    page: ScanPage,
    { from, calledAt, pageAt, ranges, seen }: {
      from: string;
      calledAt: number;
      pageAt: number;
      ranges: readonly OwnedRange[];
      seen: Map<OwnedRange, GroupScan>;
    },
  ): boolean {
    const until = page.next?.row ?? null;
    let crossesMove = false;
    for (const range of ranges) {
      const { gid, startKey, endKey } = range;
      const isBefore = endKey !== null && compareKeys(endKey, from) <= 0;
      const isBehind = until !== null && compareKeys(until, startKey) < 0;
      if (isBefore || isBehind) continue;
      let scan = seen.get(range);
      if (scan === undefined) {
        scan = { calledAt: pageAt, snapshotLsn: null, cells: [] };
        seen.set(range, scan);
      }
      for (const { row, column, version, size, value } of page.cells) {
        if (!inRange(row, startKey, endKey)) continue;
        scan.cells.push({ row, column, version, size, crc: value ? crc32(value) : null });
      }
      const snapshot = page.next?.snapshot;
      const isOfRange = until !== null && inRange(until, startKey, endKey);
      if (snapshot === undefined || snapshot.gid !== gid || !isOfRange) continue;
      const rowsMoved = this.#options.history.movedAt >= calledAt;
      const { snapshotLsn } = scan;
      const goesOn = snapshotLsn === null || snapshotLsn === snapshot.lsn;
      if (!goesOn && this.#options.history.cameBehind(gid, from, snapshotLsn)) crossesMove = true;
      else if (!goesOn && !rowsMoved) {
        throw new SimViolation(
          `S3: a scan as of ${scan.snapshotLsn} of group ${gid} goes on as of ${snapshot.lsn}`,
        );
      }
      scan.snapshotLsn = snapshot.lsn;
    }
    return crossesMove;
  }

  #check({ startRow, end, isComplete, seen, pages }: {
    startRow: string;
    end: ScanPosition | null;
    isComplete: boolean;
    seen: ReadonlyMap<OwnedRange, GroupScan>;
    pages: number;
  }): void {
    if (!isComplete && end === null) return;
    for (const [range, { calledAt, snapshotLsn, cells }] of seen) {
      const { gid } = range, what = `a scan of group ${gid} from "${startRow}" in ${pages} pages`;
      const position = { calledAt, snapshotLsn, startRow, end, range };
      this.#options.oracle(gid).checkScan(what, cells, position);
    }
  }
}

/** Neighbours of one group are read as of one position. */
function joined(owners: readonly OwnedRange[]): OwnedRange[] {
  const all: OwnedRange[] = [];
  for (const range of owners) {
    const last = all.at(-1);
    if (last?.gid === range.gid) all[all.length - 1] = { ...last, endKey: range.endKey };
    else all.push(range);
  }
  return all;
}
