/** What a primary's proposal makes of its group's configuration: members leave, come in, or take over. */
import { epoch as toEpoch } from "../proto/ids.ts";
import type { ConfigChange, GroupConfig, Member } from "../proto/replication.ts";
import type { KnownNodes } from "./known_nodes.ts";
import { mutated } from "./mutant.ts";

/**
 * T1 to T3, and T4 when the primary itself asks for it. The epoch is raised by whoever records it.
 *
 * @returns null when the guard does not hold
 */
export function changedConfig(
  config: GroupConfig,
  change: ConfigChange,
  nodes: KnownNodes,
): GroupConfig | null {
  const same = (a: Member, b: Member) => a.node === b.node && a.store === b.store;
  switch (change.kind) {
    case "remove": {
      const { member } = change;
      const inSync = config.inSync.filter((item) => !same(item, member));
      if (inSync.length === config.inSync.length || member.node === config.primary.node) {
        return null;
      }
      // Below the minimum nothing can be committed, so who leaves now stays complete.
      const eligible = enough(inSync, config) ? [] : [...config.eligible, member];
      const reason = `backend/${member.node} left`;
      return { ...config, inSync, eligible, reason };
    }
    case "add": {
      const { member } = change;
      if (config.inSync.some((item) => item.node === member.node)) return null;
      if (!nodes.mayCount(config.gid, member)) return null;
      const inSync = [...config.inSync, member];
      const eligible = enough(inSync, config)
        ? []
        : config.eligible.filter((item) => !same(item, member));
      return { ...config, inSync, eligible, reason: `backend/${member.node} caught up` };
    }
    case "relinquish": {
      const { to } = change;
      if (!config.inSync.some((item) => same(item, to))) return null;
      if (!nodes.mayCount(config.gid, to) || to.node === config.primary.node) return null;
      return {
        ...config,
        reign: toEpoch(config.epoch + 1),
        primary: { ...to, inc: nodes.get(to.node)!.inc },
        deadReign: config.reign,
        reason: `backend/${config.primary.node} handed over to backend/${to.node}`,
      };
    }
  }
}

/** Whether these can commit, after which whoever is not among them is no longer complete. */
export function enough(inSync: readonly Member[], config: GroupConfig): boolean {
  return inSync.length >= config.minInSync && !mutated("eligible-not-cleared");
}
