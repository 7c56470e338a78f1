import assert from "node:assert/strict";
import { Ballast } from "../../../kv/disk/ballast.ts";

const MIB = 1024 * 1024;

Deno.test("Ballast takes up real space while there is plenty, and gives it back at once", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const ballast = await Ballast.open(dir);
    assert(ballast.bytes > 0 && ballast.bytes <= 64 * MIB);
    await ballast.restore(ballast.bytes, 0);
    assert(!ballast.isThere, "it must not be what fills the disk");
    await ballast.restore(100 * ballast.bytes, ballast.bytes);
    assert(ballast.isThere);
    const { size, blocks } = await Deno.stat(`${dir}/ballast`);
    assert.equal(size, ballast.bytes);
    assert(blocks! * 512 >= size, "without holes");
    assert((await Ballast.open(dir)).isThere, "the next process finds it");
    await ballast.release();
    await assert.rejects(Deno.stat(`${dir}/ballast`), Deno.errors.NotFound);
    await ballast.release();
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
