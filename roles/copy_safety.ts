/**
 * May this node's damaged copy of a group be given up? Only if somebody else has everything.
 *
 * That is so when the group is led by another node: the coordinator's rules let nobody lead who lacks
 * a committed entry. Neither the coordinator's record nor the other node's own word is enough alone:
 * the record may be out of date, the node may have been deposed. So both are asked, and have to name
 * the same epoch. Until then nothing is touched, and whoever looks is told what it is waiting for.
 */
import type { Env } from "../kv/env.ts";
import { backendConversation, coordinatorConversation } from "../proto/control.ts";
import type { GroupId } from "../proto/ids.ts";
import type { PeerLinks } from "./peers.ts";
import type { RoleContext } from "./role_context.ts";

const ASK_EVERY_MS = 250;
const ANSWER_MS = 1_500;

export class CopySafety {
  readonly #env: Env;
  readonly #self: number;
  readonly #peers: PeerLinks;

  constructor(context: Pick<RoleContext, "env" | "node">, peers: PeerLinks) {
    this.#env = context.env;
    this.#self = context.node.id;
    this.#peers = peers;
  }

  /**
   * Resolves once the group's data is safe without this node's copy.
   *
   * @param onWaiting told why not, whenever that changes
   */
  async untilSafe(
    gid: GroupId,
    { onWaiting, signal }: { onWaiting: (why: string) => void; signal: AbortSignal },
  ): Promise<void> {
    for (let before = "";;) {
      signal.throwIfAborted();
      const why = await this.whyNeeded(gid);
      if (why === null) return;
      if (why !== before) onWaiting(why);
      before = why;
      await this.#env.sleep(ASK_EVERY_MS, signal);
    }
  }

  /** Null when the copy may be given up. */
  async whyNeeded(gid: GroupId): Promise<string | null> {
    let config;
    try {
      const answer = await this.#peers.coordinator
        .call(coordinatorConversation, "configOf", { gid }, undefined, { timeoutMs: ANSWER_MS });
      config = answer.body.config;
    } catch {
      return "the coordinator does not answer";
    }
    if (config === null) return `the coordinator has no record of group ${gid}`;
    const { primary, inSync, eligible, epoch } = config;
    const others = new Set([...inSync, ...eligible].map(({ node }) => Number(node)));
    others.delete(this.#self);
    if (primary.node === this.#self) {
      return others.size === 0
        ? `no other copy of group ${gid} is complete, so this one is kept as it is: put the folder ` +
          `back from a backup, or see \`penncloud admin wal-salvage backend/${this.#self}\``
        : `group ${gid} waits for ${listNodes(others)} to take over`;
    }
    const silent = `group ${gid} waits for ${listNodes(others)}`;
    try {
      const { body } = await this.#peers.of("backend", primary.node)
        .call(backendConversation, "poll", {}, undefined, { timeoutMs: ANSWER_MS });
      const report = body.report.groups.find((item) => item.gid === gid);
      const leads = report?.role === "primary" && report.epoch === epoch && report.suspect !== true;
      return leads ? null : silent;
    } catch {
      return silent;
    }
  }
}

function listNodes(ids: Iterable<number>): string {
  return Array.from(ids, (id) => `backend/${id}`).join(" or ");
}
