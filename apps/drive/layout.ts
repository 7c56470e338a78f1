/**
 * Brings drives over that were written before the store had transactions: then all cells of a drive
 * lay in the tree row. Their names are the same, so each only moves to the row that `rowOf` names.
 *
 * It is done before anything else touches the drive, once in a process's life for each user, and costs
 * three empty reads when there is nothing to do. Cells move in batches, each one transaction, so a
 * crash leaves every cell in exactly one place and the next process goes on; two at once do no harm.
 */
import { type Condition, type Kv, type Mutation, ROWS_MAX } from "../../kv/kv.ts";
import { TRASH } from "./items.ts";
import { countColumn, rowOf, treeRow } from "./tree.ts";

/** Cells that used to lie in the tree row. Children last: a drive that lists them is complete. */
const MOVED = ["n/", "k/", "c/"];
/** Columns are at most 1 KiB and each is named three times in a batch. */
const CELLS_PER_BATCH = 40;
const USERS_REMEMBERED_MAX = 20_000;

const settled = new WeakMap<Kv, Map<string, Promise<void>>>();

export function ensureLayout(kv: Kv, user: string): Promise<void> {
  let users = settled.get(kv);
  if (users === undefined) settled.set(kv, users = new Map());
  let done = users.get(user);
  if (done === undefined) {
    if (users.size >= USERS_REMEMBERED_MAX) users.clear();
    done = moveCells(kv, user);
    users.set(user, done);
    // Whoever comes next tries again.
    done.catch(() => users.delete(user));
  }
  return done;
}

async function moveCells(kv: Kv, user: string): Promise<void> {
  const row = treeRow(user);
  for (const prefix of MOVED) {
    for (;;) {
      const page = await kv.getRow(row, { prefix, limit: CELLS_PER_BATCH });
      const cells = page.cells.filter(({ column }) => column !== countColumn(TRASH));
      if (cells.length === 0) break;
      const conditions: Condition[] = [], gone: Mutation[] = [];
      const targets = new Map<string, Mutation[]>();
      for (const { column, version, value } of cells) {
        const target = rowOf(user, column);
        if (!targets.has(target) && targets.size === ROWS_MAX - 1) break;
        conditions.push({ column, is: "version", version });
        gone.push({ kind: "delete", column });
        const puts = targets.get(target) ?? [];
        puts.push({ kind: "put", column, value: value! });
        targets.set(target, puts);
      }
      // Refused: another process moved some of them. They are not on the next page any more.
      await kv.transact([
        { row, conditions, mutations: gone },
        ...Array.from(targets, ([row, mutations]) => ({ row, mutations })),
      ]);
    }
  }
}
