/**
 * What a replica says to others of its group: small messages over the control connection, entries over the
 * bulk one, with the large values that they name, which are read from their files first.
 *
 * Entries leave in the order in which they were handed over, to each node on its own.
 */
import type { Env } from "../kv/env.ts";
import { CorruptionError } from "../kv/errors.ts";
import type { LogEntry } from "../kv/replica_log.ts";
import type { GroupId, NodeId } from "../proto/ids.ts";
import { type Append, replicaConversation, type ReplicaMessage } from "../proto/replication.ts";
import type { BlobIntake, LentValue } from "./blob_intake.ts";
import type { PeerLinks } from "./peers.ts";

export interface GroupSenderOptions {
  readonly env: Env;
  readonly gid: GroupId;
  readonly peers: PeerLinks;
  readonly intake: BlobIntake;
}

export class GroupSender {
  readonly #options: GroupSenderOptions;
  /** Appends with large values are read from disk first; what follows must not overtake them. */
  readonly #sending = new Map<NodeId, Promise<void>>();

  constructor(options: GroupSenderOptions) {
    this.#options = options;
  }

  send(to: NodeId, message: ReplicaMessage, entries: readonly LogEntry[]): void {
    if (message.kind !== "append") {
      this.#options.peers.of("backend", to)
        .send(replicaConversation, "replica", message);
      return;
    }
    const large = entries.some(({ blobs }) => blobs.length > 0);
    const before = this.#sending.get(to);
    if (!large && before === undefined) return this.#sendAppend(to, message, entries, []);
    const sending: Promise<void> = (before ?? Promise.resolve())
      .then(() => this.#sendWithBlobs(to, message, entries))
      .catch((error) => this.#onFailure(error))
      .then(() => {
        if (this.#sending.get(to) === sending) this.#sending.delete(to);
      });
    this.#sending.set(to, sending);
  }

  async #sendWithBlobs(
    to: NodeId,
    message: Append,
    entries: readonly LogEntry[],
  ): Promise<void> {
    const values: Map<string, LentValue | null>[] = [];
    for (const entry of entries) {
      const found = new Map<string, LentValue | null>();
      for (const { blob } of entry.blobs) {
        found.set(blob, await this.#readForPeer(blob));
      }
      values.push(found);
    }
    this.#sendAppend(to, message, entries, values);
  }

  /** Null when the file is gone, or beyond help here: then the peer will ask others for it. */
  async #readForPeer(blob: string): Promise<LentValue | null> {
    const { intake } = this.#options;
    try {
      return await intake.lend(blob);
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      return await intake.lendWhole(this.#options.gid, blob).catch(() => null);
    }
  }

  #sendAppend(
    to: NodeId,
    message: Append,
    entries: readonly LogEntry[],
    values: readonly Map<string, LentValue | null>[],
  ): void {
    const payload: Uint8Array[] = [], lent: LentValue[] = [];
    const files: NonNullable<Append["files"]> = [];
    for (const [at, entry] of entries.entries()) {
      payload.push(entry.payload);
      for (const [blob, value] of values[at] ?? []) {
        // Null: overwritten since, and its file removed; a later entry says so.
        files.push({ at, blob, size: value?.bytes.length ?? 0, ...(value ? {} : { gone: true }) });
        if (value === null) continue;
        lent.push(value);
        payload.push(value.bytes);
      }
    }
    const whole = files.length === 0 ? message : { ...message, files };
    this.#options.peers.of("backend", to, "bulk")
      .send(replicaConversation, "replica", whole, payload, () => {
        for (const { letGo } of lent) letGo();
      });
  }

  #onFailure(error: unknown): void {
    const { env, gid } = this.#options;
    env.log("warning", "could not send entries", { gid, message: String(error) });
  }
}
