/**
 * What the simulated cluster is asked: real clients (kv/client.ts) with several calls under way each,
 * on few rows, so that they meet. Everything goes through a recorder for the checkers, and is held
 * against the oracle the moment it is answered.
 *
 * Besides them a prober reads straight from any node, past all routing: whoever thinks that it may
 * answer a read shows its hand.
 */
import { crc32 } from "node:zlib";
import type { CellHead, KvClient } from "../../kv/client.ts";
import { KvError } from "../../kv/errors.ts";
import { encodeText, type RowOp, type RowResult } from "../../kv/kv.ts";
import { version } from "../../proto/ids.ts";
import { kvConversation } from "../../proto/kv_wire.ts";
import type { PeerLinks } from "../../roles/peers.ts";
import type { HistoryRecorder } from "../checkers/history.ts";
import { RecordedKv } from "../checkers/recorded_kv.ts";
import { type GroupOracle, NAME_COLUMN, type WriteAnswer } from "./oracle.ts";
import type { SeededRandom } from "./seeded_random.ts";
import type { SimProcess } from "./sim_process.ts";
import { SimViolation } from "./violation.ts";

export interface WorkloadShape {
  /** Calls that one client has under way at a time. */
  readonly depth: number;
  readonly thinkMs: number;
  readonly deadlineMs: number;
  /** Values above 64 KiB now and then. */
  readonly largeValues: boolean;
  /** A damaged cell is said to be damaged while nobody is there to heal it from. */
  readonly mayBeDamaged: boolean;
  /** Values of some kilobytes now and then. */
  readonly mediumValues: boolean;
  /** Rows that lie together may part in the middle of what is done to both. */
  readonly rowsMove: boolean;
}

/** Where the rows of the workload lie. */
export interface SimRow {
  readonly row: string;
  readonly gid: number;
}

export interface SimClientOptions {
  readonly process: SimProcess;
  readonly kv: KvClient;
  readonly recorder: HistoryRecorder;
  readonly random: SeededRandom;
  readonly shape: WorkloadShape;
  /** The rows in use now; they change in the course of a run. */
  readonly rows: () => readonly SimRow[];
  /** The rows that were in use before, where somebody tidies up; otherwise none. */
  readonly oldRows: () => readonly SimRow[];
  readonly oracle: (gid: number) => GroupOracle;
  readonly nextName: () => string;
  readonly onAnswer: (kind: WriteAnswer["kind"] | "read" | "cleared") => void;
  readonly onViolation: (error: unknown) => void;
}

const LARGE_BYTES = 66_000;
/** Some dozens of them, and the memory for old versions is used up. */
const MEDIUM_BYTES = 10_000;

export class SimClient {
  readonly #options: SimClientOptions;
  readonly #kv: RecordedKv;
  #stopped = false;

  constructor(options: SimClientOptions) {
    this.#options = options;
    const { kv, recorder, process } = options;
    this.#kv = new RecordedKv(kv, { recorder, process: process.name });
  }

  get process(): SimProcess {
    return this.#options.process;
  }

  start(): void {
    for (let i = 0; i < this.#options.shape.depth; i++) void this.#session();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** The process dies with its calls under way. */
  kill(): void {
    this.#options.process.end();
  }

  async #session(): Promise<void> {
    const { process, random, shape, onViolation } = this.#options;
    while (!this.#stopped) {
      await process.env.sleep(random.next() * shape.thinkMs);
      if (this.#stopped) return;
      try {
        await this.#step();
      } catch (error) {
        onViolation(error);
        return;
      }
    }
  }

  async #step(): Promise<void> {
    const { random, rows, oldRows } = this.#options;
    const target = random.pick(rows());
    const dice = random.next(), old = oldRows();
    if (old.length > 0 && dice > 0.85) return await this.#clear(random.pick(old));
    if (dice < 0.3) return await this.#read(target);
    // Transactions over rows that part are sim_transactions.ts's.
    if (dice < 0.38 && !this.#options.shape.rowsMove) return await this.#transact(target);
    await this.#write(target);
  }

  /** A single write, for the end of a run: true when it was applied. */
  async writeOnce(target: SimRow): Promise<boolean> {
    return await this.#submit(target.gid, (name) => this.#operation(target, name, 0), 2_000) ===
      "applied";
  }

  /** Empties a row, so that tablets shrink as well. Nothing is left to tell who did it. */
  async #clear({ row }: SimRow): Promise<void> {
    const { shape: { deadlineMs }, onAnswer } = this.#options;
    try {
      await this.#kv.apply({ row, mutations: [{ kind: "deletePrefix", prefix: "" }] }, {
        deadlineMs,
      });
      onAnswer("cleared");
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
    }
  }

  async #write(target: SimRow): Promise<void> {
    const { random } = this.#options;
    const dice = random.next();
    let seen = 0;
    if (dice > 0.6) seen = (await this.#versionOf(target)) ?? 0;
    await this.#submit(target.gid, (name) => this.#operation(target, name, dice, seen));
  }

  #operation({ row }: SimRow, name: string, dice: number, seen = 0): RowOp {
    const { random, shape } = this.#options;
    const large = shape.largeValues && random.chance(0.03);
    const medium = shape.mediumValues && random.chance(0.2);
    const value = large
      ? largeValue(name, LARGE_BYTES)
      : medium
      ? largeValue(name, MEDIUM_BYTES)
      : encodeText(name);
    const named = { kind: "put", column: NAME_COLUMN, value: encodeText(name) } as const;
    const put = { kind: "put", column: "x", value } as const;
    if (dice < 0.25) return { row, mutations: [put, named] };
    if (dice < 0.4) return { row, mutations: [{ kind: "add", column: "n", by: 1 }, named] };
    if (dice < 0.5) {
      const entry = {
        kind: "append",
        counter: "c",
        prefix: "m/",
        value: encodeText(name),
      } as const;
      return { row, mutations: [entry, named] };
    }
    if (dice < 0.55) return { row, mutations: [{ kind: "delete", column: "x" }, named] };
    if (dice < 0.6) return { row, mutations: [{ kind: "deletePrefix", prefix: "m/" }, named] };
    const condition = seen === 0
      ? { column: "x", is: "absent" } as const
      : { column: "x", is: "version", version: version(seen) } as const;
    return { row, conditions: [condition], mutations: [put, named] };
  }

  /** Two rows of one group, all or none. */
  async #transact({ row, gid }: SimRow): Promise<void> {
    const { random, rows } = this.#options;
    const others = rows().filter((item) => item.gid === gid && item.row !== row);
    if (others.length === 0) return;
    const other = random.pick(others).row;
    await this.#submit(gid, (name) => {
      const value = encodeText(name);
      const put = { kind: "put", column: "x", value } as const;
      return [
        { row, mutations: [put, { kind: "put", column: NAME_COLUMN, value }] },
        { row: other, mutations: [put] },
      ];
    });
  }

  async #submit(
    gid: number,
    make: (name: string) => RowOp | RowOp[],
    deadlineMs = this.#options.shape.deadlineMs,
  ): Promise<WriteAnswer["kind"]> {
    const { nextName, oracle, onAnswer } = this.#options;
    const name = nextName(), calledAt = oracle(gid).now;
    const what = make(name);
    const options = { deadlineMs };
    let answer: WriteAnswer;
    try {
      if (Array.isArray(what)) {
        const result = await this.#kv.transact(what, options);
        if (!result.applied) answer = { kind: "refused", version: result.version };
        else {
          const { version } = result.results[0]!;
          const numbers = result.results.flatMap(({ numbers }) => numbers);
          // Rows of one group change in one entry, which gives them their version.
          if (version === null) throw new SimViolation(`R1: ${name} took place without a version`);
          answer = { kind: "applied", version, numbers };
        }
      } else answer = answerOf(await this.#kv.apply(what, options));
    } catch (error) {
      if (!(error instanceof KvError)) throw error;
      answer = error.outcome === "unknown"
        ? { kind: "unknown" }
        : { kind: "failed", code: error.code };
    }
    oracle(gid).answered(name, answer, calledAt);
    onAnswer(answer.kind);
    return answer.kind;
  }

  async #versionOf({ row, gid }: SimRow): Promise<number | null> {
    const { oracle, shape, onAnswer } = this.#options;
    const calledAt = oracle(gid).now;
    try {
      const cell = await this.#kv.get(row, "x", { deadlineMs: shape.deadlineMs });
      const cells = cell === null
        ? []
        : [{ row, column: "x", version: cell.version, crc: crc32(cell.value) }];
      oracle(gid).checkRead(`a get of ${row}`, [row], cells, { calledAt, column: "x" });
      onAnswer("read");
      return cell?.version ?? 0;
    } catch (error) {
      if (error instanceof KvError && this.#mayHappen(error)) return null;
      throw error;
    }
  }

  async #read(target: SimRow): Promise<void> {
    const { random, oracle, shape, onAnswer, rows } = this.#options;
    const { row, gid } = target;
    const dice = random.next();
    if (dice < 0.4) return void await this.#versionOf(target);
    const calledAt = oracle(gid).now;
    try {
      if (dice < 0.8) {
        const page = await this.#kv.getRow(row, { limit: 1000, deadlineMs: shape.deadlineMs });
        if (page.next !== null) return;
        const cells = page.cells.flatMap((cell) => seen(row, cell));
        if (cells.length < page.cells.length) return;
        oracle(gid).checkRead(`row ${row}`, [row], cells, { calledAt });
      } else {
        // Rows of one group share their first letters.
        const prefix = row.slice(0, 2);
        const together = rows().map((item) => item.row).filter((item) => item.startsWith(prefix));
        const page = await this.#kv.scan({ prefix, limit: 1000, deadlineMs: shape.deadlineMs });
        if (page.next !== null) return;
        const mine = page.cells.filter((cell) => together.includes(cell.row));
        const cells = mine.flatMap((cell) => seen(cell.row, cell));
        if (cells.length < mine.length) return;
        oracle(gid).checkRead(`a scan of ${prefix}`, together, cells, { calledAt });
      }
      onAnswer("read");
    } catch (error) {
      if (!(error instanceof KvError) || !this.#mayHappen(error)) throw error;
    }
  }

  #mayHappen({ code }: KvError): boolean {
    return code !== "corrupted" || this.#options.shape.mayBeDamaged;
  }
}

export interface ProberOptions {
  readonly process: SimProcess;
  readonly links: PeerLinks;
  readonly random: SeededRandom;
  readonly everyMs: number;
  readonly nodes: () => readonly number[];
  readonly rows: () => readonly SimRow[];
  /** Null: rows stay where they are. */
  readonly anyGroup: (() => number) | null;
  readonly oracle: (gid: number) => GroupOracle;
  readonly onRead: () => void;
  readonly onViolation: (error: unknown) => void;
}

/** Asks nodes for a row as a client does, but does not let them pass the request on. */
export async function probe(options: ProberOptions): Promise<void> {
  const { process, links, random, everyMs, nodes, rows, oracle, onRead, onViolation, anyGroup } =
    options;
  for (;;) {
    await process.env.sleep(random.next() * 2 * everyMs);
    const { row, gid } = random.pick(rows());
    const node = random.pick(nodes());
    const calledAt = oracle(gid).now;
    const asked = anyGroup === null ? gid : anyGroup();
    const body = { gid: asked, row, hops: 1, limit: 1000 } as never;
    links.of("backend", node).call(kvConversation, "getRow", body, undefined, { timeoutMs: 4_000 })
      .then(({ body, payload }) => {
        const { cells: heads } = body as { cells: CellHead[] };
        let offset = 0;
        const cells = heads.flatMap((head) => {
          if (!head.inline) return [];
          const value = payload.subarray(offset, offset += head.size);
          return [{ row, column: head.column, version: head.version, crc: crc32(value) }];
        });
        if (cells.length < heads.length) return;
        oracle(gid).checkRead(`row ${row} at backend/${node}`, [row], cells, { calledAt });
        onRead();
      })
      .catch((error) => {
        if (error.name === "SimViolation") onViolation(error);
      });
  }
}

function seen(
  row: string,
  cell: { column: string; version: number; value?: Uint8Array },
) {
  const { column, version, value } = cell;
  // Large values are not part of a page.
  return value === undefined ? [] : [{ row, column, version, crc: crc32(value) }];
}

function answerOf(result: RowResult): WriteAnswer {
  return result.applied
    ? { kind: "applied", version: result.version, numbers: result.numbers }
    : { kind: "refused", version: result.version };
}

function largeValue(name: string, bytes: number): Uint8Array {
  const value = new Uint8Array(bytes);
  value.set(encodeText(name));
  return value;
}
