/**
 * The `Range` header of RFC 9110, section 14, for one representation in bytes.
 *
 * One range, or several that touch or overlap, give one part. Several apart from each other are
 * ignored, as the RFC allows: players and download managers ask for one at a time, and a
 * `multipart/byteranges` body would be read by nobody.
 */

export interface ByteRange {
  readonly start: number;
  /** The byte behind the last one. */
  readonly end: number;
}

const RANGES_MAX = 50;

/** Null: send the whole. "unsatisfiable": answer 416. */
export function parseByteRange(
  header: string | undefined,
  size: number,
): ByteRange | "unsatisfiable" | null {
  const list = /^\s*bytes\s*=(.*)$/i.exec(header ?? "")?.[1];
  if (list === undefined) return null;
  const parts = list.split(",").map((part) => part.trim()).filter((part) => part !== "");
  if (parts.length === 0 || parts.length > RANGES_MAX) return null;
  const ranges: ByteRange[] = [];
  for (const part of parts) {
    const match = /^(\d{0,19})\s*-\s*(\d{0,19})$/.exec(part);
    if (match === null || (match[1] === "" && match[2] === "")) return null;
    const first = match[1] === "" ? null : Number(match[1]);
    const last = match[2] === "" ? null : Number(match[2]);
    if (first !== null && last !== null && last < first) return null;
    const start = first ?? Math.max(0, size - last!);
    const end = first === null || last === null ? size : Math.min(size, last + 1);
    if (start < end) ranges.push({ start, end });
  }
  if (ranges.length === 0) return "unsatisfiable";
  ranges.sort((a, b) => a.start - b.start);
  let { start, end } = ranges[0]!;
  for (const range of ranges) {
    if (range.start > end) return null;
    end = Math.max(end, range.end);
  }
  return { start, end };
}
