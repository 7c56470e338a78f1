/** What the tests of the log share: opening, records from random bytes, and comparing. */
import { epoch, groupId, lsn } from "../../../proto/ids.ts";
import type { Disk } from "../../../kv/disk/disk.ts";
import { Wal, type WalOptions, type WalRecord } from "../../../kv/disk/wal.ts";

export const DIR = "wal";

export async function openWal(
  disk: Disk,
  options: Partial<WalOptions> = {},
): Promise<{ wal: Wal; recovered: WalRecord[] }> {
  const recovered: WalRecord[] = [];
  const wal = await Wal.open(
    { disk, dir: DIR, clusterId: "cluster", storeId: "store", ...options },
    (record) => recovered.push(record),
  );
  return { wal, recovered };
}

export const entry = (gid: number, at: number, payload: Uint8Array, ofEpoch = 1): WalRecord => ({
  type: "entry",
  gid: groupId(gid),
  epoch: epoch(ofEpoch),
  lsn: lsn(at),
  payload,
});

export const truncate = (gid: number, at: number, ofEpoch = 1): WalRecord => ({
  type: "truncate",
  gid: groupId(gid),
  epoch: epoch(ofEpoch),
  lsn: lsn(at),
});

export const reset = (gid: number, at: number, ofEpoch = 1): WalRecord => ({
  type: "reset",
  gid: groupId(gid),
  epoch: epoch(ofEpoch),
  lsn: lsn(at),
});

export const config = (gid: number, ofEpoch: number, payload: Uint8Array): WalRecord => ({
  type: "config",
  gid: groupId(gid),
  epoch: epoch(ofEpoch),
  payload,
});

export const commit = (gid: number, at: number): WalRecord => ({
  type: "commit",
  gid: groupId(gid),
  lsn: lsn(at),
});

export function randomBytes(random: () => number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256));
}

/** A record as one line, so that lists of them are quick to compare and to read when they differ. */
export function lineOf(record: WalRecord): string {
  const { type, gid } = record;
  const ofEpoch = "epoch" in record ? record.epoch : "";
  const at = "lsn" in record ? record.lsn : "";
  const payload = "payload" in record ? record.payload.toBase64() : "";
  return `${type} ${gid} ${ofEpoch} ${at} ${payload}`;
}

export const linesOf = (records: readonly WalRecord[]) => records.map(lineOf);
