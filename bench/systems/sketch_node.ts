/**
 * A bare sketch of a replicated write path, run as a program: what newline JSON, zod and one fsync a
 * batch cost on three nodes before any guarantee is paid for. No routing, no epochs, no duplicate
 * suppression, no checksums, no checkpoints, no bound on memory: a yardstick, not a store.
 *
 * Arguments: the log's path, then the ports of the secondaries (none: this is one). Prints its port.
 */
import { z } from "zod";

const Put = z.object({ k: z.literal("put"), id: z.int(), key: z.string(), value: z.string() });
const Get = z.object({ k: z.literal("get"), id: z.int(), key: z.string() });
const Append = z.object({
  k: z.literal("append"),
  lsn: z.int(),
  entries: z.array(z.object({ key: z.string(), value: z.string() })),
});
const Message = z.discriminatedUnion("k", [Put, Get, Append]);
const Ack = z.object({ lsn: z.int() });
const READ_BYTES = 256 * 1024;
const encoder = new TextEncoder();

async function serve(path: string, secondaryPorts: readonly number[]): Promise<void> {
  const log = Deno.openSync(path, { write: true, create: true });
  const rows = new Map<string, string>();
  const primary = new Primary(log, rows);
  for (const port of secondaryPorts) primary.add(await Deno.connect({ port }));
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  console.log(listener.addr.port);
  for await (const conn of listener) {
    conn.setNoDelay(true);
    void eachRead(conn, (lines) => {
      let answers = "";
      for (const line of lines) {
        const message = Message.parse(JSON.parse(line));
        if (message.k === "put") primary.put(conn, message);
        else if (message.k === "get") answers += getAnswer(rows, message);
        else {
          store(log, rows, message.entries);
          answers += `{"lsn":${message.lsn}}\n`;
        }
      }
      if (answers !== "") void writeAll(conn, answers);
      primary.flush();
    });
  }
}

type PutMessage = z.infer<typeof Put>;
type Entries = z.infer<typeof Append>["entries"];

interface Batch {
  readonly lsn: number;
  readonly puts: readonly { readonly conn: Deno.TcpConn; readonly put: PutMessage }[];
  missing: number;
}

/** One batch under way at a time: what comes meanwhile makes up the next. */
class Primary {
  readonly #log: Deno.FsFile;
  readonly #rows: Map<string, string>;
  readonly #secondaries: Deno.TcpConn[] = [];
  #waiting: { conn: Deno.TcpConn; put: PutMessage }[] = [];
  #batch: Batch | null = null;
  #lsn = 0;

  constructor(log: Deno.FsFile, rows: Map<string, string>) {
    this.#log = log;
    this.#rows = rows;
  }

  add(conn: Deno.TcpConn): void {
    conn.setNoDelay(true);
    this.#secondaries.push(conn);
    void eachRead(conn, (lines) => {
      for (const line of lines) this.#acked(Ack.parse(JSON.parse(line)).lsn);
    });
  }

  put(conn: Deno.TcpConn, put: PutMessage): void {
    this.#waiting.push({ conn, put });
  }

  flush(): void {
    if (this.#batch !== null || this.#waiting.length === 0) return;
    const puts = this.#waiting;
    this.#waiting = [];
    this.#batch = { lsn: ++this.#lsn, puts, missing: this.#secondaries.length + 1 };
    const entries = puts.map(({ put: { key, value } }) => ({ key, value }));
    const line = JSON.stringify({ k: "append", lsn: this.#lsn, entries }) + "\n";
    for (const secondary of this.#secondaries) void writeAll(secondary, line);
    store(this.#log, this.#rows, entries);
    this.#acked(this.#lsn);
  }

  #acked(lsn: number): void {
    const batch = this.#batch;
    if (batch === null || batch.lsn !== lsn || --batch.missing > 0) return;
    this.#batch = null;
    const answers = new Map<Deno.TcpConn, string>();
    for (const { conn, put: { id } } of batch.puts) {
      answers.set(conn, `${answers.get(conn) ?? ""}{"id":${id},"ok":true}\n`);
    }
    for (const [conn, text] of answers) void writeAll(conn, text);
    this.flush();
  }
}

function store(log: Deno.FsFile, rows: Map<string, string>, entries: Entries): void {
  log.writeSync(encoder.encode(JSON.stringify(entries) + "\n"));
  log.syncDataSync();
  for (const { key, value } of entries) rows.set(key, value);
}

function getAnswer(rows: ReadonlyMap<string, string>, { id, key }: z.infer<typeof Get>): string {
  return `${JSON.stringify({ id, value: rows.get(key) ?? null })}\n`;
}

/** Calls back with the whole lines that each read brought. */
export async function eachRead(
  conn: Deno.TcpConn,
  take: (lines: readonly string[]) => void,
): Promise<void> {
  const buffer = new Uint8Array(READ_BYTES), decoder = new TextDecoder();
  let rest = "";
  for (let count; (count = await conn.read(buffer)) !== null;) {
    const lines = (rest + decoder.decode(buffer.subarray(0, count), { stream: true })).split("\n");
    rest = lines.pop()!;
    take(lines);
  }
}

export async function writeAll(conn: Deno.TcpConn, text: string): Promise<void> {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

if (import.meta.main) {
  const [path, ...ports] = Deno.args;
  await serve(path!, ports.map(Number));
}
