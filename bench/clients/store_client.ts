/**
 * What the load asks of any store, so that one workload drives PennCloud and its peers alike.
 *
 * A client may have any number of operations under way. Every failure rejects: a run in which
 * anything went wrong gives no figures.
 */

/** Where a store is, in a form that can be handed to another process. */
export type StoreTarget =
  | {
    readonly system: "penncloud";
    readonly configFile: string;
    readonly portOffset: number;
    readonly dir: string;
  }
  | { readonly system: "etcd"; readonly ports: readonly number[] }
  | { readonly system: "redis"; readonly port: number }
  | { readonly system: "sketch"; readonly port: number };

export interface StoreClient {
  put(key: string, value: Uint8Array): Promise<void>;
  /** How many bytes the value has; null when there is none. Linearizable where the system can. */
  get(key: string): Promise<number | null>;
  /**
   * Writes if the key still is as this client left it. Only one loop may use a key.
   *
   * @throws when somebody else has written it
   */
  compareAndPut(key: string, value: Uint8Array): Promise<void>;
  /** How many keys from `start` on, in order, were read with their values: up to `limit`. */
  scan(start: string, limit: number): Promise<number>;
  close(): void;
}
