/**
 * Concurrent writers against a real cluster, and the question afterwards: is every acknowledged
 * write there, once, and no other twice?
 *
 * Each operation appends a unique value to one of a few rows that lie in different tablets, so a
 * lost, doubled or forked write shows. Writers never repeat a value: repeating is the client's
 * business, under one stamp.
 */
import assert from "node:assert/strict";
import { KvError } from "../../kv/errors.ts";
import { decodeText, encodeText, type Kv } from "../../kv/kv.ts";

export class Workload {
  readonly #kv: Kv;
  readonly #rows: readonly string[];
  readonly #deadlineMs: number;
  readonly #acked = new Set<string>();
  readonly #unknown = new Set<string>();
  readonly refused: KvError[] = [];
  #running = true;
  #writers: Promise<void>[] = [];
  #lastAckMs = performance.now();
  /** The longest time without any acknowledged write. */
  longestGapMs = 0;

  /** @param options.deadlineMs of each write: short where the store is not to come back */
  constructor(
    kv: Kv,
    options: {
      rows?: readonly string[];
      writers?: number;
      name?: string;
      deadlineMs?: number;
    } = {},
  ) {
    this.#kv = kv;
    this.#deadlineMs = options.deadlineMs ?? 60_000;
    this.#rows = options.rows ?? ["barn", "lamp", "tree"];
    const { writers = 6, name = "w" } = options;
    for (let i = 0; i < writers; i++) this.#writers.push(this.#write(`${name}${i}`));
  }

  get ackedCount(): number {
    return this.#acked.size;
  }

  async #write(writer: string): Promise<void> {
    for (let n = 0; this.#running; n++) {
      const value = `${writer}-${n}`, row = this.#rows[n % this.#rows.length]!;
      try {
        await this.#kv.apply({
          row,
          mutations: [{
            kind: "append",
            counter: "count",
            prefix: "v/",
            value: encodeText(value),
          }],
        }, { deadlineMs: this.#deadlineMs });
        this.#acked.add(value);
        const nowMs = performance.now();
        this.longestGapMs = Math.max(this.longestGapMs, nowMs - this.#lastAckMs);
        this.#lastAckMs = nowMs;
      } catch (error) {
        if (!(error instanceof KvError)) throw error;
        if (error.outcome === "unknown") this.#unknown.add(value);
        else this.refused.push(error);
      }
    }
  }

  /** Resolves once so many more writes were acknowledged. */
  async progress(count: number, withinMs = 120_000): Promise<void> {
    const goal = this.#acked.size + count, deadline = performance.now() + withinMs;
    while (this.#acked.size < goal) {
      if (performance.now() > deadline) {
        throw new Error(`Only ${this.#acked.size} of ${goal} writes within ${withinMs} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#writers);
  }

  /** Reads everything back, through `kv` or another client. */
  async check(kv: Kv = this.#kv): Promise<void> {
    const found = new Map<string, number>();
    for (const row of this.#rows) {
      let after: string | undefined;
      for (;;) {
        const page = await kv.getRow(row, {
          prefix: "v/",
          limit: 1000,
          deadlineMs: this.#deadlineMs,
          ...(after === undefined ? {} : { after }),
        });
        for (const { value } of page.cells) {
          const text = decodeText(value!);
          found.set(text, (found.get(text) ?? 0) + 1);
        }
        if (page.next === null) break;
        after = page.next;
      }
    }
    const lost = [...this.#acked].filter((value) => !found.has(value));
    assert.deepEqual(
      lost,
      [],
      `GUARANTEE BROKEN: ${lost.length} of ${this.#acked.size} acknowledged writes are lost`,
    );
    const doubled = [...found].filter(([, count]) => count > 1);
    assert.deepEqual(doubled, [], "GUARANTEE BROKEN: writes were executed more than once");
    const invented = [...found.keys()].filter((value) =>
      !this.#acked.has(value) && !this.#unknown.has(value)
    );
    assert.deepEqual(
      invented,
      [],
      "GUARANTEE BROKEN: writes that were reported as not applied are there",
    );
  }
}
