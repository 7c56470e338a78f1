/**
 * One HTTP/2 connection that carries unary gRPC calls, any number at once, for the least work a call.
 *
 * A gRPC library for Node costs most of a core at the rate at which etcd answers, which would hold
 * etcd back on a small machine. This knows only what a unary call needs:
 *
 *     to the server    HEADERS  the same bytes for each method: literals, no compression state
 *                      DATA     0, length u32 BE, message     END_STREAM
 *     from it          HEADERS  not read
 *                      DATA     0, length u32 BE, message     absent when the call failed
 *                      HEADERS  trailers, not read            END_STREAM
 *
 * A failed unary call has no message, so the trailers' status need not be known to see the failure.
 * Frames of one turn leave in one write. Flow control is kept in both directions (RFC 9113, 5.2).
 */
import { joinSmall } from "./resp_connection.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7;
const WINDOW_UPDATE = 8, CONTINUATION = 9;
const END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8;
const INITIAL_WINDOW = 4;
const MAX_FRAME_SIZE = 5;
/** What we allow the server to send ahead, each stream and altogether. */
const OUR_WINDOW = 2 ** 30;
const READ_BYTES = 256 * 1024;
/** Streams are numbered with odd numbers below 2^31: enough for a billion calls. */
const encoder = new TextEncoder();

interface Call {
  readonly waiting: PromiseWithResolvers<Uint8Array>;
  /** The request's bytes that flow control has not let go yet. */
  unsent: Uint8Array | null;
  window: number;
  readonly received: Uint8Array[];
}

export class GrpcConnection {
  readonly #conn: Deno.TcpConn;
  readonly #authority: string;
  readonly #headers = new Map<string, Uint8Array>();
  readonly #calls = new Map<number, Call>();
  #lastStream = -1;
  #outgoing: Uint8Array[] = [];
  #writing = false;
  #window = 65_535;
  #streamWindow = 65_535;
  #frameBytesMax = 16_384;
  /** Received since the connection's window was last opened again. */
  #consumed = 0;
  #rest = new Uint8Array(0);
  #failure: Error | null = null;

  private constructor(conn: Deno.TcpConn, authority: string) {
    this.#conn = conn;
    this.#authority = authority;
    conn.setNoDelay(true);
    const settings = new Uint8Array(6), view = new DataView(settings.buffer);
    view.setUint16(0, INITIAL_WINDOW);
    view.setUint32(2, OUR_WINDOW);
    this.#send(encoder.encode(PREFACE));
    this.#send(frame(SETTINGS, 0, 0, settings));
    this.#send(windowUpdate(OUR_WINDOW - 65_535));
    void this.#readAll();
  }

  static async connect(port: number): Promise<GrpcConnection> {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    return new GrpcConnection(conn, `127.0.0.1:${port}`);
  }

  /**
   * @param path as in `/etcdserverpb.KV/Put`
   * @returns the answer's message
   * @throws when the call failed or the connection ended
   */
  call(path: string, message: Uint8Array): Promise<Uint8Array> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const stream = this.#lastStream += 2;
    const waiting = Promise.withResolvers<Uint8Array>();
    const body = new Uint8Array(5 + message.length);
    new DataView(body.buffer).setUint32(1, message.length);
    body.set(message, 5);
    const call: Call = { waiting, unsent: body, window: this.#streamWindow, received: [] };
    this.#calls.set(stream, call);
    this.#send(frame(HEADERS, END_HEADERS, stream, this.#headersOf(path)));
    this.#sendBody(stream, call);
    return waiting.promise;
  }

  close(): void {
    this.#fail(new Error("The connection was closed"));
  }

  #headersOf(path: string): Uint8Array {
    let block = this.#headers.get(path);
    if (block === undefined) {
      block = encodeHeaders([
        [":method", "POST"],
        [":scheme", "http"],
        [":path", path],
        [":authority", this.#authority],
        ["content-type", "application/grpc"],
        ["te", "trailers"],
      ]);
      this.#headers.set(path, block);
    }
    return block;
  }

  #sendBody(stream: number, call: Call): void {
    while (call.unsent !== null) {
      const { unsent } = call;
      const count = Math.min(unsent.length, call.window, this.#window, this.#frameBytesMax);
      if (count <= 0) return;
      const isLast = count === unsent.length;
      call.window -= count;
      this.#window -= count;
      call.unsent = isLast ? null : unsent.subarray(count);
      this.#send(frame(DATA, isLast ? END_STREAM : 0, stream, unsent.subarray(0, count)));
    }
  }

  #send(bytes: Uint8Array): void {
    this.#outgoing.push(bytes);
    if (this.#writing) return;
    this.#writing = true;
    queueMicrotask(() => void this.#writeAll());
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#outgoing.length > 0) {
        for (const bytes of joinSmall(this.#outgoing.splice(0))) {
          for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
        }
      }
    } catch (error) {
      this.#fail(error as Error);
    } finally {
      this.#writing = false;
    }
  }

  async #readAll(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (let count; (count = await this.#conn.read(buffer)) !== null;) {
        this.#take(buffer.subarray(0, count));
      }
      this.#fail(new Error("The server closed the connection"));
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #take(bytes: Uint8Array): void {
    let all = bytes;
    if (this.#rest.length > 0) {
      all = new Uint8Array(this.#rest.length + bytes.length);
      all.set(this.#rest);
      all.set(bytes, this.#rest.length);
    }
    let at = 0;
    while (all.length - at >= 9) {
      const length = all[at]! << 16 | all[at + 1]! << 8 | all[at + 2]!;
      if (all.length - at < 9 + length) break;
      const view = new DataView(all.buffer, all.byteOffset + at, 9 + length);
      this.#receive({
        type: all[at + 3]!,
        flags: all[at + 4]!,
        stream: view.getUint32(5) & 0x7fffffff,
        payload: all.subarray(at + 9, at + 9 + length),
      });
      at += 9 + length;
    }
    this.#rest = all.slice(at);
  }

  #receive({ type, flags, stream, payload }: ReceivedFrame): void {
    switch (type) {
      case DATA:
        this.#consumed += payload.length;
        if (this.#consumed > OUR_WINDOW / 4) {
          this.#send(windowUpdate(this.#consumed));
          this.#consumed = 0;
        }
        if (flags & PADDED) throw new Error("The server pads its frames");
        this.#calls.get(stream)?.received.push(payload.slice());
        break;
      case RST_STREAM:
        return this.#settle(stream, new Error("The server cancelled the call"));
      case SETTINGS:
        if (!(flags & ACK)) this.#adopt(payload);
        return;
      case PING:
        if (!(flags & ACK)) this.#send(frame(PING, ACK, 0, payload.slice()));
        return;
      case WINDOW_UPDATE:
        return this.#openWindow(stream, viewOf(payload).getUint32(0));
      case GOAWAY:
        throw new Error("The server ends the connection");
      case HEADERS:
      case CONTINUATION:
        break;
    }
    if (flags & END_STREAM && (type === DATA || type === HEADERS)) this.#settle(stream, null);
  }

  #adopt(settings: Uint8Array): void {
    const view = viewOf(settings);
    for (let at = 0; at + 6 <= settings.length; at += 6) {
      const id = view.getUint16(at), value = view.getUint32(at + 2);
      if (id === MAX_FRAME_SIZE) this.#frameBytesMax = value;
      if (id !== INITIAL_WINDOW) continue;
      for (const call of this.#calls.values()) call.window += value - this.#streamWindow;
      this.#streamWindow = value;
    }
    this.#send(frame(SETTINGS, ACK, 0, new Uint8Array(0)));
    for (const [stream, call] of this.#calls) this.#sendBody(stream, call);
  }

  #openWindow(stream: number, bytes: number): void {
    if (stream === 0) {
      this.#window += bytes;
      for (const [id, call] of this.#calls) {
        if (this.#window <= 0) return;
        if (call.unsent !== null) this.#sendBody(id, call);
      }
      return;
    }
    const call = this.#calls.get(stream);
    if (call === undefined) return;
    call.window += bytes;
    this.#sendBody(stream, call);
  }

  #settle(stream: number, error: Error | null): void {
    const call = this.#calls.get(stream);
    if (call === undefined) return;
    this.#calls.delete(stream);
    if (error !== null) return call.waiting.reject(error);
    const body = concat(call.received);
    if (body.length >= 5) call.waiting.resolve(body.subarray(5));
    else call.waiting.reject(new Error("The server refused the call"));
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    try {
      this.#conn.close();
    } catch {
      // It is closed already.
    }
    for (const { waiting } of this.#calls.values()) waiting.reject(error);
    this.#calls.clear();
  }
}

interface ReceivedFrame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Uint8Array;
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(9 + payload.length);
  bytes[0] = payload.length >> 16;
  bytes[1] = payload.length >> 8;
  bytes[2] = payload.length;
  bytes[3] = type;
  bytes[4] = flags;
  viewOf(bytes).setUint32(5, stream);
  bytes.set(payload, 9);
  return bytes;
}

function windowUpdate(bytes: number): Uint8Array {
  const payload = new Uint8Array(4);
  viewOf(payload).setUint32(0, bytes);
  return frame(WINDOW_UPDATE, 0, 0, payload);
}

/** HPACK literals without indexing and without Huffman codes (RFC 7541, 6.2.2): no state at all. */
function encodeHeaders(headers: readonly (readonly [name: string, value: string])[]): Uint8Array {
  const bytes: number[] = [];
  for (const pair of headers) {
    bytes.push(0);
    for (const text of pair) {
      if (text.length > 126) throw new Error(`A header is too long: ${text}`);
      bytes.push(text.length, ...encoder.encode(text));
    }
  }
  return new Uint8Array(bytes);
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
