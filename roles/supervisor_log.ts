/**
 * The log of one supervised node: what its process writes, in a file that cannot grow for ever.
 *
 * A full file is renamed to `<name>.1` and a new one begun, so between one and two times
 * LOG_BYTES_MAX is kept. The last lines of the present process stay in memory, to say why it ended.
 */
import { dirname } from "node:path";

const LOG_BYTES_MAX = 8 * 1024 * 1024;
const LAST_LINES_MAX = 40;
const LINE_CHARACTERS_MAX = 2000;

/** What a line complains about: our own log's errors, Deno's last words, or ours on wrong use. */
export function complaintIn(line: string): string | null {
  const [, spoken] = line.match(/^(?:error: (?:Uncaught )?(?:\(in promise\) )?|penncloud: )(.+)/) ??
    [];
  if (spoken !== undefined) return spoken;
  if (!line.startsWith("{")) return null;
  try {
    const { level, event, error, message } = JSON.parse(line) as Record<string, unknown>;
    if (level !== "error") return null;
    const details = String(error ?? message ?? "").split("\n")[0]!;
    return details === "" ? String(event) : `${event}: ${details}`;
  } catch {
    return null; // cut off by the crash
  }
}

export class NodeLog {
  readonly path: string;
  #file: Deno.FsFile | null = null;
  #bytes = 0;
  #lastLines: string[] = [];
  #unfinished = "";
  #broken = false;
  readonly #decoder = new TextDecoder();

  constructor(path: string) {
    this.path = path;
  }

  /** Another process begins: what the former one said says nothing about this one. */
  forget(): void {
    this.#lastLines = [];
    this.#unfinished = "";
  }

  /** Why the process ended, by its own last words; null when it said nothing of the kind. */
  reason(): string | null {
    const lines = [...this.#lastLines, this.#unfinished];
    return lines.map(complaintIn).findLast((complaint) => complaint !== null) ?? null;
  }

  /** Takes in one of the process's outputs until it ends. */
  async copyFrom(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const bytes of stream) {
      this.#remember(bytes);
      this.#write(bytes);
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = null;
  }

  // Synchronous writes keep the lines of the two outputs whole and cost a few microseconds each.
  #write(bytes: Uint8Array): void {
    try {
      if (this.#file === null || this.#bytes > LOG_BYTES_MAX) this.#open();
      for (let rest = bytes; rest.length > 0;) {
        rest = rest.subarray(this.#file!.writeSync(rest));
      }
      this.#bytes += bytes.length;
      this.#broken = false;
    } catch (error) {
      // A full disk must not end the supervisor; its nodes go on without a log.
      if (!this.#broken) console.error(`Cannot write ${this.path}: ${(error as Error).message}`);
      this.#broken = true;
    }
  }

  #open(): void {
    if (this.#file !== null) {
      this.close();
      Deno.renameSync(this.path, `${this.path}.1`);
    }
    Deno.mkdirSync(dirname(this.path), { recursive: true });
    this.#file = Deno.openSync(this.path, { append: true, create: true, mode: 0o600 });
    this.#bytes = this.#file.statSync().size;
  }

  #remember(bytes: Uint8Array): void {
    const lines = (this.#unfinished + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#unfinished = lines.pop()!.slice(0, LINE_CHARACTERS_MAX);
    const whole = lines.filter((line) => line.trim() !== "")
      .map((line) => line.slice(0, LINE_CHARACTERS_MAX));
    this.#lastLines = [...this.#lastLines, ...whole].slice(-LAST_LINES_MAX);
  }
}
