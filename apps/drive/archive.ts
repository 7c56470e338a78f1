/**
 * Folders and files as a zip archive, streamed: nothing is held but the list of what was sent.
 *
 *     for each entry    local header, name, the bytes as they are ("stored")
 *     at the end        central directory (a record per entry), end records
 *
 * Sizes and CRC-32 are known before the first byte, so headers are complete and no data descriptors
 * are needed. Zip64 fields appear where a size or an offset needs more than 32 bits, or where there
 * are more than 65,534 entries. Names are UTF-8. Follows APPNOTE 6.3.10. Not compressed: what fills
 * drives (pictures, music, films) does not shrink.
 */
import { readContent, type ReadOptions } from "./chunks.ts";
import type { StoredContent, StoredItem } from "./items.ts";
import type { DriveTree } from "./tree.ts";

const U32 = 0xffffffff;
const U16 = 0xffff;
const UTF8_NAMES = 0x0800;
const VERSION_ZIP64 = 45;
/** "Made by Unix", so that the permissions in the external attributes count. */
const MADE_BY = (3 << 8) | VERSION_ZIP64;
const FOLDER_ATTRIBUTES = ((0o40755 << 16) | 0x10) >>> 0;
const FILE_ATTRIBUTES = (0o100644 << 16) >>> 0;
const PAGE = 500;
const encoder = new TextEncoder();

export interface ZipEntry {
  /** With "/" between folders; a folder's ends with it. */
  readonly path: string;
  readonly modifiedMs: number;
  readonly size: number;
  readonly crc: number;
  readonly body?: () => AsyncIterable<Uint8Array>;
}

/** Files and folders with all below them, each folder before what it holds. */
export async function* archiveEntries(
  tree: DriveTree,
  items: readonly StoredItem[],
  read: (content: StoredContent) => AsyncIterable<Uint8Array>,
): AsyncGenerator<ZipEntry> {
  const waiting: { id: string; path: string }[] = [];
  const entryOf = (item: StoredItem, above: string): ZipEntry => {
    const { content, modifiedMs } = item, path = above + safe(item.name);
    if (content !== undefined) {
      const { size, crc } = content;
      return { path, modifiedMs, size, crc, body: () => read(content) };
    }
    waiting.push({ id: item.id, path: `${path}/` });
    return { path: `${path}/`, modifiedMs, size: 0, crc: 0 };
  };
  for (const item of items) yield entryOf(item, "");
  while (waiting.length > 0) {
    const { id, path } = waiting.pop()!;
    let after: string | undefined;
    do {
      const from = after === undefined ? {} : { after };
      const page = await tree.children(id, { limit: PAGE, ...from });
      for (const { item } of page.items) yield entryOf(item, path);
      after = page.next ?? undefined;
    } while (after !== undefined);
  }
}

export function archiveItems(
  tree: DriveTree,
  items: readonly StoredItem[],
  source: Pick<ReadOptions, "kv" | "budget" | "freePieces">,
): ReadableStream<Uint8Array> {
  const read = (content: StoredContent) =>
    readContent({ ...source, content, start: 0, end: content.size });
  return ReadableStream.from(writeZip(archiveEntries(tree, items, read)));
}

/** A backslash is a separator for some programs that unpack. */
const safe = (name: string): string => name.replaceAll("\\", "_");

export async function* writeZip(entries: AsyncIterable<ZipEntry>): AsyncGenerator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let offset = 0;
  for await (const entry of entries) {
    const name = encoder.encode(entry.path);
    const header = localHeader(entry, name);
    yield header;
    if (entry.body) yield* entry.body();
    directory.push(directoryRecord(entry, name, offset));
    offset += header.length + entry.size;
  }
  let directoryBytes = 0;
  for (const record of directory) {
    directoryBytes += record.length;
    yield record;
  }
  yield endRecords({ count: directory.length, offset, bytes: directoryBytes });
}

function localHeader(entry: ZipEntry, name: Uint8Array): Uint8Array {
  const large = entry.size >= U32;
  const out = new Fields(30 + name.length + (large ? 20 : 0));
  out.u32(0x04034b50).u16(large ? VERSION_ZIP64 : 20).u16(UTF8_NAMES).u16(0);
  out.dosTime(entry.modifiedMs).u32(entry.crc);
  out.u32(large ? U32 : entry.size).u32(large ? U32 : entry.size);
  out.u16(name.length).u16(large ? 20 : 0).bytes(name);
  if (large) out.u16(1).u16(16).u64(entry.size).u64(entry.size);
  return out.data;
}

function directoryRecord(entry: ZipEntry, name: Uint8Array, offset: number): Uint8Array {
  const large = entry.size >= U32, far = offset >= U32;
  const extra = (large ? 16 : 0) + (far ? 8 : 0);
  const extraBytes = extra === 0 ? 0 : extra + 4;
  const out = new Fields(46 + name.length + extraBytes);
  out.u32(0x02014b50).u16(MADE_BY).u16(extra > 0 ? VERSION_ZIP64 : 20).u16(UTF8_NAMES).u16(0);
  out.dosTime(entry.modifiedMs).u32(entry.crc);
  out.u32(large ? U32 : entry.size).u32(large ? U32 : entry.size);
  out.u16(name.length).u16(extraBytes).u16(0).u16(0).u16(0);
  out.u32(entry.path.endsWith("/") ? FOLDER_ATTRIBUTES : FILE_ATTRIBUTES);
  out.u32(far ? U32 : offset).bytes(name);
  if (extra > 0) {
    out.u16(1).u16(extra);
    if (large) out.u64(entry.size).u64(entry.size);
    if (far) out.u64(offset);
  }
  return out.data;
}

function endRecords(
  directory: { readonly count: number; readonly offset: number; readonly bytes: number },
): Uint8Array {
  const { count, offset, bytes } = directory;
  const zip64 = count >= U16 || offset >= U32 || bytes >= U32;
  const out = new Fields(22 + (zip64 ? 76 : 0));
  if (zip64) {
    out.u32(0x06064b50).u64(44).u16(MADE_BY).u16(VERSION_ZIP64).u32(0).u32(0);
    out.u64(count).u64(count).u64(bytes).u64(offset);
    out.u32(0x07064b50).u32(0).u64(offset + bytes).u32(1);
  }
  const few = Math.min(count, U16);
  out.u32(0x06054b50).u16(0).u16(0).u16(few).u16(few);
  out.u32(Math.min(bytes, U32)).u32(Math.min(offset, U32)).u16(0);
  return out.data;
}

/** Little-endian fields, one after the other. */
class Fields {
  readonly data: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  constructor(length: number) {
    this.data = new Uint8Array(length);
    this.#view = new DataView(this.data.buffer);
  }
  u16(value: number): this {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
    return this;
  }
  u32(value: number): this {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
    return this;
  }
  u64(value: number): this {
    this.#view.setBigUint64(this.#at, BigInt(value), true);
    this.#at += 8;
    return this;
  }
  bytes(value: Uint8Array): this {
    this.data.set(value, this.#at);
    this.#at += value.length;
    return this;
  }
  /** Two seconds' precision, from 1980 to 2107; UTC, since nobody's time zone is known here. */
  dosTime(ms: number): this {
    const date = new Date(Math.max(ms, Date.UTC(1980, 0, 1)));
    const year = Math.min(date.getUTCFullYear(), 2107) - 1980;
    this.u16(date.getUTCHours() << 11 | date.getUTCMinutes() << 5 | date.getUTCSeconds() >> 1);
    return this.u16(year << 9 | (date.getUTCMonth() + 1) << 5 | date.getUTCDate());
  }
}
