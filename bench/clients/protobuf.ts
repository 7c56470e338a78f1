/**
 * As much of protobuf as etcd's requests need: fields of bytes and of whole numbers, written by hand,
 * and a reader that walks over the fields of an answer.
 */

const encoder = new TextEncoder();

/** A field: its number, and bytes (wire type 2), text (the same) or a number from 0 on (type 0). */
export type ProtoField = readonly [number: number, value: Uint8Array | string | number];

export function encodeProto(fields: readonly ProtoField[]): Uint8Array {
  const encoded = fields.map(([number, value]) => {
    const bytes = typeof value === "string" ? encoder.encode(value) : value;
    return { number, value: bytes };
  });
  let size = 0;
  for (const { number, value } of encoded) {
    size += varintBytes(number << 3);
    size += typeof value === "number"
      ? varintBytes(value)
      : varintBytes(value.length) + value.length;
  }
  const out = new Uint8Array(size);
  let at = 0;
  for (const { number, value } of encoded) {
    if (typeof value === "number") {
      at = writeVarint(out, at, number << 3);
      at = writeVarint(out, at, value);
    } else {
      at = writeVarint(out, at, number << 3 | 2);
      at = writeVarint(out, at, value.length);
      out.set(value, at);
      at += value.length;
    }
  }
  return out;
}

/** Calls `onField` for each field; numbers as numbers (exact up to 2^53), the rest as views. */
export function readProto(
  bytes: Uint8Array,
  onField: (number: number, value: Uint8Array | number) => void,
): void {
  for (let at = 0; at < bytes.length;) {
    const [tag, afterTag] = readVarint(bytes, at);
    const [value, afterValue] = readVarint(bytes, afterTag);
    switch (tag & 7) {
      case 0:
        onField(tag >> 3, value);
        at = afterValue;
        break;
      case 2:
        onField(tag >> 3, bytes.subarray(afterValue, afterValue + value));
        at = afterValue + value;
        break;
      default:
        throw new Error(`Cannot read a protobuf field of wire type ${tag & 7}`);
    }
  }
}

function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) count += 1;
  return count;
}

function writeVarint(out: Uint8Array, at: number, value: number): number {
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out[at++] = (rest % 128) | 128;
  out[at++] = rest;
  return at;
}

function readVarint(bytes: Uint8Array, at: number): [value: number, next: number] {
  let value = 0, scale = 1;
  for (;;) {
    const byte = bytes[at++];
    if (byte === undefined) throw new Error("Cannot read a protobuf message: it is cut short");
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at];
    scale *= 128;
  }
}
