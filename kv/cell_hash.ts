/**
 * Hashes of single cells, made so that their sum over all cells says whether two replicas hold the same:
 * 32 bits at a time, of two seeds. Not against anybody who wants two states to look alike, but every
 * input bit changes about half of the output's (murmur3's mixing, Appleby 2011), which a sum of
 * checksums would not do: those of two seeds differ by a constant.
 */
import type { StoredCell } from "./cell_store.ts";

/** What all cells of one place have in common. */
export function placeHash(row: string, column: string, seed: number): number {
  // The length tells ("ab", "c") from ("a", "bc").
  return textHash(column, textHash(row, mix(seed, row.length)));
}

/** `place`: of the cell's row and column, from the same seed. */
export function cellHash(place: number, { version, size, crc }: StoredCell): number {
  let hash = mix(place, version | 0);
  hash = mix(hash, Math.floor(version / 0x100000000));
  hash = mix(hash, size);
  return finish(mix(hash, crc | 0));
}

function textHash(text: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) hash = mix(hash, text.charCodeAt(i));
  return hash;
}

function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  const mixed = hash ^ Math.imul(k, 0x1b873593);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function finish(hash: number): number {
  let bits = hash;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** Seeds of the two halves of a hash. */
export const LOW_LANE = 0, HIGH_LANE = 0x9e3779b9;

/** The hash of some cells as that of a state is made: a sum, so cells can be added and taken away. */
export class CellSum {
  #low = 0;
  #high = 0;
  cells = 0;

  add(cell: StoredCell, sign: 1 | -1): void {
    const { row, column } = cell;
    this.#low = (this.#low + sign * cellHash(placeHash(row, column, LOW_LANE), cell)) | 0;
    this.#high = (this.#high + sign * cellHash(placeHash(row, column, HIGH_LANE), cell)) | 0;
    this.cells += sign;
  }

  get text(): string {
    return hashText([this.#low, this.#high]);
  }
}

/** 16 hex digits, as of a whole state. */
export function hashText([low, high]: readonly [number, number]): string {
  const hex = (lane: number) => (lane >>> 0).toString(16).padStart(8, "0");
  return hex(high) + hex(low);
}
