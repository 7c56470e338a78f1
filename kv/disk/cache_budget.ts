/** Memory for clean cells, shared by all groups of a node. */
import { memoryBytes } from "../cell_memory.ts";
import type { StoredCell } from "../cell_store.ts";
import { RecentMap } from "../recent_map.ts";

/** Clean cells of all groups of a node; those that nobody asked for lately go first. */
export class CacheBudget {
  readonly #cells = new RecentMap<StoredCell>();
  #bytes = 0;

  #bytesMax: number;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): StoredCell | undefined {
    return this.#cells.get(key);
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
    while (this.#bytes > this.#bytesMax) {
      const cell = this.#cells.takeOldest();
      if (cell === undefined) return;
      this.#bytes -= memoryBytes(cell);
    }
  }

  delete(key: string): void {
    const cell = this.#cells.delete(key);
    if (cell !== undefined) this.#bytes -= memoryBytes(cell);
  }

  /** Drops all cells of one group. */
  clear(prefix: string): void {
    for (const key of this.#cells.keys()) if (key.startsWith(prefix)) this.delete(key);
  }
}
