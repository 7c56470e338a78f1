/**
 * Are transactions strictly serializable? The method of Elle (Kingsbury and Alvaro, VLDB 2020):
 * transactions append unique elements to lists and read whole lists. What is read then shows the order
 * in which the elements were appended, and with it how the transactions depend on each other:
 *
 *     ww  appended the element right behind the other's
 *     wr  read a list that ends with the other's element
 *     rw  read a list that the other's element was appended to next
 *     rt  was called after the other had returned
 *
 * Serial execution makes no cycle. A cycle is named by the weakest edges that it needs (Adya 1999):
 *
 *     G0        ww only: writes of two transactions are interleaved
 *     G1c       ww and wr: circular information flow
 *     G-single  one rw: read skew, lost update
 *     G2        more rw: write skew
 *     …-realtime  the same with rt: serializable, but not in the order of time (a stale read)
 *
 * and without any cycle: `G1a` (read of what an aborted transaction appended), `G1b` (read of a
 * transaction's first elements without its last), `internal` (a transaction that does not see its
 * own appends, or whose appends are in another order), `duplicate` (one append executed twice), `invented` (an element nobody appended),
 * `fork` (two reads of a list of which neither is a prefix of the other).
 *
 * A transaction of unknown outcome takes part if somebody saw an element of it. An element that was
 * acknowledged and is in no read yet was appended after all that was read. Linear in the size of the
 * history, but for the shortest cycles, which are looked for only where there are any.
 *
 * Start at {@link checkListAppend}.
 */
import { DependencyGraph, type Edge } from "./dependency_graph.ts";
import type { Operation } from "./history.ts";
import { Problems, type Verdict } from "./verdict.ts";

export type ListStep =
  | { readonly kind: "append"; readonly key: string; readonly element: string }
  /** `list` null: the answer was not seen. */
  | { readonly kind: "read"; readonly key: string; readonly list: readonly string[] | null };

export interface ListTransaction {
  /** Names it in messages, say `T17 of client c3`. */
  readonly name: string;
  readonly outcome: "ok" | "fail" | "unknown";
  readonly steps: readonly ListStep[];
  /** Order of the two events; any rising numbers. No return: `Infinity`. */
  readonly callIndex: number;
  readonly returnIndex: number;
}

export type Anomaly =
  | "duplicate"
  | "invented"
  | "fork"
  | "internal"
  | "G1a"
  | "G1b"
  | "G0"
  | "G1c"
  | "G-single"
  | "G2"
  | "G0-realtime"
  | "G1c-realtime"
  | "G-single-realtime"
  | "G2-realtime";

export interface ListAppendVerdict extends Verdict {
  readonly anomalies: readonly Anomaly[];
  readonly transactions: number;
  readonly edges: number;
}

/** The transactions of a recorded history. */
export function listTransactionsOf(history: Iterable<Operation>): ListTransaction[] {
  const transactions: ListTransaction[] = [];
  for (const { id, process, call, outcome, result, callIndex, returnIndex } of history) {
    if (call.op !== "txn") continue;
    let reads = 0;
    const steps = call.steps.map((step): ListStep =>
      step.kind === "append" ? step : { ...step, list: result?.lists?.[reads++] ?? null }
    );
    transactions.push({ name: `T${id} of ${process}`, outcome, steps, callIndex, returnIndex });
  }
  return transactions;
}

const WW = 1, WR = 2, RW = 4, RT = 8;
/** From a node that stands for "the end of a list" on; part of whatever led there. */
const PASS = 16;

export function checkListAppend(transactions: readonly ListTransaction[]): ListAppendVerdict {
  return new ListAppendCheck(transactions).run();
}

interface Appended {
  readonly transaction: number;
  readonly key: string;
  readonly element: string;
  /** How many its transaction appends to this list before it. */
  readonly ordinal: number;
  /** Whether it is the last that its transaction appends to this list. */
  readonly last: boolean;
}

class ListAppendCheck {
  readonly #transactions: readonly ListTransaction[];
  readonly #graph: DependencyGraph;
  readonly #problems = new Problems();
  readonly #anomalies = new Set<Anomaly>();
  /** By key and element. */
  readonly #appended = new Map<string, Map<string, Appended>>();
  readonly #longest = new Map<string, readonly string[]>();
  readonly #longestReader = new Map<string, number>();
  readonly #committed: Uint8Array;
  /** Acknowledged elements that no read shows, by key: behind everything that was read. */
  readonly #unread = new Map<string, readonly Appended[]>();
  /** Nodes that stand for "behind everything that was read of this key". */
  readonly #ends = new Map<string, number>();
  readonly #endNodes = new Set<number>();
  /** What each edge is about; 0 is "was called after". */
  readonly #labels: (() => string)[] = [() => "was called after it had returned"];

  constructor(transactions: readonly ListTransaction[]) {
    this.#transactions = transactions;
    this.#graph = new DependencyGraph(transactions.length);
    this.#committed = new Uint8Array(transactions.length);
  }

  run(): ListAppendVerdict {
    this.#collectAppends();
    this.#checkReads();
    this.#addWriteEdges();
    this.#addReadEdges();
    this.#addRealTimeEdges();
    this.#graph.seal();
    this.#findCycles();
    return {
      ...this.#problems.verdict,
      anomalies: [...this.#anomalies],
      transactions: this.#transactions.length,
      edges: this.#graph.edgeCount,
    };
  }

  // ------------------------------------------------------------------ without the graph

  #collectAppends(): void {
    for (const [index, { steps, outcome }] of this.#transactions.entries()) {
      this.#committed[index] = outcome === "ok" ? 1 : 0;
      for (const [i, step] of steps.entries()) {
        if (step.kind !== "append") continue;
        const { key, element } = step;
        const appendsIn = (part: readonly ListStep[]) =>
          part.filter((other) => other.kind === "append" && other.key === key).length;
        const ordinal = appendsIn(steps.slice(0, i)), last = appendsIn(steps.slice(i + 1)) === 0;
        const list = getOrMake(this.#appended, key, () => new Map<string, Appended>());
        if (list.has(element)) {
          throw new Error(
            `The workload must append unique elements; ${element} is appended to ${key} twice`,
          );
        }
        list.set(element, { transaction: index, key, element, ordinal, last });
      }
    }
  }

  #checkReads(): void {
    for (const [index, transaction] of this.#transactions.entries()) {
      if (transaction.outcome === "fail") continue;
      const own = new Map<string, string[]>();
      const bases = new Map<string, readonly string[]>();
      for (const step of transaction.steps) {
        if (step.kind === "append") {
          getOrMake(own, step.key, () => []).push(step.element);
        } else if (step.list !== null) {
          this.#checkInternal(index, step.key, step.list, {
            own: own.get(step.key) ?? [],
            bases,
          });
          this.#checkRead(index, step.key, step.list);
        }
      }
    }
  }

  /** A transaction finds what was there before it, always the same, and then its own appends so far. */
  #checkInternal(
    index: number,
    key: string,
    list: readonly string[],
    seen: { own: readonly string[]; bases: Map<string, readonly string[]> },
  ): void {
    const { own, bases } = seen;
    const end = Math.max(0, list.length - own.length);
    const head = list.slice(0, end), tail = list.slice(end);
    const base = getOrMake(bases, key, () => head);
    const appended = this.#appended.get(key);
    const early = head.some((element) => appended?.get(element)?.transaction === index);
    if (equal(tail, own) && equal(head, base) && !early) return;
    const expected = base === head
      ? `a list of others' elements that ends with ${show(own)}`
      : show([...base, ...own]);
    this.#report(
      "internal",
      `${this.#name(index)} must find ${expected} in ${key}, and finds ${show(list)}`,
    );
  }

  #checkRead(index: number, key: string, list: readonly string[]): void {
    const appended = this.#appended.get(key);
    if (new Set(list).size !== list.length) {
      const twice = list.find((element, i) => list.indexOf(element) !== i)!;
      this.#report(
        "duplicate",
        `${this.#name(index)} finds ${twice} twice in ${key}: ${show(list)}`,
      );
    }
    const longest = this.#longest.get(key) ?? [];
    const common = Math.min(list.length, longest.length);
    if (!equal(list.slice(0, common), longest.slice(0, common))) {
      const other = this.#name(this.#longestReader.get(key)!);
      this.#report(
        "fork",
        `${key} is ${show(list)} to ${this.#name(index)} but ${show(longest)} to ` +
          `${other}: neither is a prefix of the other`,
      );
      return;
    }
    const fresh = list.slice(longest.length);
    for (const element of fresh) {
      const writer = appended?.get(element);
      if (writer === undefined) {
        this.#report(
          "invented",
          `${this.#name(index)} finds ${element} in ${key}, which nobody appended`,
        );
        continue;
      }
      const { outcome } = this.#transactions[writer.transaction]!;
      if (outcome === "fail") {
        this.#report(
          "G1a",
          `${this.#name(index)} finds ${element} in ${key}, appended by ` +
            `${this.#name(writer.transaction)}, which was aborted`,
        );
      }
      // Somebody saw it, so it did happen.
      this.#committed[writer.transaction] = 1;
    }
    if (list.length > longest.length) {
      this.#longest.set(key, list);
      this.#longestReader.set(key, index);
    }
    const end = appended?.get(list.at(-1) ?? "");
    if (end !== undefined && !end.last && end.transaction !== index) {
      this.#report(
        "G1b",
        `${this.#name(index)} finds ${key} ending with ${end.element}, but ` +
          `${this.#name(end.transaction)} appended more to it at the same time`,
      );
    }
  }

  // -------------------------------------------------------------------------- the graph

  #addWriteEdges(): void {
    for (const [key, appended] of this.#appended) {
      const list = this.#longest.get(key) ?? [];
      let before: Appended | null = null;
      const counts = new Map<number, number>();
      for (const element of list) {
        const writer = appended.get(element);
        if (writer === undefined) continue;
        const count = counts.get(writer.transaction) ?? 0;
        counts.set(writer.transaction, count + 1);
        if (writer.ordinal !== count) {
          const name = this.#name(writer.transaction);
          this.#report("internal", `${key} does not show the appends of ${name} in their order`);
        }
        if (before !== null) {
          this.#edge(
            before.transaction,
            writer.transaction,
            WW,
            () => `appended ${element} to ${key} right behind its ${before!.element}`,
          );
        }
        before = writer;
      }
      const inList = new Set(list);
      const unread = [...appended.values()].filter((item) =>
        !inList.has(item.element) && this.#committed[item.transaction] === 1
      );
      if (unread.length === 0) continue;
      this.#addEnd(key, unread);
      if (before !== null) {
        const { transaction, element } = before;
        this.#edgesToUnread(transaction, key, WW, () => `, behind its ${element}`);
      }
    }
  }

  /** One node for "behind everything that was read" keeps the edges few. */
  #addEnd(key: string, unread: readonly Appended[]): void {
    const end = this.#graph.addNode();
    this.#unread.set(key, unread);
    this.#ends.set(key, end);
    this.#endNodes.add(end);
    for (const item of unread) {
      this.#edge(end, item.transaction, PASS, () => appendedUnseen(item));
    }
  }

  /** From `from` to everybody whose element nobody read; `label` goes on with the sentence. */
  #edgesToUnread(from: number, key: string, kind: number, label: () => string): void {
    const unread = this.#unread.get(key) ?? [];
    if (unread.length === 0) return;
    // Through the common node, one who is among them would seem to depend on himself.
    if (!unread.some((item) => item.transaction === from)) {
      return this.#edge(from, this.#ends.get(key)!, kind, label);
    }
    for (const item of unread) {
      this.#edge(from, item.transaction, kind, () => appendedUnseen(item) + label());
    }
  }

  #addReadEdges(): void {
    for (const [index, transaction] of this.#transactions.entries()) {
      if (this.#committed[index] === 0) continue;
      for (const step of transaction.steps) {
        if (step.kind === "read" && step.list !== null) {
          this.#addReadEdgesOf(index, step.key, step.list);
        }
      }
    }
  }

  #addReadEdgesOf(index: number, key: string, list: readonly string[]): void {
    const appended = this.#appended.get(key);
    if (appended === undefined) return;
    let end = list.length;
    while (end > 0 && appended.get(list[end - 1]!)?.transaction === index) end -= 1;
    const from = end > 0 ? appended.get(list[end - 1]!) : undefined;
    if (from !== undefined) {
      this.#edge(from.transaction, index, WR, () => `read its ${from.element} in ${key}`);
    }
    const longest = this.#longest.get(key) ?? [];
    const next = longest[list.length];
    if (next !== undefined) {
      const writer = appended.get(next);
      if (writer !== undefined && writer.transaction !== index) {
        this.#edge(
          index,
          writer.transaction,
          RW,
          () => `appended ${next} to ${key}, of which it had read ${show(list)}`,
        );
      }
    } else {
      this.#edgesToUnread(index, key, RW, () => `, of which it had read ${show(list)}`);
    }
  }

  /**
   * "Returned before the other was called", without the edges that follow from others: an edge
   * leads only from transactions that no later one has overtaken entirely.
   */
  #addRealTimeEdges(): void {
    const events: { at: number; index: number; isCall: boolean }[] = [];
    for (const [index, { callIndex, returnIndex }] of this.#transactions.entries()) {
      if (this.#committed[index] === 0) continue;
      events.push({ at: callIndex, index, isCall: true });
      if (returnIndex !== Infinity) events.push({ at: returnIndex, index, isCall: false });
    }
    events.sort((a, b) => a.at - b.at || Number(b.isCall) - Number(a.isCall));
    let frontier: number[] = [];
    for (const { index, isCall } of events) {
      if (isCall) {
        for (const before of frontier) {
          this.#graph.addEdge({ from: before, to: index, kind: RT, label: 0 });
        }
        continue;
      }
      const { callIndex } = this.#transactions[index]!;
      frontier = frontier.filter((other) => this.#transactions[other]!.returnIndex >= callIndex);
      frontier.push(index);
    }
  }

  #edge(from: number, to: number, kind: number, label: () => string): void {
    this.#graph.addEdge({ from, to, kind, label: this.#labels.length });
    this.#labels.push(label);
  }

  // ------------------------------------------------------------------------------ cycles

  #findCycles(): void {
    const reported = new Set<number>();
    for (const realTime of [0, RT]) {
      const suffix = realTime === 0 ? "" : "-realtime" as const;
      this.#reportCycles(WW | realTime, `G0${suffix}`, reported);
      this.#reportCycles(WW | WR | realTime, `G1c${suffix}`, reported);
      this.#reportAntiDependencies(WW | WR | realTime, suffix, reported);
    }
  }

  #reportCycles(kinds: number, anomaly: Anomaly, reported: Set<number>): void {
    for (const component of this.#graph.components(kinds | PASS)) {
      if (component.some((node) => reported.has(node))) continue;
      const within = new Set(component), start = component[0]!;
      const cycle = this.#graph.shortestPath(start, start, { kinds: kinds | PASS, within })!;
      this.#reportCycle(anomaly, cycle, component, reported);
    }
  }

  #reportAntiDependencies(
    others: number,
    suffix: "" | "-realtime",
    reported: Set<number>,
  ): void {
    for (const component of this.#graph.components(others | RW | PASS)) {
      if (component.some((node) => reported.has(node))) continue;
      const within = new Set(component);
      let found: { anomaly: Anomaly; cycle: number[] } | null = null, tried = 0;
      for (const edge of this.#graph.edgesWithin(within, RW)) {
        // A large component has a great many; which name the cycle gets is not worth more.
        if (tried++ > 500) break;
        const { from, to } = this.#graph.edge(edge);
        const back = this.#graph.shortestPath(to, from, { kinds: others | PASS, within });
        if (back === null) continue;
        found = { anomaly: `G-single${suffix}`, cycle: [edge, ...back] };
        break;
      }
      if (found === null) {
        const start = component[0]!, kinds = others | RW | PASS;
        const cycle = this.#graph.shortestPath(start, start, { kinds, within })!;
        found = { anomaly: `G2${suffix}`, cycle };
      }
      this.#reportCycle(found.anomaly, found.cycle, component, reported);
    }
  }

  #reportCycle(
    anomaly: Anomaly,
    cycle: readonly number[],
    component: readonly number[],
    reported: Set<number>,
  ): void {
    for (const node of component) reported.add(node);
    const lines = this.#withoutEnds(cycle.map((index) => this.#graph.edge(index))).map((edge) =>
      `  ${this.#name(edge.to)} ${edge.text} (${edge.kind}, ${this.#name(edge.from)})`
    );
    this.#report(anomaly, ["a cycle, each after the one in brackets:", ...lines].join("\n"));
  }

  /** Two edges through an end node are one between transactions. */
  #withoutEnds(
    cycle: readonly Edge[],
  ): { from: number; to: number; kind: string; text: string }[] {
    const first = cycle.findIndex((edge) => !this.#endNodes.has(edge.from));
    const turned = [...cycle.slice(first), ...cycle.slice(0, first)];
    const edges: { from: number; to: number; kind: string; text: string }[] = [];
    for (let i = 0; i < turned.length; i++) {
      const edge = turned[i]!, kind = KIND_NAMES[edge.kind]!;
      const text = this.#labels[edge.label]!();
      if (!this.#endNodes.has(edge.to)) edges.push({ from: edge.from, to: edge.to, kind, text });
      else {
        const next = turned[++i]!, more = this.#labels[next.label]!();
        edges.push({ from: edge.from, to: next.to, kind, text: more + text });
      }
    }
    return edges;
  }

  #report(anomaly: Anomaly, text: string): void {
    this.#anomalies.add(anomaly);
    this.#problems.add(`${anomaly}: ${text}`);
  }

  #name(index: number): string {
    return this.#transactions[index]!.name;
  }
}

const KIND_NAMES: Readonly<Record<number, string>> = {
  [WW]: "ww",
  [WR]: "wr",
  [RW]: "rw",
  [RT]: "rt",
};

const appendedUnseen = ({ element, key }: Appended) =>
  `appended ${element} to ${key}, which no read shows`;

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, value = make());
  return value;
}

const equal = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((item, i) => item === b[i]);

const show = (list: readonly string[]) =>
  list.length <= 8 ? `[${list.join(" ")}]` : `[… ${list.slice(-8).join(" ")}]`;
