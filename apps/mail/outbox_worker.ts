/**
 * Carries accepted messages to their recipients. One runs in every frontend (local inboxes) and in
 * every mail process (outside addresses too); each sweeps the whole index, so when one dies the
 * others finish its work as soon as its claim has run out.
 *
 * Promises: every local recipient gets exactly one copy; an outside recipient at least one, as SMTP
 * cannot do better; a sender hears in plain words of what fails and of what takes long.
 * Start at {@link OutboxWorker.deliver}; the steps and their crashes are in outbox.ts.
 */
import type { Env } from "../../kv/env.ts";
import { KvError } from "../../kv/errors.ts";
import type { Kv } from "../../kv/kv.ts";
import { untilBeatMs } from "../../kv/repeat.ts";
import { localUser } from "./addresses.ts";
import { type BodyStore, entryHolder } from "./body_store.ts";
import { OUTBOX_SHARDS } from "./keys.ts";
import { Mailbox } from "./mailbox.ts";
import {
  type Claim,
  CLAIM_MS,
  isFinished,
  isPending,
  type Outbox,
  type OutboxHead,
  type OutboxItem,
  type OutboxPointer,
  type OutboxRecipient,
  type RecipientBlock,
  type RecipientKind,
} from "./outbox.ts";
import { fileNotice } from "./sender_notice.ts";

/** Who has a mailbox here; `Accounts` is one. */
export interface LocalUsers {
  find(username: string): Promise<unknown | null>;
}

/** Hands messages to other mail servers; roles/mail_outside.ts speaks SMTP. */
export interface OutsideTransport {
  /** One try for recipients that share a domain. It answers for each address and never throws. */
  send(message: {
    readonly from: string;
    readonly recipients: readonly string[];
    readonly size: number;
    readonly source: () => AsyncIterable<Uint8Array>;
    readonly signal: AbortSignal;
  }): Promise<ReadonlyMap<string, OutsideResult>>;
}

export type OutsideResult =
  | { readonly kind: "delivered" }
  /** Try again later. `detail` is a sentence without its full stop. */
  | { readonly kind: "deferred"; readonly detail: string }
  | { readonly kind: "refused"; readonly detail: string };

export interface OutboxWorkerOptions {
  readonly kv: Kv;
  readonly env: Env;
  readonly bodies: BodyStore;
  readonly outbox: Outbox;
  readonly users: LocalUsers;
  readonly mailDomain: string;
  readonly retryHours: number;
  /** Names this worker in claims. */
  readonly workerId: string;
  readonly outside?: OutsideTransport;
  /** How many workers like this one there are, which take turns at the sweep; 1 when absent. */
  readonly peerCount?: number;
}

/** SMTP may be slow; the claim is renewed meanwhile. */
const OUTSIDE_CLAIM_MS = 20_000;
/** Of all workers that deliver the same together. */
export const SWEEP_INTERVAL_MS = 2_000;
/** Enough that the writes of several share syncs; each holds a piece of a message at most. */
const ITEMS_AT_ONCE = 32;
const RECIPIENTS_AT_ONCE = 8;
const WAITING_KICKS_MAX = 200;
/** A claim that is about to run out is no good to begin with. */
const CLAIM_LEFT_MS_MIN = CLAIM_MS / 2;
const LOOK_AGAIN_MS = 1_000;
/** 1, 2, 4 … minutes, then every hour. */
const RETRY_FIRST_MS = 60_000;
const RETRY_MAX_MS = 3_600_000;
export const WARN_AFTER_MS = 4 * 3_600_000;

/** Everything that still has to be written when this is thrown is written by another worker. */
class LostClaim extends Error {}

export class OutboxWorker {
  readonly #options: OutboxWorkerOptions;
  readonly #env: Env;
  readonly #kinds: readonly RecipientKind[];
  readonly #busy = new Map<string, Promise<void>>();
  /** When it makes sense to look at an item again; what is not in the index any more is forgotten. */
  readonly #notBefore = new Map<string, number>();
  /** Accepted here and waiting for their turn; null: to be loaded. By outId, oldest first. */
  readonly #kicks = new Map<string, { pointer: OutboxPointer; item: OutboxItem | null }>();
  readonly #stop = new AbortController();
  #loop: Promise<void> | null = null;

  constructor(options: OutboxWorkerOptions) {
    this.#options = options;
    this.#env = options.env;
    this.#kinds = options.outside === undefined ? ["local"] : ["local", "outside"];
  }

  /** Sweeps until `stop`. */
  start(): void {
    this.#loop ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error("the worker stops"));
    await this.#loop;
    await Promise.allSettled(this.#busy.values());
  }

  /** Delivers a message that was accepted in this process without waiting for the sweep. */
  kick(pointer: OutboxPointer, item: OutboxItem | null): void {
    // Too many at once: the sweep takes them from the index.
    if (this.#kicks.size >= WAITING_KICKS_MAX || this.#stop.signal.aborted) return;
    this.#kicks.set(pointer.outId, { pointer, item });
    this.#startKicked();
  }

  /** Resolves when nothing that was kicked is left. */
  async idle(): Promise<void> {
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy.values());
  }

  #startKicked(): void {
    for (const { pointer } of this.#kicks.values()) {
      if (this.#busy.size >= ITEMS_AT_ONCE) return;
      void this.#take(pointer);
    }
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.sweep();
      } catch (error) {
        this.#log("the outbox sweep stopped early", error);
      }
      const { peerCount = 1 } = this.#options;
      const waitMs = SWEEP_INTERVAL_MS * peerCount * (0.75 + this.#env.random() / 2);
      await this.#env.sleep(untilBeatMs(this.#env, waitMs), this.#stop.signal).catch(() => {});
    }
  }

  /**
   * Looks at every outbox of the cluster once and works on those that are due. All parts of the index are
   * asked for at once: each node is woken once, and one that does not answer keeps nobody else's mail.
   *
   * @throws what kept a part from being read, once all is done for the others
   */
  async sweep(): Promise<void> {
    const { outbox } = this.#options, gone = new Set(this.#notBefore.keys());
    const looks = OUTBOX_SHARDS.map(async (shard) => {
      for (const pointer of await outbox.pointers(shard)) {
        gone.delete(pointer.outId);
        await this.#takeIfDue(pointer);
      }
    });
    const failed = (await Promise.allSettled(looks)).find(({ status }) => status === "rejected");
    await this.idle();
    if (failed?.status === "rejected") throw failed.reason;
    for (const outId of gone) this.#notBefore.delete(outId);
  }

  async #takeIfDue(pointer: OutboxPointer): Promise<void> {
    const waitUntilMs = this.#notBefore.get(pointer.outId) ?? 0;
    if (waitUntilMs > this.#env.wallMs() || this.#isOthers(pointer.claim)) return;
    while (this.#busy.size >= ITEMS_AT_ONCE) await Promise.race(this.#busy.values());
    if (!this.#stop.signal.aborted) void this.#take(pointer);
  }

  #isOthers(claim: Claim | undefined): boolean {
    return claim !== undefined && claim.by !== this.#options.workerId &&
      claim.untilMs > this.#env.wallMs();
  }

  #take(pointer: OutboxPointer): Promise<void> {
    const { outId } = pointer;
    const running = this.#busy.get(outId);
    if (running !== undefined) return running;
    const accepted = this.#kicks.get(outId)?.item ?? null;
    this.#kicks.delete(outId);
    const work = this.deliver(pointer, accepted).catch((error) => {
      // Nothing is lost: the item stays in the store, and the next sweep finds it.
      this.#notBefore.set(outId, this.#env.wallMs() + LOOK_AGAIN_MS);
      if (!(error instanceof LostClaim)) this.#log("a delivery was interrupted", error, outId);
    }).finally(() => {
      this.#busy.delete(outId);
      this.#startKicked();
    });
    this.#busy.set(outId, work);
    return work;
  }

  /**
   * Does for one message what can be done now.
   *
   * @param accepted as it was accepted here; whoever has touched it since shows when it is written
   */
  async deliver(pointer: OutboxPointer, accepted: OutboxItem | null = null): Promise<void> {
    const { outbox } = this.#options;
    let item = accepted ?? await outbox.load(pointer.ownerRow, pointer.outId);
    if (item === null) {
      // Just announced and not accepted yet, most likely; or long dead.
      this.#notBefore.set(pointer.outId, this.#env.wallMs() + LOOK_AGAIN_MS);
      return await outbox.tidy(pointer);
    }
    for (const kind of this.#kinds) item = await this.#deliverKind(pointer, item, kind);
    if (!isFinished(item)) {
      // Others may be at work on the rest.
      item = await outbox.load(pointer.ownerRow, pointer.outId);
      if (item === null) return;
    }
    if (isFinished(item)) {
      await outbox.finish(pointer, item);
      return;
    }
    const pending = item.blocks.filter((block) => block.recipients.some(isPending));
    this.#notBefore.set(pointer.outId, this.#nextLookMs(item, pending));
  }

  #nextLookMs(item: OutboxItem, pending: readonly RecipientBlock[]): number {
    const soonMs = this.#env.wallMs() + LOOK_AGAIN_MS;
    const times = pending.flatMap((block): number[] => {
      // What we cannot deliver ourselves is over when its pointer disappears from the index.
      if (!this.#kinds.includes(block.kind)) return [soonMs + 60_000];
      const claimedMs = item.claims[block.kind]?.untilMs ?? 0;
      return block.recipients.filter(isPending)
        .map(({ nextMs }) => nextMs > soonMs ? nextMs : Math.min(claimedMs, soonMs + CLAIM_MS));
    });
    return Math.max(soonMs, Math.min(...times));
  }

  /** Gives the item as it is then; what completes it is not ticked off, as `finish` does that too. */
  async #deliverKind(
    pointer: OutboxPointer,
    item: OutboxItem,
    kind: RecipientKind,
  ): Promise<OutboxItem> {
    const nowMs = this.#env.wallMs();
    const due = (recipient: OutboxRecipient) => isPending(recipient) && recipient.nextMs <= nowMs;
    const blocks = item.blocks.filter((block) => block.kind === kind && block.recipients.some(due));
    if (blocks.length === 0) return item;
    const held = item.claims[kind], { workerId, outbox } = this.#options;
    if (this.#isOthers(held)) return item;
    const mayGoOn = kind === "local" && held?.by === workerId &&
      held.untilMs >= nowMs + CLAIM_LEFT_MS_MIN;
    if (!mayGoOn) {
      const claimMs = kind === "local" ? CLAIM_MS : OUTSIDE_CLAIM_MS;
      const claim = { kind, by: workerId, untilMs: nowMs + claimMs };
      if (!await outbox.claim(pointer.ownerRow, item, claim)) throw new LostClaim();
    }
    let now = item;
    for (const block of blocks) {
      const tried = kind === "local"
        ? await this.#tryLocal(item.head, block.recipients, due)
        : await this.#tryOutside(pointer, item.head, block.recipients, due);
      const settled: OutboxRecipient[] = [];
      for (const recipient of tried) settled.push(await this.#tellSender(item.head, recipient));
      const unticked = withBlock(now, { ...block, recipients: settled });
      if (isFinished(unticked)) return unticked;
      const ticked = await outbox.tick(pointer.ownerRow, block, settled);
      if (ticked === null) throw new LostClaim();
      now = withBlock(now, ticked);
    }
    return now;
  }

  async #tryLocal(
    head: OutboxHead,
    recipients: readonly OutboxRecipient[],
    due: (recipient: OutboxRecipient) => boolean,
  ): Promise<OutboxRecipient[]> {
    const results = [...recipients];
    const waiting = recipients.keys().filter((index) => due(recipients[index]!)).toArray();
    const failures: unknown[] = [];
    const lane = async () => {
      for (let index = waiting.shift(); index !== undefined; index = waiting.shift()) {
        try {
          results[index] = await this.#fileLocally(head, recipients[index]!);
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: RECIPIENTS_AT_ONCE }, lane));
    // Some inboxes may be on a tablet that is away: note what went well before giving up.
    const nothingDone = results.every((result, index) => result === recipients[index]);
    if (failures.length > 0 && nothingDone) throw failures[0];
    return results;
  }

  async #fileLocally(head: OutboxHead, recipient: OutboxRecipient): Promise<OutboxRecipient> {
    const user = localUser(recipient.address);
    if (await this.#options.users.find(user) === null) {
      return await this.#undeliverable(head, recipient, "there is no such user here");
    }
    try {
      await this.#mailbox(user).add("inbox", { ...head.entry, receivedMs: this.#env.wallMs() });
    } catch (error) {
      if (!(error instanceof KvError) || error.code !== "row_too_large") throw error;
      return await this.#undeliverable(head, recipient, "the mailbox is full");
    }
    return done(recipient);
  }

  async #undeliverable(
    head: OutboxHead,
    recipient: OutboxRecipient,
    detail: string,
  ): Promise<OutboxRecipient> {
    const holder = entryHolder(localUser(recipient.address), head.outId);
    await this.#options.bodies.release(head.body.bodyId, holder);
    return { ...recipient, status: "failed", detail };
  }

  async #tryOutside(
    pointer: OutboxPointer,
    head: OutboxHead,
    recipients: readonly OutboxRecipient[],
    due: (recipient: OutboxRecipient) => boolean,
  ): Promise<OutboxRecipient[]> {
    const results = new Map<string, OutsideResult>();
    const byDomain = Map.groupBy(
      recipients.filter(due),
      ({ address }) => address.slice(address.lastIndexOf("@") + 1).toLowerCase(),
    );
    const stopRenewing = this.#renewClaim(pointer);
    try {
      for (const group of byDomain.values()) {
        const answers = await this.#options.outside!.send({
          from: head.envelopeFrom,
          recipients: group.map(({ address }) => address),
          size: head.body.size,
          source: () => this.#options.bodies.read(head.body),
          signal: this.#stop.signal,
        });
        for (const [address, answer] of answers) results.set(address, answer);
        if (this.#stop.signal.aborted) break;
      }
    } finally {
      stopRenewing();
    }
    return recipients.map((recipient) => {
      const result = results.get(recipient.address);
      return result === undefined ? recipient : this.#judge(head, recipient, result);
    });
  }

  #renewClaim(pointer: OutboxPointer): () => void {
    const { outbox, workerId } = this.#options;
    let cancel = () => {};
    const renew = async () => {
      const item = await outbox.load(pointer.ownerRow, pointer.outId);
      const untilMs = this.#env.wallMs() + OUTSIDE_CLAIM_MS;
      if (item?.claims.outside?.by === workerId) {
        await outbox.claim(pointer.ownerRow, item, { kind: "outside", by: workerId, untilMs });
      }
    };
    const schedule = () => {
      cancel = this.#env.timer(OUTSIDE_CLAIM_MS / 3, () => {
        schedule();
        renew().catch((error) => this.#log("a claim was not renewed", error, pointer.outId));
      });
    };
    schedule();
    return () => cancel();
  }

  #judge(head: OutboxHead, recipient: OutboxRecipient, result: OutsideResult): OutboxRecipient {
    if (result.kind === "delivered") return done(recipient);
    const { detail } = result, nowMs = this.#env.wallMs();
    if (result.kind === "refused") return { ...recipient, status: "failed", detail };
    const attempts = recipient.attempts + 1;
    if (nowMs >= this.#giveUpMs(head)) {
      const words =
        `we tried for ${this.#options.retryHours} hours; the last answer was: ${detail}`;
      return { ...recipient, status: "failed", attempts, detail: words };
    }
    const waitMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** (attempts - 1));
    const nextMs = nowMs + waitMs * (0.9 + this.#env.random() / 5);
    return { ...recipient, status: "delayed", attempts, detail, nextMs };
  }

  #giveUpMs(head: OutboxHead): number {
    return head.createdMs + this.#options.retryHours * 3_600_000;
  }

  /**
   * Files the notice before the failure is ticked off: a crash between the two repeats it without
   * effect, while the other order could lose it.
   */
  async #tellSender(head: OutboxHead, recipient: OutboxRecipient): Promise<OutboxRecipient> {
    const late = recipient.status === "delayed" && recipient.warned !== true &&
      this.#env.wallMs() - head.createdMs >= WARN_AFTER_MS;
    if (recipient.status !== "failed" && !late) return recipient;
    const kind = late ? "delayed" : "failed";
    await fileNotice(this.#options, { kind, head, recipient, giveUpMs: this.#giveUpMs(head) });
    return late ? { ...recipient, warned: true } : recipient;
  }

  #mailbox(user: string): Mailbox {
    return new Mailbox({ kv: this.#options.kv, env: this.#env, user });
  }

  #log(event: string, error: unknown, outId?: string): void {
    this.#env.log("warning", event, {
      ...(outId === undefined ? {} : { outId }),
      error: error instanceof Error ? error.message : String(error),
    });
  }
}

const withBlock = (item: OutboxItem, block: RecipientBlock): OutboxItem => ({
  ...item,
  blocks: item.blocks.map((other) => other.column === block.column ? block : other),
});

function done({ address, attempts }: OutboxRecipient): OutboxRecipient {
  return { address, status: "delivered", attempts, nextMs: 0 };
}
