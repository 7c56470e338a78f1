/** A store for transfers of any length: it forgets what chunks hold and counts what is under way. */
import type { CallOptions, FullCell, Kv, RowOp } from "../../../kv/kv.ts";
import { MemoryKv } from "../../../kv/memory_kv.ts";
import { version } from "../../../proto/ids.ts";

/** Chunk rows are counted and forgotten, and read as zeros; all else goes to a real store. */
export class SinkKv implements Kv {
  readonly inner = new MemoryKv();
  readonly sizes = new Map<string, number>();
  underWay = 0;
  underWayMax = 0;
  getRow = this.inner.getRow.bind(this.inner);
  scan = this.inner.scan.bind(this.inner);
  transact = this.inner.transact.bind(this.inner);

  async apply(op: RowOp) {
    if (op.row[3] !== "~") return await this.inner.apply(op);
    const [mutation] = op.mutations;
    const bytes = mutation?.kind === "put" ? mutation.value.length : 0;
    await this.#hold(bytes);
    this.sizes.set(op.row, bytes);
    return { applied: true as const, version: version(1), numbers: [] };
  }

  async get(row: string, column: string, _options?: CallOptions): Promise<FullCell | null> {
    if (row[3] !== "~") return await this.inner.get(row, column);
    const size = this.sizes.get(row)!;
    await this.#hold(size);
    return { column, version: version(1), size, value: new Uint8Array(size) };
  }

  async #hold(bytes: number) {
    this.underWay += bytes;
    this.underWayMax = Math.max(this.underWayMax, this.underWay);
    await new Promise((resolve) => setTimeout(resolve, 1));
    this.underWay -= bytes;
  }
}

export async function* zeros(bytes: number) {
  const piece = new Uint8Array(64 * 1024);
  for (let sent = 0; sent < bytes; sent += piece.length) yield await Promise.resolve(piece);
}
