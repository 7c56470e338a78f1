import assert from "node:assert/strict";
import fc from "fast-check";
import { TextBuffer } from "../../kv/text_buffer.ts";

const decoder = new TextDecoder();
const anyText = () =>
  fc.oneof(
    fc.string({ unit: "binary", maxLength: 50 }),
    fc.string({ unit: "grapheme", maxLength: 50 }),
    fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 })
      .map((units) => String.fromCharCode(...units)),
  );

Deno.test("TextBuffer writes strings and whole numbers as JSON.stringify() does", () => {
  const text = new TextBuffer();
  const part = fc.oneof(anyText(), fc.maxSafeInteger(), fc.maxSafeNat(), fc.nat(1000));
  fc.assert(fc.property(fc.array(part), (parts) => {
    text.clear();
    text.add("[");
    for (const [at, each] of parts.entries()) {
      if (at > 0) text.add(",");
      if (typeof each === "string") text.addString(each);
      else text.addNumber(each);
    }
    text.add("]");
    assert.equal(decoder.decode(text.bytes), JSON.stringify(parts));
  }));
});

Deno.test("TextBuffer takes any length, and gives the room back", () => {
  const text = new TextBuffer(), long = "ü\n".repeat(100_000);
  text.addString(long).addNumber(Number.MAX_SAFE_INTEGER).addNumber(-5);
  assert.equal(decoder.decode(text.bytes), `${JSON.stringify(long)}9007199254740991-5`);
  text.clear();
  assert.equal(text.addNumber(0).length, 1);
  assert(text.bytes.buffer.byteLength < 100_000);
});
