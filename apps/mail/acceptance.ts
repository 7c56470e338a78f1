/**
 * Taking responsibility for a message: from the moment `accept` returns, it will be delivered or its
 * sender will be told. Until then nothing has happened that anybody could see.
 *
 * The order of steps, and what a crash between them leaves, is told in outbox.ts.
 */
import { type Env, freshId } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import { type Condition, encodeJson, type Kv, type Mutation } from "../../kv/kv.ts";
import type { RowResult } from "../../kv/kv.ts";
import { isLocal, localUser, uniqueAddresses } from "./addresses.ts";
import { type BodyStore, type ByteSource, entryHolder, outboxHolder } from "./body_store.ts";
import * as keys from "./keys.ts";
import { MailError } from "./mail_error.ts";
import { Mailbox } from "./mailbox.ts";
import type { MessageEntry } from "./message_entry.ts";
import { ACCEPT_WITHIN_MS, type Outbox, type OutboxPointer, type RecipientKind } from "./outbox.ts";
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
  | { readonly accepted: true; readonly pointer: OutboxPointer }
  /** A condition of `sent` did not hold; nothing has happened. */
  | { readonly accepted: false };

export class Acceptance {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #bodies: BodyStore;
  readonly #outbox: Outbox;
  readonly #mailDomain: string;
  readonly #maxBytes: number;

  constructor(options: {
    kv: Kv;
    env: Env;
    bodies: BodyStore;
    outbox: Outbox;
    mailDomain: string;
    maxBytes: number;
  }) {
    this.#kv = options.kv;
    this.#env = options.env;
    this.#bodies = options.bodies;
    this.#outbox = options.outbox;
    this.#mailDomain = options.mailDomain;
    this.#maxBytes = options.maxBytes;
  }

  /** @throws {MailError} `message_too_large`, `too_slow`, and what `source` throws */
  async accept(options: AcceptOptions): Promise<AcceptResult> {
    const { sender, sent } = options, startMs = this.#env.monotonicMs();
    const outId = freshId(this.#env), bodyId = freshId(this.#env);
    const ownerRow = sender === null ? keys.bodyRow(bodyId) : keys.mailRow(sender);
    const pointer = { outId, ownerRow, bodyId, createdMs: this.#env.wallMs() };
    await this.#outbox.announce(pointer);
    const recipients = this.#recipients(options.recipients);
    const holders = [
      outboxHolder(outId),
      ...(sender === null || sent === undefined ? [] : [entryHolder(sender, sent.id)]),
      ...new Set(
        recipients.filter(({ kind }) => kind === "local")
          .map(({ address }) => entryHolder(localUser(address), outId)),
      ),
    ];
    let sure = true;
    try {
      const head: Uint8Array[] = [];
      const source = keepHead(options.source, head);
      const body = await this.#bodies.write(source, { bodyId, holders, maxBytes: this.#maxBytes });
      const nowMs = this.#env.wallMs();
      const summary = await options.summarize(joined(head));
      const filed = { ...summary, receivedMs: nowMs, size: body.size, body };
      const mutations: Mutation[] = [];
      let noteUid = (_filed: RowResult & { applied: true }): Promise<unknown> => Promise.resolve();
      if (sender !== null && sent !== undefined) {
        const mailbox = new Mailbox({ kv: this.#kv, env: this.#env, user: sender });
        const bcc = sent.bcc === undefined || sent.bcc.length === 0 ? {} : { bcc: sent.bcc };
        const entry: MessageEntry = { ...filed, ...bcc, id: sent.id, flags: ["seen"] };
        noteUid = (filed) => mailbox.noteUid("sent", entry, filed);
        mutations.push(...await mailbox.addition("sent", entry), ...sent.mutations, {
          kind: "put",
          column: keys.sentColumn(sent.id),
          value: encodeJson({ outId }),
        });
      }
      const sentId = sent?.id ?? null, createdMs = pointer.createdMs;
      const entry: MessageEntry = { ...filed, id: outId, flags: [] };
      const { envelopeFrom } = options;
      mutations.push(...this.#outbox.acceptance(
        { outId, sender, sentId, envelopeFrom, body, entry, createdMs },
        recipients,
      ));
      if (this.#env.monotonicMs() - startMs > ACCEPT_WITHIN_MS) {
        throw new MailError("too_slow", "The message took too long to arrive");
      }
      sure = false;
      const result = await this.#kv.apply({
        row: ownerRow,
        conditions: sent?.conditions ?? [],
        mutations,
      });
      sure = true;
      if (result.applied) {
        await noteUid(result);
        return { accepted: true, pointer };
      }
    } catch (error) {
      // When nobody knows whether it was accepted, the bytes stay until the index tells.
      if (sure || (error instanceof KvError && error.outcome === "not_applied")) {
        await this.#abandon(pointer);
      }
      throw error;
    }
    await this.#abandon(pointer);
    return { accepted: false };
  }

  /** Best effort: what remains is swept later. */
  async #abandon(pointer: OutboxPointer): Promise<void> {
    await this.#outbox.abandon(pointer).catch(() => {});
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
