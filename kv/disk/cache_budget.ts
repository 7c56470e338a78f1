/** Memory for clean cells, shared by all groups of a node. */
import { memoryBytes } from "../cell_memory.ts";
import type { StoredCell } from "../cell_store.ts";

/** Clean cells of all groups of a node, the least recently used of which go first. */
export class CacheBudget {
  readonly #cells = new Map<string, StoredCell>();
  #bytes = 0;

  #bytesMax: number;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

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
    this.add(key, cell);
  }

  /** A cell that is not among them. */
  add(key: string, cell: StoredCell): void {
    this.#cells.set(key, cell);
    this.#bytes += memoryBytes(cell);
    this.#evict();
  }

  /** Others need more or less of the node's memory: what no longer fits is dropped at once. */
  resize(bytesMax: number): void {
    this.#bytesMax = bytesMax;
    this.#evict();
  }

  #evict(): void {
    for (const [oldest, old] of this.#cells) {
      if (this.#bytes <= this.#bytesMax) return;
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
