/**
 * A connection that speaks Redis's protocol (RESP2), pipelined: commands leave in one write a turn,
 * answers come back in their order.
 *
 * Answers are only looked at as far as the load needs: the length of a bulk string, the count of an
 * array, a number, a status. Bytes of values are skipped, not copied.
 */

/** Bulk strings give their length, arrays their items. Null: there is no value. */
export type RespAnswer = number | string | null | readonly RespAnswer[];

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const CR = 13;
/** A command's arguments above this size are written by themselves, without a copy. */
const JOINED_BYTES_MAX = 16 * 1024;
const READ_BYTES = 256 * 1024;

export class RespConnection {
  readonly #conn: Deno.TcpConn;
  #outgoing: Uint8Array[] = [];
  #writing = false;
  readonly #waiting: PromiseWithResolvers<RespAnswer>[] = [];
  readonly #parser = new RespParser();
  #failure: Error | null = null;

  private constructor(conn: Deno.TcpConn) {
    this.#conn = conn;
    conn.setNoDelay(true);
    void this.#readAll();
  }

  static async connect(port: number): Promise<RespConnection> {
    return new RespConnection(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  /** Rejects when the server answers with an error. */
  call(args: readonly (string | Uint8Array)[]): Promise<RespAnswer> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const waiting = Promise.withResolvers<RespAnswer>();
    this.#waiting.push(waiting);
    this.#outgoing.push(...encodeCommand(args));
    if (!this.#writing) {
      this.#writing = true;
      queueMicrotask(() => void this.#writeAll());
    }
    return waiting.promise;
  }

  close(): void {
    this.#fail(new Error("The connection was closed"));
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
        this.#parser.push(buffer.subarray(0, count));
        for (let answer; (answer = this.#parser.next()) !== undefined;) {
          const waiting = this.#waiting.shift();
          if (waiting === undefined) throw new Error("Redis answered what nobody asked");
          if (answer instanceof Error) waiting.reject(answer);
          else waiting.resolve(answer);
        }
      }
      this.#fail(new Error("Redis closed the connection"));
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    try {
      this.#conn.close();
    } catch {
      // It is closed already.
    }
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

export function encodeCommand(args: readonly (string | Uint8Array)[]): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let text = `*${args.length}\r\n`;
  for (const arg of args) {
    if (typeof arg === "string") {
      text += `$${encoder.encode(arg).length}\r\n${arg}\r\n`;
    } else {
      parts.push(encoder.encode(`${text}$${arg.length}\r\n`), arg);
      text = "\r\n";
    }
  }
  parts.push(encoder.encode(text));
  return parts;
}

/** Small neighbours become one array, so that a turn's commands are one write. */
export function joinSmall(parts: readonly Uint8Array[]): Uint8Array[] {
  const joined: Uint8Array[] = [];
  let run: Uint8Array[] = [], runBytes = 0;
  const endRun = () => {
    if (run.length === 0) return;
    const bytes = new Uint8Array(runBytes);
    let at = 0;
    for (const part of run) {
      bytes.set(part, at);
      at += part.length;
    }
    joined.push(bytes);
    run = [];
    runBytes = 0;
  };
  for (const part of parts) {
    if (part.length > JOINED_BYTES_MAX) {
      endRun();
      joined.push(part);
    } else {
      run.push(part);
      runBytes += part.length;
    }
  }
  endRun();
  return joined;
}

/** Answers out of a stream of bytes that is cut anywhere. */
export class RespParser {
  #rest: Uint8Array = new Uint8Array(0);
  /** Bytes of a value, and the line break behind it, that are still to be skipped. */
  #skip = 0;
  /** The length of the value that is being skipped. */
  #bulk = 0;
  /** Arrays that are not full yet, outermost first. */
  readonly #open: { readonly items: RespAnswer[]; readonly count: number }[] = [];

  push(bytes: Uint8Array): void {
    if (this.#rest.length === 0) {
      this.#rest = bytes.slice();
      return;
    }
    const both = new Uint8Array(this.#rest.length + bytes.length);
    both.set(this.#rest);
    both.set(bytes, this.#rest.length);
    this.#rest = both;
  }

  /** The next whole answer; undefined when more bytes are needed. */
  next(): RespAnswer | Error | undefined {
    for (;;) {
      let item: RespAnswer | Error | undefined;
      if (this.#skip > 0) {
        const count = Math.min(this.#skip, this.#rest.length);
        this.#rest = this.#rest.subarray(count);
        this.#skip -= count;
        if (this.#skip > 0) return undefined;
        item = this.#bulk;
      } else {
        const line = this.#takeLine();
        if (line === undefined) return undefined;
        item = this.#readLine(line);
        if (item === undefined) continue;
      }
      if (item instanceof Error) return item;
      const whole = this.#close(item);
      if (whole !== undefined) return whole;
    }
  }

  #takeLine(): string | undefined {
    const end = this.#rest.indexOf(CR);
    if (end === -1 || end + 1 >= this.#rest.length) return undefined;
    const line = decoder.decode(this.#rest.subarray(0, end));
    this.#rest = this.#rest.subarray(end + 2);
    return line;
  }

  /** Undefined: it only began something. */
  #readLine(line: string): RespAnswer | Error | undefined {
    const rest = line.slice(1);
    switch (line[0]) {
      case "+":
        return rest;
      case "-":
        return new Error(`Redis answered: ${rest}`);
      case ":":
        return Number(rest);
      case "$":
        if (rest === "-1") return null;
        this.#bulk = Number(rest);
        this.#skip = this.#bulk + 2;
        return undefined;
      case "*":
        if (rest === "-1") return null;
        if (rest === "0") return [];
        this.#open.push({ items: [], count: Number(rest) });
        return undefined;
      default:
        throw new Error(`Redis answered with a line that is none: ${line.slice(0, 40)}`);
    }
  }

  /** Puts an item where it belongs; gives the outermost answer once that is whole. */
  #close(item: RespAnswer): RespAnswer | undefined {
    for (;;) {
      const array = this.#open.at(-1);
      if (array === undefined) return item;
      array.items.push(item);
      if (array.items.length < array.count) return undefined;
      this.#open.pop();
      item = array.items;
    }
  }
}
