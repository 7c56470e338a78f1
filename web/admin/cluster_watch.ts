/**
 * One frontend's eye on the cluster: while anybody listens it asks for the status once a second,
 * however many listen, and tells each what changed. The last changes are kept for who comes next;
 * what happened while nobody listened shows as the difference between two looks.
 */
import { type Env, freshId } from "../../kv/env.ts";
import type { ClusterStatus } from "../../proto/cluster_status.ts";
import type { AdminSource } from "../context.ts";
import { ApiError } from "../errors.ts";
import { clusterChanges, type NumberedChange } from "./cluster_changes.ts";

const LOOK_EVERY_MS = 1_000;
const LISTENERS_MAX = 64;
export const HISTORY_MAX = 300;

export interface WatchListener {
  /** The status as JSON; the same string for all listeners. */
  status(json: string): void;
  change(change: NumberedChange): void;
}

export class ClusterWatch {
  readonly #source: Pick<AdminSource, "status">;
  readonly #env: Env;
  readonly #listeners = new Set<WatchListener>();
  /** Begins every id of a change, so that a list of another frontend is not taken for ours. */
  readonly #name: string;
  #history: NumberedChange[] = [];
  #last: ClusterStatus | null = null;
  #lastJson: string | null = null;
  #changeCount = 0;
  #looking = false;
  #failing = false;
  #cancel: (() => void) | null = null;

  constructor(source: Pick<AdminSource, "status">, env: Env) {
    this.#source = source;
    this.#env = env;
    this.#name = freshId(env).slice(0, 8);
  }

  get listenerCount(): number {
    return this.#listeners.size;
  }

  /**
   * Tells the listener the changes it has not had, then everything as it happens.
   *
   * @param lastId the id of the last change it had, from an earlier connection
   * @returns ends it
   * @throws {ApiError} 503 when too many listen
   */
  listen(listener: WatchListener, lastId: string | null = null): () => void {
    if (this.#listeners.size >= LISTENERS_MAX) {
      throw new ApiError(503, "too_many_listeners", "Too many consoles are open here.", {
        headers: { "Retry-After": "10" },
      });
    }
    for (const change of this.#after(lastId)) listener.change(change);
    // An old document would show a past state as the present one.
    if (this.#listeners.size > 0 && this.#lastJson !== null) listener.status(this.#lastJson);
    this.#listeners.add(listener);
    if (!this.#looking && this.#cancel === null) void this.#look();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#cancel?.();
      this.#cancel = null;
    };
  }

  #after(lastId: string | null): readonly NumberedChange[] {
    const known = this.#history.findIndex((change) => change.id === lastId);
    return this.#history.slice(known + 1);
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#cancel = null;
    try {
      this.#take(await this.#source.status());
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) {
        this.#env.log("warning", "the cluster's status cannot be had", { error: `${error}` });
      }
      this.#failing = true;
    }
    this.#looking = false;
    if (this.#listeners.size === 0) return;
    this.#cancel = this.#env.timer(LOOK_EVERY_MS, () => void this.#look());
  }

  #take(status: ClusterStatus): void {
    const changes = this.#last === null ? [] : clusterChanges(this.#last, status);
    this.#last = status;
    this.#lastJson = JSON.stringify(status);
    const numbered = changes.map((change) => ({
      ...change,
      id: `${this.#name}.${++this.#changeCount}`,
    }));
    this.#history = [...this.#history, ...numbered].slice(-HISTORY_MAX);
    for (const listener of this.#listeners) {
      for (const change of numbered) listener.change(change);
      listener.status(this.#lastJson);
    }
  }
}
