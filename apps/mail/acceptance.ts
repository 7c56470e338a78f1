/**
 * Taking responsibility for a message: from the moment `accept` returns, it will be delivered or its
 * sender will be told. Until then nothing has happened that anybody could see.
 *
 * The order of steps, and what a crash between them leaves, is told in outbox.ts.
 */
import { type Env, freshId } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import { type Condition, encodeJson, type Kv, type Mutation } from "../../kv/kv.ts";
import type { RowOp, RowResult } from "../../kv/kv.ts";
import { isLocal, localUser, uniqueAddresses } from "./addresses.ts";
import { type BodyStore, type ByteSource, entryHolder, outboxHolder } from "./body_store.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import { Mailbox } from "./mailbox.ts";
import type { MessageEntry } from "./message_entry.ts";
import {
  ACCEPT_WITHIN_MS,
  CLAIM_MS,
  type NewItem,
  type Outbox,
  type OutboxItem,
  type OutboxPointer,
  type RecipientKind,
} from "./outbox.ts";
import { type Summary, SUMMARY_BYTES } from "./parse_message.ts";

export interface AcceptOptions {
  /** The user who sends it; null for mail that came from outside. */
  readonly sender: string | null;
  readonly envelopeFrom: string;
  /** Normalized addresses; each gets one copy. */
  readonly recipients: readonly string[];
  readonly source: ByteSource;
  /** Called when the whole message has been read, with its first SUMMARY_BYTES. */
  readonly summarize: (head: Uint8Array) => Summary | Promise<Summary>;
  /** How it is filed in Sent; needed when there is a sender. */
  readonly sent?: {
    readonly id: string;
    readonly bcc?: MessageEntry["bcc"];
    /** What must hold, and what else becomes true, in the very operation that accepts. */
    readonly conditions: readonly Condition[];
    readonly mutations: readonly Mutation[];
  };
}

export type AcceptResult =
  | {
    readonly accepted: true;
    readonly pointer: OutboxPointer;
    /** Claimed for this process's worker. Null: it has to be loaded. */
    readonly item: OutboxItem | null;
  }
  /** A condition of `sent` did not hold; nothing has happened. */
  | { readonly accepted: false };

/** A message that is being taken in. */
interface Coming {
  readonly pointer: OutboxPointer;
  readonly recipients: readonly { readonly address: string; readonly kind: RecipientKind }[];
  readonly holders: readonly string[];
  readonly startMs: number;
  /** Something of it may be in the store. */
  mayExist: boolean;
  /** False while nobody knows whether it was accepted. */
  sure: boolean;
}

export class Acceptance {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #bodies: BodyStore;
  readonly #outbox: Outbox;
  readonly #mailDomain: string;
  readonly #maxBytes: number;
  readonly #workerId: string;

  constructor(options: {
    kv: Kv;
    env: Env;
    bodies: BodyStore;
    outbox: Outbox;
    mailDomain: string;
    maxBytes: number;
    /** Who delivers here what is for users of ours. */
    workerId: string;
  }) {
    this.#kv = options.kv;
    this.#env = options.env;
    this.#bodies = options.bodies;
    this.#outbox = options.outbox;
    this.#mailDomain = options.mailDomain;
    this.#maxBytes = options.maxBytes;
    this.#workerId = options.workerId;
  }

  /** @throws {MailError} `message_too_large`, `too_slow`, and what `source` throws */
  async accept(options: AcceptOptions): Promise<AcceptResult> {
    const outId = freshId(this.#env), bodyId = freshId(this.#env);
    const { sender, sent } = options;
    const recipients = this.#recipients(options.recipients);
    const holders = [
      outboxHolder(outId),
      ...(sender === null || sent === undefined ? [] : [entryHolder(sender, sent.id)]),
      ...new Set(
        recipients.filter(({ kind }) => kind === "local")
          .map(({ address }) => entryHolder(localUser(address), outId)),
      ),
    ];
    const ownerRow = sender === null ? keys.bodyRow(bodyId) : keys.mailRow(sender);
    const coming: Coming = {
      pointer: { outId, ownerRow, bodyId, createdMs: this.#env.wallMs() },
      recipients,
      holders,
      startMs: this.#env.monotonicMs(),
      mayExist: false,
      sure: true,
    };
    try {
      const result = await this.#take(options, coming);
      if (result.accepted) return result;
    } catch (error) {
      // When nobody knows whether it was accepted, the bytes stay until the index tells.
      if (coming.sure || (error instanceof KvError && error.outcome === "not_applied")) {
        await this.#abandon(coming);
      }
      throw error;
    }
    await this.#abandon(coming);
    return { accepted: false };
  }

  /** Steps 1 to 3; the last operation is the acceptance. */
  async #take(options: AcceptOptions, coming: Coming): Promise<AcceptResult> {
    const { sender } = options, { pointer } = coming;
    const head: Uint8Array[] = [];
    const end = await this.#bodies.writeAllButEnd(keepHead(options.source, head), {
      bodyId: pointer.bodyId,
      holders: coming.holders,
      maxBytes: this.#maxBytes,
      beforeWrite: () => {
        coming.mayExist = true;
        return this.#outbox.announce(pointer);
      },
    });
    const nowMs = this.#env.wallMs();
    const summary = await options.summarize(joined(head));
    const filed = { ...summary, receivedMs: nowMs, size: end.body.size, body: end.body };
    const isLocal = coming.recipients.map(({ kind }) => kind === "local");
    const claim = { by: this.#workerId, untilMs: nowMs + CLAIM_MS };
    const item = this.#outbox.acceptance(
      {
        outId: pointer.outId,
        sender,
        sentId: options.sent?.id ?? null,
        envelopeFrom: options.envelopeFrom,
        body: end.body,
        entry: { ...filed, id: pointer.outId, flags: [] },
        createdMs: pointer.createdMs,
      },
      coming.recipients,
      isLocal.includes(true) ? claim : null,
    );
    const claimed = isLocal.includes(false) ? pointer : { ...pointer, claim };
    // What is announced already, with the first bytes, is not announced again.
    const announcement = coming.mayExist ? [] : [this.#outbox.announcement(claimed)];
    const bodyOp: RowOp = { row: keys.bodyRow(pointer.bodyId), mutations: end.mutations };
    const { sent } = options;
    if (sender === null || sent === undefined) {
      const mutations = [...end.mutations, ...item.mutations];
      return await this.#commit(coming, [{ ...bodyOp, mutations }, ...announcement], item);
    }
    coming.mayExist = true;
    await this.#kv.transact([bodyOp, ...announcement]);
    const mailbox = new Mailbox({ kv: this.#kv, env: this.#env, user: sender });
    const bcc = sent.bcc === undefined || sent.bcc.length === 0 ? {} : { bcc: sent.bcc };
    const entry: MessageEntry = { ...filed, ...bcc, id: sent.id, flags: ["seen"] };
    const addition = await mailbox.addition("sent", entry);
    const report: Mutation = {
      kind: "put",
      column: keys.sentColumn(sent.id),
      value: encodeJson({ outId: pointer.outId }),
    };
    const mutations = [...addition, ...sent.mutations, report, ...item.mutations];
    const { conditions } = sent, op: RowOp = { row: pointer.ownerRow, conditions, mutations };
    return await this.#commit(coming, [op], item, (filed) => mailbox.noteUid("sent", entry, filed));
  }

  /** @param ops the first is the owner's row */
  async #commit(
    coming: Coming,
    ops: readonly [RowOp, ...RowOp[]],
    item: NewItem,
    afterwards?: (filed: RowResult & { applied: true }) => Promise<unknown>,
  ): Promise<AcceptResult> {
    if (this.#env.monotonicMs() - coming.startMs > ACCEPT_WITHIN_MS) {
      throw new MailError("too_slow", "The message took too long to arrive");
    }
    coming.mayExist = true;
    coming.sure = false;
    const result = await this.#kv.transact(ops);
    coming.sure = true;
    if (!result.applied) return { accepted: false };
    const { version, numbers } = result.results[0]!;
    if (version !== null) await afterwards?.({ applied: true, version, numbers });
    const accepted = version === null ? null : item.accepted(version);
    return { accepted: true, pointer: coming.pointer, item: accepted };
  }

  /** Best effort: what remains is swept later. */
  async #abandon({ pointer, mayExist }: Coming): Promise<void> {
    if (mayExist) await this.#outbox.abandon(pointer).catch(() => {});
  }

  #recipients(addresses: readonly string[]): { address: string; kind: RecipientKind }[] {
    const seenUsers = new Set<string>();
    return uniqueAddresses(addresses.map((address) => ({ name: "", address })))
      .flatMap(({ address }): { address: string; kind: RecipientKind }[] => {
        if (!isLocal(address, this.#mailDomain)) return [{ address, kind: "outside" }];
        const user = localUser(address);
        // ann@ and ann+shop@ are one mailbox, and one copy is enough.
        if (seenUsers.has(user)) return [];
        seenUsers.add(user);
        return [{ address, kind: "local" }];
      });
  }
}

async function* keepHead(source: ByteSource, head: Uint8Array[]): AsyncGenerator<Uint8Array> {
  let kept = 0;
  for await (const piece of source) {
    if (kept < SUMMARY_BYTES) {
      head.push(piece.slice(0, SUMMARY_BYTES - kept));
      kept += head.at(-1)!.length;
    }
    yield piece;
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
