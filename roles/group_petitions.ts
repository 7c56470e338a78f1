/** What a replica asks of the coordinator, and how the answers, or that there is none, come back to it. */
import { mutated } from "../kv/mutant.ts";
import type { Effect, Input, Self } from "../kv/replica.ts";
import { coordinatorConversation } from "../proto/control.ts";
import type { GroupId } from "../proto/ids.ts";
import type { GroupConfig } from "../proto/replication.ts";
import type { PeerLinks } from "./peers.ts";

export interface GroupPetitionsOptions {
  readonly gid: GroupId;
  readonly self: Self;
  readonly peers: PeerLinks;
  readonly feed: (input: Input) => void;
}

const PROPOSAL_TIMEOUT_MS = 2_000;
const RECORD_TIMEOUT_MS = 900;

export class GroupPetitions {
  readonly #options: GroupPetitionsOptions;

  constructor(options: GroupPetitionsOptions) {
    this.#options = options;
  }

  propose(effect: Effect & { kind: "propose" }): void {
    const { gid, self, peers } = this.#options;
    const { epoch, changeId, change } = effect;
    const body = { gid, ...self, epoch, changeId, change };
    peers.coordinator.call(coordinatorConversation, "propose", body, undefined, {
      timeoutMs: PROPOSAL_TIMEOUT_MS,
    })
      .then(
        ({ body: { result, config } }) =>
          this.#options.feed({ kind: "proposed", changeId, result, config }),
        // Unknown, so the replica keeps to the stricter of both worlds and asks again.
        () => {
          if (!mutated("unknown-change-is-refused")) return;
          this.#options.feed({ kind: "proposed", changeId, result: "refused", config: null });
        },
      );
  }

  suspect(effect: Effect & { kind: "suspect" }): void {
    const { gid, self, peers } = this.#options;
    const { epoch, silentMs } = effect;
    const body = { gid, node: self.node, epoch, silentMs };
    peers.coordinator.call(coordinatorConversation, "suspect", body).catch(() => {});
  }

  /** The coordinator reads its durable record for each such question, so the answer is not a memory. */
  checkRecord(checkId: number): void {
    const answer = (config: GroupConfig | null) =>
      this.#options.feed({ kind: "recordChecked", checkId, config });
    this.#options.peers.coordinator
      .call(coordinatorConversation, "configOf", { gid: this.#options.gid }, undefined, {
        timeoutMs: RECORD_TIMEOUT_MS,
      })
      .then(({ body: { config } }) => answer(config), () => answer(null));
  }

  askConfig(): void {
    this.#options.peers.coordinator
      .call(coordinatorConversation, "configOf", { gid: this.#options.gid }).then(
        ({ body: { config } }) => {
          if (config !== null) this.#options.feed({ kind: "config", config, learners: null });
        },
        () => {},
      );
  }
}
