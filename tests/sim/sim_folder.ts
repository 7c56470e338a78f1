/**
 * The data folder of a simulated node, as far as an open backend needs it: what its replicas go by, and
 * how a damaged one is given up, or all of them. As in kv/disk/identity.ts the name goes first and the file follows; a
 * crash in between leaves a new name with the old file.
 */
import type { StoreFolder, StoreIdentity } from "../../kv/disk/identity.ts";
import { copyId, type GroupId, incarnation, type StoreId, storeId } from "../../proto/ids.ts";
import type { SimNode } from "./sim_node.ts";

export class SimFolder implements StoreFolder {
  readonly #node: SimNode;
  readonly #rebuilds = new Map<GroupId, number>();
  #hasLog = false;

  constructor(node: SimNode) {
    this.#node = node;
  }

  get identity(): StoreIdentity {
    return {
      clusterId: "simulated",
      storeId: storeId(this.#node.store),
      bootCount: incarnation(this.#node.boots),
      kernelBootId: "",
      rebuilds: Object.fromEntries(this.#rebuilds),
      hasLog: this.#hasLog,
    };
  }

  copyOf(gid: GroupId): StoreId {
    return copyId(storeId(this.#node.store), this.#rebuilds.get(gid) ?? 0);
  }

  /** As a new store, with a log of its own; checkpoints and large values stay. */
  async renew(): Promise<void> {
    await this.#node.takeTime();
    this.#node.rename();
    this.#rebuilds.clear();
    this.#hasLog = false;
    await this.#node.takeTime();
    this.#node.loseLog();
  }

  async noteLog(): Promise<void> {
    if (this.#hasLog) return;
    await this.#node.takeTime();
    this.#hasLog = true;
  }

  async giveUpCopy(gid: GroupId): Promise<void> {
    await this.#node.takeTime();
    this.#rebuilds.set(gid, (this.#rebuilds.get(gid) ?? 0) + 1);
    this.#node.durable.delete(gid);
    await this.#node.takeTime();
    this.#node.checkpoints.remove(gid);
  }

  isConfirmed(): boolean {
    return true;
  }

  confirm(): Promise<void> {
    return Promise.resolve();
  }
}
