/**
 * A file to and from a frontend, as a browser does it: over one connection, its length known beforehand,
 * in large pieces that nobody looks at.
 *
 * `fetch` cannot stand in for it: it sends a stream as `transfer-encoding: chunked`, which a browser
 * does with no file, and which the runtime's HTTP server takes apart at many times the cost.
 */

export interface FileRequest {
  /** `http://host:port` of the frontend. */
  readonly door: string;
  readonly path: string;
  readonly cookie: string;
}

const PIECE_BYTES = 256 * 1024;
const HEAD_BYTES_MAX = 16 * 1024;
const HEAD_END = "\r\n\r\n";

/**
 * Sends the file at `source` as the body of a PUT.
 *
 * @returns the body of the answer
 * @throws {Error} the answer was no 201
 */
export async function putFile(request: FileRequest, source: string): Promise<string> {
  using file = await Deno.open(source);
  const { size } = await file.stat();
  using conn = await openRequest("PUT", request, `content-length: ${size}\r\n`);
  const piece = new Uint8Array(PIECE_BYTES);
  for (let count; (count = await file.read(piece)) !== null;) {
    await writeWhole(conn, piece.subarray(0, count));
  }
  const { status, rest } = await readHead(conn);
  let body = rest;
  for (let count; (count = await conn.read(piece)) !== null;) {
    body += new TextDecoder().decode(piece.subarray(0, count));
  }
  if (status !== 201) throw new Error(`The upload was refused with ${status}: ${body}`);
  return body;
}

/**
 * Asks for a file, counts the bytes and drops them.
 *
 * @throws {Error} the answer was no 200
 */
export async function getFile(request: FileRequest): Promise<number> {
  using conn = await openRequest("GET", request, "");
  const { status, restBytes } = await readHead(conn);
  if (status !== 200) throw new Error(`The download was refused with ${status}`);
  const piece = new Uint8Array(PIECE_BYTES);
  let bytes = restBytes;
  for (let count; (count = await conn.read(piece)) !== null;) bytes += count;
  return bytes;
}

async function openRequest(
  method: string,
  { door, path, cookie }: FileRequest,
  more: string,
): Promise<Deno.TcpConn> {
  const { hostname, port, host } = new URL(door);
  const conn = await Deno.connect({ hostname, port: Number(port) });
  const head = `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\ncookie: ${cookie}\r\n` +
    `accept-encoding: identity\r\nconnection: close\r\n${more}\r\n`;
  await writeWhole(conn, new TextEncoder().encode(head));
  return conn;
}

/** Reads up to the blank line; what came behind it with the same reads is `rest`. */
async function readHead(
  conn: Deno.TcpConn,
): Promise<{ status: number; rest: string; restBytes: number }> {
  const buffer = new Uint8Array(HEAD_BYTES_MAX);
  let used = 0;
  for (;;) {
    const count = await conn.read(buffer.subarray(used));
    if (count === null || count === 0) throw new Error("The frontend hung up within its answer");
    used += count;
    // One character a byte, so that places in the text are places in the buffer.
    const text = new TextDecoder("latin1").decode(buffer.subarray(0, used));
    const end = text.indexOf(HEAD_END);
    if (end === -1) continue;
    const restBytes = used - end - HEAD_END.length;
    const rest = new TextDecoder().decode(buffer.subarray(used - restBytes, used));
    return { status: Number(text.split(" ", 2)[1]), rest, restBytes };
  }
}

async function writeWhole(to: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}
