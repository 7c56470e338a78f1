/**
 * Messages on their way, in the store: accepted once, delivered to each recipient, then forgotten.
 *
 * The owner is the row that accepted the message: the sender's `<user>/mail`, so that filing it in
 * Sent and promising to deliver it are one operation; or, for mail from outside, the body's row.
 *
 *     <owner row>
 *       out/<outId>/head            JSON OutboxHead
 *       out/<outId>/to/<kind>/<nn>  JSON OutboxRecipient[], up to BLOCK_RECIPIENTS of one kind
 *       out/<outId>/claim/<kind>    JSON {by, untilMs}: who is at work. A matter of thrift, not of
 *                                   safety: delivering twice has no effect
 *     <shard>=outbox
 *       o/<outId>                   JSON OutboxPointer; never written AFTER anything else
 *
 * The life of a message, and what a crash after each step leaves behind:
 *
 *   1. pointer in the index    a pointer to nothing; dropped after POINTER_GRACE_MS
 *   2. body, with its holders  the same, and the body is deleted with the pointer
 *   3. head and recipients     ACCEPTED. Any worker finds it through the pointer
 *   4. filed in an inbox       filed again without effect: the message id is there already
 *   5. recipient ticked off    the next one goes on with the rest
 *   6. pointer marked done     nothing: all recipients are served, and the next sweep goes on
 *   7. head deleted            a pointer to nothing, but marked, so the body is not deleted with it:
 *                              others hold it. Only the outbox's own hold is released
 *   8. hold released, pointer deleted
 *
 * Most steps are taken together, in one transaction, which costs one write where the rows lie in one
 * group (keys.ts sees to it that pointer and body mostly do). For a short mail from outside with
 * one recipient that makes three writes in all: 1 to 3 with a claim for the process that accepted it,
 * then 4, then 5 to 8. A body of several chunks is announced first, and takes 1 and 2 by themselves; a
 * message that was sent here takes 3 by itself, in its sender's row.
 */
import type { Env } from "../../kv/env.ts";
import {
  type Condition,
  decodeJson,
  encodeJson,
  type Kv,
  type Mutation,
  type RowOp,
  type RowPage,
} from "../../kv/kv.ts";
import type { Version } from "../../proto/ids.ts";
import { localUser } from "./addresses.ts";
import { type Body, type BodyStore, entryHolder, outboxHolder } from "./body_store.ts";
import * as keys from "./keys.ts";
import type { MessageEntry } from "./message_entry.ts";

/** `local` is an inbox in this store; `outside` is for a process that speaks SMTP. */
export type RecipientKind = "local" | "outside";
export type RecipientStatus = "queued" | "delayed" | "delivered" | "failed";

export interface OutboxRecipient {
  readonly address: string;
  readonly status: RecipientStatus;
  /** In words for the sender: why it is delayed or has failed. */
  readonly detail?: string;
  readonly attempts: number;
  /** Wall time before which it makes no sense to try again. */
  readonly nextMs: number;
  /** The sender was told that it takes long. */
  readonly warned?: boolean;
}

export interface OutboxHead {
  readonly outId: string;
  /** Whose Sent folder it lies in, and who hears of failures; null for mail from outside. */
  readonly sender: string | null;
  readonly sentId: string | null;
  /** The address in MAIL FROM; empty for bounces, which are never bounced again. */
  readonly envelopeFrom: string;
  readonly body: Body;
  /** What each local recipient gets; `id` is the same for all, so a repeated delivery shows. */
  readonly entry: MessageEntry;
  readonly createdMs: number;
}

export interface OutboxPointer {
  readonly outId: string;
  readonly ownerRow: string;
  readonly bodyId: string;
  readonly createdMs: number;
  /** Every recipient is served: tells a message that is done from one that was never accepted. */
  readonly done?: boolean;
  /** Its claim from the start, where that covers all recipients: others need not look before. */
  readonly claim?: Claim;
}

export interface Claim {
  readonly by: string;
  readonly untilMs: number;
}

export interface RecipientBlock {
  readonly column: string;
  readonly kind: RecipientKind;
  readonly condition: Condition;
  readonly recipients: readonly OutboxRecipient[];
}

export interface OutboxItem {
  readonly head: OutboxHead;
  readonly blocks: readonly RecipientBlock[];
  readonly claims: Readonly<Partial<Record<RecipientKind, OutboxClaim>>>;
}

export interface OutboxClaim extends Claim {
  readonly condition: Condition;
}

/** An item that is to be written: its mutations, and what it is once they have been applied. */
export interface NewItem {
  readonly mutations: readonly Mutation[];
  accepted(version: Version): OutboxItem;
}

const BLOCK_RECIPIENTS = 50;
/** Longer than any upload may take between steps 1 and 3; see {@link Outbox.announce}. */
export const POINTER_GRACE_MS = 60 * 60_000;
export const ACCEPT_WITHIN_MS = 30 * 60_000;
const POINTERS_PER_SHARD_MAX = 5000;
/** A dead worker's mail waits at most this long, plus one sweep. */
export const CLAIM_MS = 5_000;

const isDone = ({ status }: OutboxRecipient) => status === "delivered" || status === "failed";
export const isPending = (recipient: OutboxRecipient): boolean => !isDone(recipient);
export const isFinished = ({ blocks }: Pick<OutboxItem, "blocks">): boolean =>
  blocks.every(({ recipients }) => recipients.every(isDone));

/** What the sender sees of each recipient. */
export interface RecipientReport {
  readonly address: string;
  readonly status: RecipientStatus;
  readonly detail?: string;
}

export const reportOf = (item: OutboxItem): RecipientReport[] =>
  item.blocks.flatMap((block) => block.recipients).map(({ address, status, detail }) => ({
    address,
    status,
    ...(detail === undefined ? {} : { detail }),
  }));

export class Outbox {
  readonly #kv: Kv;
  readonly #env: Env;
  readonly #bodies: BodyStore;

  constructor({ kv, env, bodies }: { kv: Kv; env: Env; bodies: BodyStore }) {
    this.#kv = kv;
    this.#env = env;
    this.#bodies = bodies;
  }

  /** Step 1. Acceptance must follow within ACCEPT_WITHIN_MS or not at all. */
  async announce(pointer: OutboxPointer): Promise<void> {
    await this.#kv.apply(this.announcement(pointer));
  }

  /** Step 1 as an operation, for who takes the next steps with it. */
  announcement(pointer: OutboxPointer): RowOp {
    return {
      row: keys.outboxShardRow(pointer.bodyId),
      mutations: [{ kind: "put", column: `o/${pointer.outId}`, value: encodeJson(pointer) }],
    };
  }

  /** Step 3, as mutations: the caller adds what else becomes true in the same operation. */
  acceptance(
    head: OutboxHead,
    recipients: readonly { address: string; kind: RecipientKind }[],
    claim: Claim | null,
  ): NewItem {
    const prefix = keys.outboxPrefix(head.outId), claimColumn = `${prefix}claim/local`;
    const blocks: Omit<RecipientBlock, "condition">[] = [];
    for (const kind of ["local", "outside"] as const) {
      const list = recipients.filter((recipient) => recipient.kind === kind)
        .map(({ address }): OutboxRecipient => ({
          address,
          status: "queued",
          attempts: 0,
          nextMs: 0,
        }));
      for (let at = 0; at < list.length; at += BLOCK_RECIPIENTS) {
        const number = String(at / BLOCK_RECIPIENTS).padStart(2, "0");
        const column = `${prefix}to/${kind}/${number}`;
        blocks.push({ column, kind, recipients: list.slice(at, at + BLOCK_RECIPIENTS) });
      }
    }
    const cells: [string, unknown][] = [
      [`${prefix}head`, head],
      ...blocks.map(({ column, recipients }): [string, unknown] => [column, recipients]),
      ...(claim === null ? [] : [[claimColumn, claim] as [string, unknown]]),
    ];
    return {
      mutations: cells.map(([column, value]) => ({
        kind: "put",
        column,
        value: encodeJson(value),
      })),
      accepted(version) {
        const at = (column: string): Condition => ({ column, is: "version", version });
        return {
          head,
          blocks: blocks.map((block) => ({ ...block, condition: at(block.column) })),
          claims: claim === null ? {} : { local: { ...claim, condition: at(claimColumn) } },
        };
      },
    };
  }

  /** Null when it was never accepted, or is done. */
  async load(ownerRow: string, outId: string): Promise<OutboxItem | null> {
    const prefix = keys.outboxPrefix(outId);
    const page = await this.#kv.getRow(ownerRow, { prefix, limit: 100 });
    let head: OutboxHead | null = null;
    const blocks: RecipientBlock[] = [];
    const claims: Partial<Record<RecipientKind, OutboxClaim>> = {};
    for (const cell of page.cells) {
      const [what, kind] = cell.column.slice(prefix.length).split("/") as [string, RecipientKind];
      const value = decodeJson(cell.value!);
      const { column } = cell;
      const condition: Condition = { column, is: "version", version: cell.version };
      if (what === "head") head = value as OutboxHead;
      else if (what === "claim") {
        claims[kind] = { ...value as { by: string; untilMs: number }, condition };
      } else {
        blocks.push({ column, kind, condition, recipients: value as OutboxRecipient[] });
      }
    }
    return head === null ? null : { head, blocks, claims };
  }

  /** Takes an item, or keeps it. False: another worker was quicker. */
  async claim(
    ownerRow: string,
    item: OutboxItem,
    claim: Claim & { readonly kind: RecipientKind },
  ): Promise<boolean> {
    const prefix = keys.outboxPrefix(item.head.outId);
    const column = `${prefix}claim/${claim.kind}`;
    const held = item.claims[claim.kind]?.condition;
    const result = await this.#kv.apply({
      row: ownerRow,
      conditions: [
        { column: `${prefix}head`, is: "present" },
        held ?? { column, is: "absent" },
      ],
      mutations: [{
        kind: "put",
        column,
        value: encodeJson({ by: claim.by, untilMs: claim.untilMs }),
      }],
    });
    return result.applied;
  }

  /**
   * Step 5: the block as it is now. Null: another worker wrote it meanwhile; load the item again and go
   * on from there.
   */
  async tick(
    ownerRow: string,
    block: RecipientBlock,
    recipients: readonly OutboxRecipient[],
  ): Promise<RecipientBlock | null> {
    const { column } = block;
    const result = await this.#kv.apply({
      row: ownerRow,
      conditions: [block.condition],
      mutations: [{ kind: "put", column, value: encodeJson(recipients) }],
    });
    if (!result.applied) return null;
    return { ...block, recipients, condition: { column, is: "version", version: result.version } };
  }

  /**
   * Steps 6 to 8, and 5 for what is not ticked off yet, when every recipient is delivered or failed. The
   * result stays with the message in Sent for as long as that exists. False: the item changed; load
   * it again.
   */
  async finish(pointer: OutboxPointer, item: OutboxItem): Promise<boolean> {
    const { head, blocks } = item;
    const conditions: Condition[] = blocks.map((block) => block.condition);
    let other = otherHolder(item);
    if (other !== null && pointer.ownerRow === keys.bodyRow(pointer.bodyId)) {
      const outcome = await this.#finishAtOnce(pointer, conditions, other);
      if (outcome !== "alone") return outcome === "finished";
      other = null;
    }
    await this.#kv.apply(this.announcement({ ...pointer, done: true }));
    const mutations: Mutation[] = [
      { kind: "deletePrefix", prefix: keys.outboxPrefix(head.outId) },
    ];
    if (head.sentId !== null) {
      // Absent when the sender has deleted the message for good: then nobody asks any more.
      const column = keys.sentColumn(head.sentId);
      const report = await this.#kv.get(pointer.ownerRow, column);
      if (report !== null) {
        conditions.push({ column, is: "present" });
        mutations.push({ kind: "put", column, value: encodeJson({ recipients: reportOf(item) }) });
      }
    }
    const result = await this.#kv.apply({ row: pointer.ownerRow, conditions, mutations });
    if (!result.applied) return false;
    await this.#forget(pointer, other);
    return true;
  }

  /**
   * All of it in one operation, where the owner's row is the body's and `other` holds the body too.
   * "alone": not any more, so that who lets go of it has to look, and to delete it.
   */
  async #finishAtOnce(
    pointer: OutboxPointer,
    conditions: readonly Condition[],
    other: string,
  ): Promise<"finished" | "changed" | "alone"> {
    const release = this.#bodies.releaseBeside(
      pointer.bodyId,
      outboxHolder(pointer.outId),
      other,
    );
    const result = await this.#kv.transact([
      {
        row: release.row,
        conditions: [...conditions, ...release.conditions ?? []],
        mutations: [
          { kind: "deletePrefix", prefix: keys.outboxPrefix(pointer.outId) },
          ...release.mutations,
        ],
      },
      this.#removal(pointer),
    ]);
    if (result.applied) return "finished";
    return result.conditionIndex < conditions.length ? "changed" : "alone";
  }

  /** @param other somebody who holds the body as well, as far as is known */
  async #forget(pointer: OutboxPointer, other: string | null = null): Promise<void> {
    const { bodyId } = pointer, holder = outboxHolder(pointer.outId);
    if (other !== null) {
      const release = this.#bodies.releaseBeside(bodyId, holder, other);
      if ((await this.#kv.transact([release, this.#removal(pointer)])).applied) return;
    }
    await this.#bodies.release(bodyId, holder);
    await this.#dropPointer(pointer);
  }

  async #dropPointer(pointer: OutboxPointer): Promise<void> {
    await this.#kv.apply(this.#removal(pointer));
  }

  #removal({ bodyId, outId }: OutboxPointer): RowOp {
    return {
      row: keys.outboxShardRow(bodyId),
      mutations: [{ kind: "delete", column: `o/${outId}` }],
    };
  }

  /** What to do about a pointer whose head does not exist: see steps 1, 2 and 7 above. */
  async tidy(pointer: OutboxPointer): Promise<void> {
    if (pointer.done === true) return this.#forget(pointer);
    if (this.#env.wallMs() - pointer.createdMs < POINTER_GRACE_MS) return;
    // Since it was read, another worker may have finished the message: then the body has its readers.
    const { row, mutations } = this.#removal(pointer), column = `o/${pointer.outId}`;
    await this.#kv.transact([
      {
        row,
        conditions: [{ column, is: "value", value: encodeJson(pointer) }],
        mutations,
      },
      this.#bodies.deletion(pointer.bodyId),
    ]);
  }

  /** Undoes steps 1 and 2 right away when the caller knows that step 3 did not happen. */
  async abandon(pointer: OutboxPointer): Promise<void> {
    await this.#bodies.delete(pointer.bodyId);
    await this.#dropPointer(pointer);
  }

  /** All pointers of one shard, oldest ids in no particular order. */
  async pointers(shard: string): Promise<OutboxPointer[]> {
    const pointers: OutboxPointer[] = [];
    let after: string | null = null;
    do {
      const page: RowPage = await this.#kv.getRow(keys.shardRow(shard), {
        prefix: "o/",
        limit: 1000,
        ...(after === null ? {} : { after }),
      });
      for (const cell of page.cells) pointers.push(decodeJson(cell.value!) as OutboxPointer);
      after = page.next;
    } while (after !== null && pointers.length < POINTERS_PER_SHARD_MAX);
    return pointers;
  }
}

/** Who will most likely hold the body when all is done: the sender, or somebody who got it. */
function otherHolder({ head, blocks }: OutboxItem): string | null {
  const { sender, sentId, outId } = head;
  if (sender !== null && sentId !== null) return entryHolder(sender, sentId);
  const served = blocks.filter(({ kind }) => kind === "local").flatMap((block) => block.recipients)
    .find(({ status }) => status === "delivered");
  return served === undefined ? null : entryHolder(localUser(served.address), outId);
}
