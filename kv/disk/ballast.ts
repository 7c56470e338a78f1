/**
 * A file of nothing that takes up space, to be given back when the disk is full to the last byte: what
 * was acknowledged nowhere yet can then be written to its end, a checkpoint made and log released, so
 * that the store gets out of a full disk by its own strength. Once there is room again the file is
 * made anew.
 *
 * 64 MiB, or a thirty-second of a small disk. Written rather than merely sized: a file with holes
 * reserves nothing.
 */
import * as fs from "node:fs/promises";

const MIB = 1024 * 1024;
const BYTES_MAX = 64 * MIB;
const PIECE = new Uint8Array(MIB);

export class Ballast {
  readonly #path: string;
  /** What the file should have, so also what has to be free besides before it is made. */
  readonly bytes: number;
  #isThere: boolean;
  #filling = false;

  private constructor(path: string, bytes: number, isThere: boolean) {
    this.#path = path;
    this.bytes = bytes;
    this.#isThere = isThere;
  }

  static async open(dir: string): Promise<Ballast> {
    const { blocks, bsize } = await fs.statfs(dir);
    const bytes = Math.min(BYTES_MAX, Math.floor(blocks * bsize / 32 / MIB) * MIB);
    const path = `${dir}/ballast`;
    const found = await fs.stat(path).then((info) => info.size, () => -1);
    return new Ballast(path, bytes, found === bytes);
  }

  get isThere(): boolean {
    return this.#isThere;
  }

  /** Gives the space back, at once. */
  async release(): Promise<void> {
    if (!this.#isThere) return;
    this.#isThere = false;
    await fs.rm(this.#path, { force: true });
  }

  /** Takes the space again, if that leaves `reserveBytes`. Never throws for want of space. */
  async restore(freeBytes: number, reserveBytes: number): Promise<void> {
    if (this.#isThere || this.#filling || this.bytes === 0) return;
    if (freeBytes < reserveBytes + 2 * this.bytes) return;
    this.#filling = true;
    try {
      const file = await fs.open(this.#path, "w", 0o600);
      try {
        for (let done = 0; done < this.bytes; done += PIECE.length) await file.write(PIECE);
        await file.datasync();
      } finally {
        await file.close();
      }
      this.#isThere = true;
    } catch {
      await fs.rm(this.#path, { force: true });
    } finally {
      this.#filling = false;
    }
  }
}
