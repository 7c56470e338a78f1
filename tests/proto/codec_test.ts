import assert from "node:assert/strict";
import fc from "fast-check";
import {
  encodeFrame,
  encodeLine,
  type Frame,
  FrameDecoder,
  FrameError,
  type FrameErrorCode,
  joinLines,
} from "../../proto/codec.ts";

const LIMITS = { lineBytesMax: 100, payloadBytesMax: 1000 };

Deno.test("FrameDecoder gives the same frames wherever the stream is cut in two", () => {
  const frames = [
    { line: { id: 1, m: "put", b: { row: "ä🎈" } }, payload: bytes("raw\nbytes") },
    { line: { re: 1, b: null }, payload: bytes("") },
    { line: { id: 2, m: "get", b: {} }, payload: new Uint8Array(300).fill(10) },
    { line: { ping: 1 }, payload: bytes("") },
  ];
  const stream = concat(frames.flatMap(({ line, payload }) => encodeFrame(line, payload)));
  for (let cut = 0; cut <= stream.length; cut++) {
    const decoder = new FrameDecoder();
    const got = [
      ...feed(decoder, stream.slice(0, cut)),
      ...feed(decoder, stream.slice(cut)),
    ];
    assert.deepEqual(got.map(withoutBytes), frames);
    assert.ok(decoder.atBoundary);
  }
});

Deno.test("FrameDecoder gives any frames back, cut into any pieces", () => {
  const anyFrame = fc.record({
    line: fc.dictionary(
      fc.string().filter((key) => !["bytes", "all", "__proto__"].includes(key)),
      json(),
    ),
    payload: fc.uint8Array({ maxLength: 5000 }),
  });
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1 }),
      (frames, sizes) => {
        const stream = concat(frames.flatMap(({ line, payload }) => encodeFrame(line, payload)));
        const decoder = new FrameDecoder();
        const got: Frame[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const size = sizes[i % sizes.length]!;
          got.push(...feed(decoder, stream.slice(at, at + size)));
          at += size;
        }
        assert.deepEqual(
          got.map(withoutBytes),
          frames.map(({ line, payload }) => ({ line: JSON.parse(JSON.stringify(line)), payload })),
        );
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("FrameDecoder gives frames that share a line one by one, wherever the stream is cut", () => {
  const frames = [
    { line: { id: 1, m: "put", bytes: 3 }, payload: bytes("abc") },
    { line: { re: 7, b: null }, payload: bytes("") },
    { line: { re: 8, b: { row: "ä🎈" }, bytes: 4 }, payload: bytes("d\nef") },
    { line: { m: "note", bytes: 1 }, payload: bytes("g") },
  ];
  const line = joinLines(frames.map(({ line }) => encodeLine(line)), 8);
  const after = { line: { ping: 1 }, payload: bytes("") };
  const stream = concat([
    bytes(`${line}\n`),
    ...frames.map(({ payload }) => payload),
    bytes('{"ping":1}\n'),
  ]);
  for (let cut = 0; cut <= stream.length; cut++) {
    const decoder = new FrameDecoder();
    const got = [
      ...feed(decoder, stream.slice(0, cut)),
      ...feed(decoder, stream.slice(cut)),
    ];
    assert.deepEqual(got.map(({ line, payload }) => ({ line, payload: payload.slice() })), [
      ...frames,
      after,
    ]);
    assert.ok(decoder.atBoundary);
    // Only what a request brings may lie in a buffer with others.
    for (const { line, payload } of got.filter(({ line }) => line.id === undefined)) {
      assert.equal(payload.buffer.byteLength, payload.length, JSON.stringify(line));
    }
  }
});

Deno.test("FrameDecoder refuses a shared line whose parts do not add up", () => {
  for (
    const line of [
      '{"all":1}',
      '{"all":[]}',
      '{"all":[1]}',
      '{"all":[null]}',
      '{"all":[[]]}',
      '{"all":[{"all":[{"ping":1}]}]}',
      '{"all":[{"ping":1,"bytes":1}]}',
      '{"all":[{"ping":1,"bytes":-1}]}',
      '{"all":[{"ping":1,"bytes":"1"}],"bytes":1}',
      '{"all":[{"ping":1}],"bytes":1}',
    ]
  ) {
    assertFails("bad_message", () => feed(new FrameDecoder(LIMITS), bytes(`${line}\nxxxx`)));
  }
});

Deno.test("FrameDecoder takes any garbage without another error than FrameError", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 }), (chunks) => {
      const decoder = new FrameDecoder(LIMITS);
      try {
        for (const chunk of chunks) feed(decoder, chunk);
      } catch (error) {
        assert.ok(error instanceof FrameError);
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("FrameDecoder lets the socket fill a payload in place", () => {
  const decoder = new FrameDecoder();
  const [line, payload] = encodeFrame({ m: "put" }, bytes("0123456789"));
  decoder.push(concat([line!, payload!.subarray(0, 4)]));
  assert.equal(decoder.next(), null);
  const space = decoder.payloadSpace()!;
  assert.equal(space.length, 6);
  space.set(payload!.subarray(4));
  decoder.filled(6);
  const frame = decoder.next()!;
  assert.equal(text(frame.payload), "0123456789");
  assert.equal(frame.payload.buffer, space.buffer);
  assert.equal(decoder.payloadSpace(), null);
  assert.equal(decoder.next(), null);
});

Deno.test("FrameDecoder does not refer to the pushed array once it is drained", () => {
  const decoder = new FrameDecoder();
  const buffer = bytes('{"m":"a');
  assert.deepEqual(feed(decoder, buffer), []);
  buffer.fill(0);
  assert.deepEqual(feed(decoder, bytes('b"}\n')).map(withoutBytes), [{
    line: { m: "ab" },
    payload: bytes(""),
  }]);
});

Deno.test("FrameDecoder refuses a line that is too long before it has ended", () => {
  const decoder = new FrameDecoder(LIMITS);
  assert.deepEqual(feed(decoder, new Uint8Array(100).fill(0x20)), []);
  assertFails("line_too_long", () => feed(decoder, bytes(" ")));
  assertFails("line_too_long", () => decoder.next());
});

Deno.test("FrameDecoder takes a line of exactly the limit", () => {
  const line = JSON.stringify({ m: "x".repeat(92) });
  assert.equal(line.length, 100);
  assert.equal(feed(new FrameDecoder(LIMITS), bytes(line + "\n")).length, 1);
});

Deno.test("FrameDecoder refuses what is not an object of JSON in UTF-8", () => {
  for (const line of ["", "{", "nonsense", "GET / HTTP/1.1", '{"a":"\xff', '{"a":1}{"b":2}']) {
    assertFails("broken_json", () => feed(new FrameDecoder(LIMITS), bytes(line + "\n")));
  }
  const notUtf8 = concat([bytes('{"a":"'), new Uint8Array([0xc3, 0x28]), bytes('"}\n')]);
  assertFails("broken_json", () => feed(new FrameDecoder(LIMITS), notUtf8));
  for (const line of ["[]", "1", "null", '"text"']) {
    assertFails("bad_message", () => feed(new FrameDecoder(LIMITS), bytes(line + "\n")));
  }
});

Deno.test("FrameDecoder refuses a payload size that is no size, or over the limit", () => {
  for (const size of ["-1", "1.5", '"5"', "null", "[]", "1e400", "9007199254740993"]) {
    const line = bytes(`{"bytes":${size}}\n`);
    assertFails("bad_message", () => feed(new FrameDecoder(LIMITS), line));
  }
  assertFails(
    "payload_too_large",
    () => feed(new FrameDecoder(LIMITS), bytes('{"bytes":1001}\n')),
  );
});

Deno.test("FrameDecoder reads a line that comes byte by byte in linear time", () => {
  const decoder = new FrameDecoder();
  const line = bytes(JSON.stringify({ m: "x".repeat(1_000_000) }) + "\n");
  const start = performance.now();
  let got = 0;
  for (let i = 0; i < line.length; i++) got += feed(decoder, line.subarray(i, i + 1)).length;
  assert.equal(got, 1);
  // In quadratic time it would be hours.
  assert.ok(performance.now() - start < 60_000);
});

Deno.test("encodeFrame() passes the payload's arrays through without copying", () => {
  const parts = [bytes("one"), bytes(""), bytes("two")];
  const frame = encodeFrame({ m: "put" }, parts);
  assert.equal(text(frame[0]!), '{"m":"put","bytes":6}\n');
  assert.equal(frame[1], parts[0]);
  assert.equal(frame[2], parts[2]);
  assert.equal(frame.length, 3);
});

function feed(decoder: FrameDecoder, chunk: Uint8Array): Frame[] {
  const frames: Frame[] = [];
  decoder.push(chunk);
  for (let frame; (frame = decoder.next()) !== null;) frames.push(frame);
  return frames;
}

function withoutBytes({ line, payload }: Frame): Frame {
  const { bytes: _, ...rest } = line;
  return { line: rest, payload };
}

function assertFails(code: FrameErrorCode, run: () => unknown): void {
  assert.throws(run, (error) => error instanceof FrameError && error.code === code);
}

function json() {
  return fc.jsonValue({ maxDepth: 2 });
}

function bytes(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function text(value: Uint8Array): string {
  return new TextDecoder().decode(value);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
