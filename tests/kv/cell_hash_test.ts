import assert from "node:assert/strict";
import { cellHash, placeHash } from "../../kv/cell_hash.ts";
import type { StoredCell } from "../../kv/cell_store.ts";
import { version } from "../../proto/ids.ts";

const cell: StoredCell = {
  row: "ab",
  column: "c",
  version: version(7),
  size: 3,
  crc: 0xdeadbeef,
  value: new Uint8Array(3),
};

const hashOf = (of: StoredCell, seed = 0) => cellHash(placeHash(of.row, of.column, seed), of);

Deno.test("cellHash() differs when any part of the cell does", () => {
  const others: Partial<StoredCell>[] = [
    { row: "a", column: "bc" },
    { row: "abc", column: "" },
    { row: "ba" },
    { column: "d" },
    { version: version(8) },
    { version: version(7 + 2 ** 32) },
    { size: 4 },
    { crc: 0xdeadbeee },
  ];
  const hashes = new Set([cell, ...others.map((other) => ({ ...cell, ...other }))].map(hashOf2));
  assert.equal(hashes.size, others.length + 1);
});

Deno.test("cellHash() of two seeds tell cells apart that one of them does not", () => {
  // Among so many cells some share 32 bits of hash, as any 32 bits would.
  const bySeed = [0, 0x9e3779b9].map((seed) => {
    const seen = new Map<number, number>(), twins: string[] = [];
    for (let at = 1; at <= 200_000; at++) {
      const hash = hashOf({ ...cell, version: version(at) }, seed);
      const before = seen.get(hash);
      if (before !== undefined) twins.push(`${before} ${at}`);
      seen.set(hash, at);
    }
    return twins;
  });
  for (const twins of bySeed) assert.ok(twins.length < 30, `${twins.length} of 200000 cells`);
  assert.deepEqual(bySeed[0]!.filter((pair) => bySeed[1]!.includes(pair)), []);
});

function hashOf2(of: StoredCell): string {
  return `${hashOf(of, 0)} ${hashOf(of, 0x9e3779b9)}`;
}
