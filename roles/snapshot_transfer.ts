/**
 * Bringing a replica up to date by a whole checkpoint, when the log no longer reaches back to it.
 *
 * The primary keeps a consistent copy of its file for a while and hands it out in chunks; the
 * learner writes them to `incoming/`, picks up where it stopped after a lost connection, fetches the
 * files of large values that it lacks, and puts everything in place at once. Both sides keep to a rate
 * (`store.transfer_mib_per_s`), so that those who wait for answers do not feel it, and the primary keeps
 * the log behind the checkpoint for as long.
 */
import { crc32 } from "node:zlib";
import type { CheckpointedStore } from "../kv/cell_store.ts";
import type { BlobStore } from "../kv/disk/blob_store.ts";
import { SqliteCellStore } from "../kv/disk/sqlite_cell_store.ts";
import { type Env, freshId } from "../kv/env.ts";
import { CorruptionError, KvError } from "../kv/errors.ts";
import { type GroupId, type Lsn, lsn as toLsn, type NodeId } from "../proto/ids.ts";
import { transferConversation } from "../proto/transfer.ts";
import { type ClusterConfig, planGroups } from "../proto/cluster_config.ts";
import type { GroupShell } from "./backend_group.ts";
import type { FetchBlob } from "./blob_intake.ts";
import type { Handlers } from "./net/rpc_service.ts";
import { RpcError } from "./net/rpc_error.ts";
import type { Pacer } from "./pacer.ts";
import type { PeerLinks } from "./peers.ts";

const CHUNK_BYTES = 256 * 1024;
const COPY_LIFE_MS = 120_000;
const COPIES_MAX = 3;
/** Whoever fetches reads or tries again sooner than this; else somebody who asks may have the place. */
const ABANDONED_MS = 10_000;
/** A learner that has a checkpoint fetches the values it lacks, and then asks for the log behind it. */
const INSTALLED_WITHIN_MS = 60_000;
const ATTEMPTS_MAX = 20;
const RETRY_MS = 300;

interface Copy {
  readonly group: GroupShell;
  readonly lsn: Lsn;
  readonly path: string;
  readonly bytes: number;
  readonly remove: () => Promise<void>;
  usedMs: number;
}

/** The primary's side. */
export class SnapshotSource {
  readonly #groups: ReadonlyMap<GroupId, GroupShell>;
  readonly #blobs: BlobStore;
  readonly #env: Env;
  readonly #pacer: Pacer | undefined;
  readonly #copies = new Map<string, Copy>();

  constructor(
    options: {
      groups: ReadonlyMap<GroupId, GroupShell>;
      blobs: BlobStore;
      env: Env;
      /** Of all checkpoints that are fetched from here together; absent: as fast as it goes. */
      pacer?: Pacer;
    },
  ) {
    this.#pacer = options.pacer;
    this.#groups = options.groups;
    this.#blobs = options.blobs;
    this.#env = options.env;
  }

  readonly handlers: Handlers<typeof transferConversation> = {
    open: async ({ gid }) => {
      const group = this.#groups.get(gid);
      if (group === undefined) throw new KvError("wrong_tablet", `No group ${gid} here`);
      await this.removeOld(COPY_LIFE_MS);
      if (this.#copies.size >= COPIES_MAX) await this.removeOld(ABANDONED_MS);
      if (this.#copies.size >= COPIES_MAX) {
        throw new KvError("busy", `${COPIES_MAX} checkpoints are being fetched from here already`);
      }
      await group.checkpointAll();
      const { lsn, path, bytes, remove } = await group.store.exportSnapshot();
      const token = freshId(this.#env);
      this.#copies.set(token, { group, lsn, path, bytes, remove, usedMs: this.#env.monotonicMs() });
      group.keepLogBehind(lsn, ABANDONED_MS);
      return { token, lsn, bytes };
    },
    read: async ({ token, offset, length }) => {
      const copy = this.#copies.get(token);
      if (copy === undefined) throw new KvError("unavailable", "This checkpoint is no longer kept");
      copy.usedMs = this.#env.monotonicMs();
      copy.group.keepLogBehind(copy.lsn, ABANDONED_MS);
      await this.#pacer?.spend(length);
      const payload = await readChunk(copy.path, offset, Math.min(length, copy.bytes - offset));
      return { body: { crc: crc32(payload) }, payload };
    },
    close: async ({ token }) => {
      const copy = this.#copies.get(token);
      this.#copies.delete(token);
      copy?.group.keepLogBehind(copy.lsn, INSTALLED_WITHIN_MS);
      await copy?.remove();
      return {};
    },
    blob: async ({ blob }) => {
      // What is damaged here is no error to the one who asks: somebody else may have it.
      if (!await this.#blobs.has(blob)) return { found: false };
      try {
        return { body: { found: true }, payload: await this.#blobs.get(blob) };
      } catch (error) {
        if (error instanceof CorruptionError) return { found: false, damaged: true };
        throw error;
      }
    },
  };

  /** Removes copies that nobody has read from for `idleMs`. */
  async removeOld(idleMs = COPY_LIFE_MS): Promise<void> {
    const beforeMs = this.#env.monotonicMs() - idleMs;
    for (const [token, copy] of this.#copies) {
      if (copy.usedMs >= beforeMs) continue;
      this.#copies.delete(token);
      await copy.remove();
    }
  }

  async removeAll(): Promise<void> {
    for (const copy of this.#copies.values()) await copy.remove();
    this.#copies.clear();
  }
}

/** The learner's side: fetches from `from` and installs. */
export async function fetchSnapshot(options: {
  group: GroupShell;
  from: NodeId;
  peers: PeerLinks;
  blobs: BlobStore;
  dataDir: string;
  openStore: () => CheckpointedStore;
  env: Env;
  /** Of all values that are fetched to here; absent: as fast as it goes. */
  pacer?: Pacer;
}): Promise<void> {
  const { group, from, peers, blobs, dataDir, openStore, env, pacer } = options;
  const { gid } = group;
  const peer = peers.of("backend", from, "bulk");
  const opened = await peer.call(transferConversation, "open", { gid }, undefined, {
    timeoutMs: 60_000,
  });
  const { token, bytes, lsn } = opened.body;
  if (!group.replica.mayInstall(toLsn(lsn))) {
    peer.call(transferConversation, "close", { token }).catch(() => {});
    throw new Error(`the checkpoint as of ${lsn} is not needed`);
  }
  const dir = `${dataDir}/incoming`;
  await Deno.mkdir(dir, { recursive: true });
  const path = `${dir}/${gid}.db`;
  env.log("info", "fetching a checkpoint", { gid, from, bytes, lsn: toLsn(lsn) });
  const file = await Deno.open(path, { create: true, write: true, truncate: true });
  try {
    for (let offset = 0; offset < bytes;) {
      const chunk = await withRetries(env, async () => {
        const request = { token, offset, length: CHUNK_BYTES };
        const answer = await peer.call(transferConversation, "read", request);
        if (crc32(answer.payload) !== answer.body.crc) throw new Error("a chunk arrived damaged");
        return answer.payload;
      });
      if (chunk.length === 0) throw new Error("the checkpoint is shorter than was said");
      await writeAll(file, chunk);
      offset += chunk.length;
    }
    await file.sync();
  } finally {
    file.close();
    peer.call(transferConversation, "close", { token }).catch(() => {});
  }
  for (const blob of SqliteCellStore.blobsIn(path)) {
    if (await blobs.has(blob)) continue;
    await withRetries(env, async () => {
      const answer = await peer.call(transferConversation, "blob", { gid, blob });
      await pacer?.spend(answer.payload.length);
      // Overwritten since, and the log behind the checkpoint says so; or damaged there, and then
      // reading or scrubbing it here will ask the others.
      if (answer.body.found) await blobs.put(blob, answer.payload);
    });
  }
  await group.install(toLsn(lsn), async () => {
    await SqliteCellStore.install({ dir: dataDir, gid, fromPath: path });
    return openStore();
  });
  env.log("info", "installed a checkpoint", { gid, lsn: toLsn(lsn) });
}

/** A value from whichever other backend has it, for one whose own file is damaged. */
export function fetchBlobFrom(options: {
  peers: PeerLinks;
  config: ClusterConfig;
  self: NodeId;
}): FetchBlob {
  const { peers, config, self } = options;
  const plans = planGroups(config);
  return async (gid, blob) => {
    for (const node of plans.find((plan) => plan.id === gid)?.members ?? []) {
      if (node === self) continue;
      try {
        const { body, payload } = await peers.of("backend", node, "bulk")
          .call(transferConversation, "blob", { gid, blob }, undefined, { timeoutMs: 10_000 });
        if (body.found) return payload;
      } catch {
        // The next one may have it.
      }
    }
    return null;
  };
}

async function withRetries<T>(env: Env, run: () => Promise<T>): Promise<T> {
  for (let attempt = 1;; attempt++) {
    try {
      return await run();
    } catch (error) {
      const lost = error instanceof RpcError;
      if (!lost || attempt >= ATTEMPTS_MAX) throw error;
      await env.sleep(RETRY_MS);
    }
  }
}

async function readChunk(path: string, offset: number, length: number): Promise<Uint8Array> {
  const file = await Deno.open(path);
  try {
    await file.seek(offset, Deno.SeekMode.Start);
    const chunk = new Uint8Array(Math.max(0, length));
    let done = 0;
    while (done < chunk.length) {
      const count = await file.read(chunk.subarray(done));
      if (count === null) break;
      done += count;
    }
    return chunk.subarray(0, done);
  } finally {
    file.close();
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}
