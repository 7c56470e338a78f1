/**
 * The workloads are judges, so they are judged here: over a store that keeps its promises they find
 * nothing, and over one that breaks a promise in one place they say so.
 */
import assert from "node:assert/strict";
import type { FullCell, Kv, RowOp, RowResult } from "../../kv/kv.ts";
import { KvError } from "../../kv/errors.ts";
import { MemoryKv } from "../../kv/memory_kv.ts";
import { SeededRandom } from "../sim/seeded_random.ts";
import { Appends } from "./appends.ts";
import { Counters } from "./counters.ts";
import { Registers, SMALL_VALUES } from "./registers.ts";
import { Tally } from "./tally.ts";
import type { Workload, WorkloadContext } from "./workload.ts";

const RUN_MS = 900;

/** A store that does what `tamper` says instead of what it should, where that says anything. */
class TamperedKv implements Kv {
  readonly honest = new MemoryKv();
  #count = 0;

  constructor(
    readonly tamper: {
      apply?: (op: RowOp, count: number, honest: Kv) => Promise<RowResult> | null;
      get?: (row: string, column: string, honest: Kv) => Promise<FullCell | null> | null;
    } = {},
  ) {}

  async apply(op: RowOp): Promise<RowResult> {
    return await (this.tamper.apply?.(op, ++this.#count, this.honest) ?? this.honest.apply(op));
  }

  async get(row: string, column: string): Promise<FullCell | null> {
    return await (this.tamper.get?.(row, column, this.honest) ?? this.honest.get(row, column));
  }

  getRow(row: string, options?: Parameters<Kv["getRow"]>[1]) {
    return this.honest.getRow(row, options);
  }

  transact(ops: readonly RowOp[]) {
    return this.honest.transact(ops);
  }

  scan(options: Parameters<Kv["scan"]>[0]) {
    return this.honest.scan(options);
  }
}

interface Tried {
  readonly problems: readonly string[];
  readonly kept: readonly string[];
}

/** Lets the workload work on `kv` for a moment, and asks what it found. */
async function tryOut(make: (context: WorkloadContext) => Workload, kv: Kv): Promise<Tried> {
  const kept: string[] = [];
  const workload = make({
    clients: [kv, kv],
    groups: [{ id: 1, startKey: "", endKey: null, members: [0] }],
    random: new SeededRandom(1),
    tally: new Tally(),
    door: "",
    askReplica: ({ row, column }) => kv.get(row, column),
    onHistory: () => {},
    keep: (name) => kept.push(name),
  });
  const stop = new AbortController();
  const running = workload.run(stop.signal);
  await new Promise((resolve) => setTimeout(resolve, RUN_MS));
  stop.abort();
  await running;
  return { problems: await workload.check(kv), kept };
}

const WORKLOADS: Readonly<Record<string, (context: WorkloadContext) => Workload>> = {
  appends: (context) => new Appends(context),
  counters: (context) => new Counters(context),
  registers: (context) => new Registers(context, { ...SMALL_VALUES, breathMs: 5 }),
};

for (const [name, make] of Object.entries(WORKLOADS)) {
  Deno.test(`${name} find nothing wrong with a store that keeps its promises`, async () => {
    assert.deepEqual((await tryOut(make, new TamperedKv())).problems, []);
  });

  Deno.test(`${name} find nothing wrong with writes of unknown end, executed or not`, async () => {
    const kv = new TamperedKv({
      apply: (op, count, honest) => {
        if (count % 5 !== 3) return null;
        const done = count % 2 === 0 ? honest.apply(op) : Promise.resolve();
        return done.then(() => {
          throw new KvError("outcome_unknown", "no answer");
        });
      },
    });
    assert.deepEqual((await tryOut(make, kv)).problems, []);
  });

  Deno.test(`${name} find a write that was executed twice`, async () => {
    const kv = new TamperedKv({
      apply: (op, count, honest) =>
        count % 4 === 0 ? honest.apply(op).then(() => honest.apply(op)) : null,
    });
    assert.notDeepEqual((await tryOut(make, kv)).problems, []);
  });

  Deno.test(`${name} find an acknowledged write that is lost`, async () => {
    const kv = new TamperedKv({
      apply: (op, count, honest) => {
        if (count !== 4) return null;
        const elsewhere = new MemoryKv();
        // Answered as if it had been the next write of the row, and forgotten.
        return copyRow(honest, elsewhere, op.row).then(() => elsewhere.apply(op));
      },
    });
    assert.notDeepEqual((await tryOut(make, kv)).problems, []);
  });

  Deno.test(`${name} find a write that was reported as not executed, and was`, async () => {
    const kv = new TamperedKv({
      apply: (op, count, honest) =>
        count % 4 !== 0 ? null : honest.apply(op).then(() => {
          throw new KvError("unavailable", "not executed, says the store");
        }),
    });
    assert.notDeepEqual((await tryOut(make, kv)).problems, []);
  });
}

async function copyRow(from: Kv, to: Kv, row: string): Promise<void> {
  const { cells } = await from.getRow(row, { limit: 1000 });
  for (const { column, value } of cells) {
    await to.apply({ row, mutations: [{ kind: "put", column, value: value! }] });
  }
}

Deno.test("registers find a read from the past, and keep the row's history as evidence", async () => {
  const past = new Map<string, FullCell | null>();
  let count = 0;
  const kv = new TamperedKv({
    get: (row, column, honest) => {
      const key = `${row}/${column}`;
      return honest.get(row, column).then((cell) => {
        const old = past.get(key);
        if (old === undefined) past.set(key, cell);
        return old !== undefined && ++count === 5 ? old : cell;
      });
    },
  });
  const { problems, kept } = await tryOut(WORKLOADS.registers!, kv);
  assert.match(problems[0] ?? "", /not linearizable/);
  assert.equal(kept.length, 1);
});

Deno.test("registers find a row that changes after it was judged", async () => {
  const kv = new TamperedKv();
  const make = (context: WorkloadContext): Workload => {
    const registers = new Registers(context, { ...SMALL_VALUES, breathMs: 2 });
    return {
      name: registers.name,
      run: (stop) => registers.run(stop),
      describe: () => registers.describe(),
      check: async (kv) => {
        await registers.settle(kv);
        const value = new TextEncoder().encode("changed");
        await kv.apply({ row: "a-reg-1", mutations: [{ kind: "put", column: "a", value }] });
        return await registers.check(kv);
      },
    };
  };
  const { problems } = await tryOut(make, kv);
  assert.match(problems.join("\n"), /a-reg-1: held .* when it was judged, and holds a@.*=changed/);
});
