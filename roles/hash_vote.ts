/**
 * Two replicas applied the same entries and hold different states: who is wrong?
 *
 * The members in sync are asked for their hash as of that entry, and the majority is right. Whoever
 * is alone is damaged in a way that no checksum saw (its memory lied, say) and begins anew; if that is
 * the primary, it goes the same way, so that another takes over. Without a majority everybody checks
 * its own disk first. If nobody finds damage, the states must differ because our own code is not
 * deterministic: then the secondary stops with invariant A7 and keeps its files for whoever has to
 * find out why.
 */
import { kvConversation } from "../proto/kv_wire.ts";
import type { GroupId, Lsn, NodeId } from "../proto/ids.ts";
import type { PeerLinks } from "./peers.ts";

const ANSWER_MS = 2_000;

/** Who is alone with its hash: me, somebody else, or nobody for certain. */
export type Verdict = "me" | "other" | "undecided";

/** Hashes by node as of one entry; a node that could not say is absent. */
export function judge(hashes: ReadonlyMap<number, string>, self: number): Verdict {
  const counts = new Map<string, number>();
  for (const hash of hashes.values()) counts.set(hash, (counts.get(hash) ?? 0) + 1);
  const ranked = [...counts].sort((a, b) => b[1] - a[1]);
  const [first, second] = ranked;
  if (first === undefined || first[1] === (second?.[1] ?? 0)) return "undecided";
  return hashes.get(self) === first[0] ? "other" : "me";
}

/** Asks `members` for their hash of the group's state as of `lsn`. */
export async function askHashes(options: {
  readonly gid: GroupId;
  readonly lsn: Lsn;
  readonly members: readonly NodeId[];
  readonly peers: PeerLinks;
}): Promise<Map<number, string>> {
  const { gid, lsn, members, peers } = options;
  const hashes = new Map<number, string>();
  await Promise.all(members.map(async (node) => {
    try {
      const { body } = await peers.of("backend", node)
        .call(kvConversation, "digest", {}, undefined, { timeoutMs: ANSWER_MS });
      const checks = body.groups.find((group) => group.gid === gid)?.checks ?? [];
      const hash = checks.find((check) => check.lsn === lsn)?.hash;
      if (hash !== undefined) hashes.set(node, hash);
    } catch {
      // Who does not answer has no vote.
    }
  }));
  return hashes;
}
