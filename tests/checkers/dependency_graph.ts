/**
 * A directed graph with several kinds of edges over the nodes 0 to n-1, and what the transaction
 * checker asks of it: strongly connected components (Tarjan 1972, without recursion, since a history
 * makes them deep) and shortest cycles. Linear in nodes and edges.
 */

export interface Edge {
  readonly from: number;
  readonly to: number;
  readonly kind: number;
  readonly label: number;
}

export class DependencyGraph {
  #from: number[] = [];
  #to: number[] = [];
  #kind: number[] = [];
  #label: number[] = [];
  #nodeCount: number;
  #start: Int32Array = new Int32Array(0);
  #order: Int32Array = new Int32Array(0);

  constructor(nodeCount: number) {
    this.#nodeCount = nodeCount;
  }

  get nodeCount(): number {
    return this.#nodeCount;
  }

  get edgeCount(): number {
    return this.#from.length;
  }

  addNode(): number {
    return this.#nodeCount++;
  }

  /** @param kind a single bit; `label` is the caller's */
  addEdge(edge: Edge): void {
    if (edge.from === edge.to) return;
    this.#from.push(edge.from);
    this.#to.push(edge.to);
    this.#kind.push(edge.kind);
    this.#label.push(edge.label);
  }

  /** Sorts the edges by where they begin. Call it once all are added. */
  seal(): void {
    const start = new Int32Array(this.#nodeCount + 1);
    for (const from of this.#from) start[from + 1]! += 1;
    for (let node = 0; node < this.#nodeCount; node++) start[node + 1]! += start[node]!;
    const fill = start.slice(), order = new Int32Array(this.#from.length);
    for (let edge = 0; edge < order.length; edge++) order[fill[this.#from[edge]!]!++] = edge;
    this.#start = start;
    this.#order = order;
  }

  edge(index: number): Edge {
    return {
      from: this.#from[index]!,
      to: this.#to[index]!,
      kind: this.#kind[index]!,
      label: this.#label[index]!,
    };
  }

  /** Components of more than one node, using only edges whose kind is in `kinds`. */
  components(kinds: number): number[][] {
    const count = this.#nodeCount;
    const index = new Int32Array(count), low = new Int32Array(count);
    const onStack = new Uint8Array(count), cursor = this.#start.slice(0, count);
    const stack: number[] = [], path: number[] = [], found: number[][] = [];
    let next = 1;
    for (let root = 0; root < count; root++) {
      if (index[root] !== 0) continue;
      path.push(root);
      while (path.length > 0) {
        const node = path.at(-1)!;
        if (index[node] === 0) {
          index[node] = low[node] = next++;
          stack.push(node);
          onStack[node] = 1;
        }
        let descended = false;
        while (cursor[node]! < this.#start[node + 1]!) {
          const edge = this.#order[cursor[node]!++]!;
          if ((this.#kind[edge]! & kinds) === 0) continue;
          const to = this.#to[edge]!;
          if (index[to] === 0) {
            path.push(to);
            descended = true;
            break;
          }
          if (onStack[to] === 1) low[node] = Math.min(low[node]!, index[to]!);
        }
        if (descended) continue;
        path.pop();
        const parent = path.at(-1);
        if (parent !== undefined) low[parent] = Math.min(low[parent]!, low[node]!);
        if (low[node] === index[node]) {
          const component: number[] = [];
          let member: number;
          do {
            member = stack.pop()!;
            onStack[member] = 0;
            component.push(member);
          } while (member !== node);
          if (component.length > 1) found.push(component);
        }
      }
    }
    return found;
  }

  /** Edges of `kinds` that begin and end in `within`. */
  *edgesWithin(within: ReadonlySet<number>, kinds: number): Generator<number> {
    for (const node of within) {
      for (let i = this.#start[node]!; i < this.#start[node + 1]!; i++) {
        const edge = this.#order[i]!;
        if ((this.#kind[edge]! & kinds) !== 0 && within.has(this.#to[edge]!)) yield edge;
      }
    }
  }

  /** The edges of a shortest path, or null. Breadth first. */
  shortestPath(
    from: number,
    to: number,
    options: { kinds: number; within: ReadonlySet<number> },
  ): number[] | null {
    const { kinds, within } = options;
    const cameBy = new Map<number, number>();
    let frontier = [from];
    while (frontier.length > 0) {
      const next: number[] = [];
      for (const node of frontier) {
        for (let i = this.#start[node]!; i < this.#start[node + 1]!; i++) {
          const edge = this.#order[i]!, target = this.#to[edge]!;
          if ((this.#kind[edge]! & kinds) === 0 || !within.has(target)) continue;
          if (target === to) {
            const path = [edge];
            for (let at = node; at !== from;) {
              const by = cameBy.get(at)!;
              path.push(by);
              at = this.#from[by]!;
            }
            return path.reverse();
          }
          if (target !== from && !cameBy.has(target)) {
            cameBy.set(target, edge);
            next.push(target);
          }
        }
      }
      frontier = next;
    }
    return null;
  }
}
