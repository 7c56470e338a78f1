import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { compareKeys, inRange, prefixEnd } from "../../kv/key_order.ts";

const key = () =>
  fc.string({
    unit: fc.constantFrom("a", "b", "/", "\u00e9", "\ud7ff", "\uffee", "\u{10000}", "\u{10ffff}"),
  });

Deno.test("compareKeys() orders as the bytes of UTF-8 do", () => {
  fc.assert(fc.property(key(), key(), (a, b) => {
    assert.equal(Math.sign(compareKeys(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
  }));
});

Deno.test("prefixEnd() is the first key behind all that begin with the prefix", () => {
  fc.assert(fc.property(key(), key(), (prefix, other) => {
    const end = prefixEnd(prefix);
    assert(inRange(prefix + other, prefix, end));
    if (end !== null && compareKeys(other, end) < 0 && compareKeys(other, prefix) >= 0) {
      assert(other.startsWith(prefix), `"${other}" lies between "${prefix}" and "${end}"`);
    }
  }));
});
