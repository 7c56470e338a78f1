/**
 * The body of a large request, piece by piece.
 *
 * Every piece lies in the same buffer and is gone with the next one: a fresh buffer for each makes
 * an upload's garbage pile up to a hundred megabytes before it is collected.
 */

const BUFFER_BYTES = 64 * 1024;

/** Whoever takes a piece must be done with it before asking for the next. */
export async function* requestPieces(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const reader = byteReader(body);
  if (reader === null) return yield* body;
  let buffer = new ArrayBuffer(BUFFER_BYTES);
  try {
    for (;;) {
      const read = await reader.read(new Uint8Array(buffer));
      if (read.value === undefined || read.done) return;
      yield read.value;
      buffer = read.value.buffer;
    }
  } finally {
    // What was not read is not wanted: this also ends a request whose sender would go on.
    await reader.cancel().catch(() => {});
  }
}

/** Null for a stream that was made by hand and does not fill buffers. */
function byteReader(body: ReadableStream<Uint8Array>): ReadableStreamBYOBReader | null {
  try {
    return body.getReader({ mode: "byob" });
  } catch {
    return null;
  }
}
