import assert from "node:assert/strict";
import { DECISION, LOCK, STAGED_DELETE, STAGED_PUT } from "../../kv/internal_columns.ts";
import { hideSecrets } from "../../web/admin/secret_cells.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const shown = (row: string, column: string, text = "") => {
  const cell = hideSecrets({ row, column, head: bytes(text) });
  return { ...cell, head: new TextDecoder().decode(cell.head) };
};

Deno.test("raw rows show what transactions left on them in words", () => {
  assert.equal(shown("r", LOCK, `{"id":"t","anchor":"r"}`).column, "(lock)");
  assert.equal(shown("r", `${DECISION}t1`, "{}").column, "(committed: t1)");
  assert.equal(shown("r", `${STAGED_PUT}c`, "new").column, "c (to be written)");
  assert.equal(shown("r", `${STAGED_DELETE}c`).column, "c (to be deleted)");
});

Deno.test("a lock does not tell the sessions whose rows it names, wherever its value is cut", () => {
  const session = "abcdefghijklmnopqrstuvwxyz~session";
  const lock = JSON.stringify({ id: "t", anchor: session, others: ["plain", session], untilMs: 5 });
  assert.match(shown("r", LOCK, lock).head, /"plain"/);
  for (let length = 0; length <= lock.length; length++) {
    assert.doesNotMatch(shown("r", LOCK, lock.slice(0, length)).head, /abcdef/);
  }
});

Deno.test("what will be written is as secret as what is", () => {
  const column = `${STAGED_PUT}account`;
  const cell = shown("alice/account", column, `{"passwordHash":"abc"}`);
  assert.equal(cell.secret, true);
  assert.doesNotMatch(cell.head, /abc/);
});
