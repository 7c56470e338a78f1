/** Memory for clean cells, shared by all groups of a node. */
import { memoryBytes } from "../cell_memory.ts";
import type { StoredCell } from "../cell_store.ts";

/** Clean cells of all groups of a node, the least recently used of which go first. */
export class CacheBudget {
  readonly #cells = new Map<string, StoredCell>();
  #bytes = 0;

  constructor(readonly bytesMax: number) {}

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): StoredCell | undefined {
    const cell = this.#cells.get(key);
    if (cell === undefined) return undefined;
    this.#cells.delete(key);
    this.#cells.set(key, cell);
    return cell;
  }

  put(key: string, cell: StoredCell): void {
    this.delete(key);
    this.#cells.set(key, cell);
    this.#bytes += memoryBytes(cell);
    for (const [oldest, old] of this.#cells) {
      if (this.#bytes <= this.bytesMax) break;
      this.#cells.delete(oldest);
      this.#bytes -= memoryBytes(old);
    }
  }

  delete(key: string): void {
    const cell = this.#cells.get(key);
    if (cell === undefined) return;
    this.#cells.delete(key);
    this.#bytes -= memoryBytes(cell);
  }

  /** Drops all cells of one group. */
  clear(prefix: string): void {
    for (const key of this.#cells.keys()) if (key.startsWith(prefix)) this.delete(key);
  }
}
