/**
 * What a client process is told and what it says: one line of JSON each, on its standard input and
 * output, an answer for each order in turn.
 */
import type { StoreTarget } from "../clients/store_client.ts";
import type { HistogramParts } from "./histogram.ts";
import type { KeySpread } from "./key_choice.ts";
import type { KvLoad } from "./kv_workload.ts";

export type LoadOrder =
  | { readonly order: "connect"; readonly target: StoreTarget }
  | {
    readonly order: "fill";
    readonly from: number;
    readonly until: number;
    readonly spread: KeySpread;
    readonly valueBytes: number;
    readonly outstanding: number;
  }
  | { readonly order: "run"; readonly load: KvLoad; readonly seconds: number };

export type LoadAnswer =
  | { readonly ok: true; readonly run?: RunAnswer }
  | { readonly ok: false; readonly error: string };

export interface RunAnswer {
  readonly latencies: HistogramParts;
  readonly seconds: number;
}
