// The tree of a flame graph, as typed arrays. A node is an index; nodes stand in preorder, so that the nodes
// below i are i+1 ... end[i]-1, and a subtree is left out by one jump. Objects for 200,000 nodes would take
// several times the memory, and each frame drawn would wait for them.

export interface Weight { samples: number; value: number }

/** A node as /api/v1/tree gives it, and /api/v1/difftree, where self and total are those after. */
export interface FlameNode {
  name: string; kind: string; module?: string; inlined?: boolean;
  self: Weight; total: Weight; children?: FlameNode[];
  selfBefore?: Weight; totalBefore?: Weight; significant?: boolean;
}

/** An answer of /api/v1/tree or difftree. What total is more than self and children together was left out by the server's limit. */
export interface Tree {
  root: FlameNode;
  /** Of a difference: what was before is multiplied by it to be comparable. */
  factor?: number;
}

/** What nodes are told apart by: name and module. The kind is that of its first node. */
export interface Func { name: string; module: string; kind: string }

export const key = (f: { name: string; module?: string }) => `${f.name}\0${f.module ?? ""}`;

/** Weights have components: VALUE and COUNT of all graphs, BEFORE and AFTER of differences. */
export const VALUE = 0, COUNT = 1, BEFORE = 2, AFTER = 3;

/** Bits of flags. A node that others are merged into is inlined if all of them are, and significant if one of them is. */
export const INLINED = 1, SIGNIFICANT = 2;
const merge = (a: number, b: number) => (a & b & INLINED) | ((a | b) & SIGNIFICANT);

export class Graph {
  readonly functions: Func[];
  readonly fn: Int32Array; // of the node, an index in functions; that of the root says nothing
  readonly parent: Int32Array; // -1 of the root
  readonly end: Int32Array;
  readonly depth: Uint16Array;
  readonly x: Float64Array; // left edge, from 0 to total[VALUE][0]
  readonly flags: Uint8Array;
  /** By component. total = self + rest + the children's totals; rest is of descendants that are not there. */
  readonly self: Float64Array[];
  readonly rest: Float64Array[];
  readonly total: Float64Array[];
  /** The deepest row that something stands in: a node, or what is not there below one. */
  readonly lastRow: number;

  constructor(functions: Func[], fn: Int32Array, parent: Int32Array, flags: Uint8Array, self: Float64Array[], rest: Float64Array[]) {
    const n = fn.length;
    this.functions = functions;
    this.fn = fn;
    this.parent = parent;
    this.flags = flags;
    this.self = self;
    this.rest = rest;
    this.end = new Int32Array(n);
    this.depth = new Uint16Array(n);
    this.x = new Float64Array(n);
    this.total = self.map((s, k) => s.map((v, i) => v + rest[k]![i]!));
    let last = 0;
    for (let i = 0; i < n; i++) {
      if (i > 0) this.depth[i] = this.depth[parent[i]!]! + 1;
      last = Math.max(last, this.depth[i]! + (rest[VALUE]![i]! > 0 ? 1 : 0));
    }
    this.lastRow = last;
    for (let i = n - 1; i >= 0; i--) {
      this.end[i] = Math.max(this.end[i]!, i + 1);
      if (i === 0) break;
      const p = parent[i]!;
      this.end[p] = Math.max(this.end[p]!, this.end[i]!);
      for (const t of this.total) t[p]! += t[i]!;
    }
    const used = new Float64Array(n); // by the children placed so far
    for (let i = 1; i < n; i++) {
      const p = parent[i]!;
      this.x[i] = this.x[p]! + used[p]!;
      used[p]! += this.total[VALUE]![i]!;
    }
  }

  get length() { return this.fn.length; }
  get isDifference() { return this.total.length > AFTER; }
  func(i: number): Func { return this.functions[this.fn[i]!]!; }
  value(i: number) { return this.total[VALUE]![i]!; }

  /** The functions from below the root down to i. */
  path(i: number): Func[] {
    const path: Func[] = [];
    for (; i > 0; i = this.parent[i]!) path.push(this.func(i));
    return path.reverse();
  }

  /** The node at the end of the path, or of as much of it as there is; a module that is not given may be any. */
  find(path: { name: string; module?: string }[]): { node: number; whole: boolean } {
    let at = 0;
    for (const f of path) {
      let found = -1;
      for (let c = at + 1; c < this.end[at]! && found < 0; c = this.end[c]!) {
        const g = this.func(c);
        if (g.name === f.name && (f.module === undefined || g.module === f.module)) found = c;
      }
      if (found < 0) return { node: at, whole: false };
      at = found;
    }
    return { node: at, whole: true };
  }
}

/** Grows a Graph. */
export class Builder {
  readonly functions: Func[];
  private readonly fn: number[] = [];
  private readonly parent: number[] = [];
  private readonly flags: number[] = [];
  private readonly self: number[][];
  private readonly rest: number[][];
  private readonly index = new Map<number, number>();

  constructor(functions: Func[], components: number, root = 0) {
    this.functions = functions;
    this.self = Array.from({ length: components }, () => []);
    this.rest = Array.from({ length: components }, () => []);
    this.append(-1, root, 0);
  }

  get length() { return this.fn.length; }

  append(parent: number, fn: number, flags: number): number {
    this.fn.push(fn);
    this.parent.push(parent);
    this.flags.push(flags);
    for (const s of this.self) s.push(0);
    for (const r of this.rest) r.push(0);
    return this.fn.length - 1;
  }

  /** The child of that function, a new one if there is none. */
  child(parent: number, fn: number, flags: number): number {
    const edge = parent * this.functions.length + fn;
    let node = this.index.get(edge);
    if (node === undefined) this.index.set(edge, node = this.append(parent, fn, flags));
    this.flags[node] = merge(this.flags[node]!, flags);
    return node;
  }

  addSelf(node: number, k: number, v: number) { this.self[k]![node]! += v; }
  addRest(node: number, k: number, v: number) { this.rest[k]![node]! += v; }

  /** Adds what node i of g has in itself. */
  add(node: number, g: Graph, i: number) {
    for (let k = 0; k < this.self.length; k++) {
      this.addSelf(node, k, g.self[k]![i]!);
      this.addRest(node, k, g.rest[k]![i]!);
    }
  }

  /**
   * Puts nodes in preorder, of siblings the heaviest first; but those that stand in previous keep the order they have there,
   * and come before new ones: a live graph could not be read if siblings of about equal weight changed places with each update.
   */
  build(previous?: Graph): Graph {
    const n = this.fn.length;
    const total = Float64Array.from(this.self[VALUE]!);
    const first = new Int32Array(n).fill(-1), next = new Int32Array(n).fill(-1);
    for (let i = n - 1; i > 0; i--) { // children come after their parents
      const p = this.parent[i]!;
      total[i]! += this.rest[VALUE]![i]!;
      total[p]! += total[i]!;
      next[i] = first[p]!;
      first[p] = i;
    }
    const known = previous && new Map(previous.functions.map((f, i) => [key(f), i]));
    const formerFn = known && this.functions.map((f) => known.get(key(f)) ?? -1);
    const slot = new Int32Array(previous ? previous.functions.length : 0).fill(-1); // function in previous -> child there
    const former = new Int32Array(n).fill(-1); // node -> node in previous
    if (previous) former[0] = 0;

    const order = new Int32Array(n), parent = new Int32Array(n), stack = [0], parents = [-1];
    const children: number[] = [];
    for (let at = 0; at < n; at++) {
      const node = stack.pop()!;
      order[at] = node;
      parent[at] = parents.pop()!;
      children.length = 0;
      for (let c = first[node]!; c >= 0; c = next[c]!) children.push(c);
      const o = former[node]!;
      if (previous && formerFn && o >= 0) {
        for (let c = o + 1; c < previous.end[o]!; c = previous.end[c]!) slot[previous.fn[c]!] = c;
        for (const c of children) {
          const f = formerFn[this.fn[c]!]!;
          if (f >= 0) former[c] = slot[f]!;
        }
        for (let c = o + 1; c < previous.end[o]!; c = previous.end[c]!) slot[previous.fn[c]!] = -1;
      }
      if (children.length > 1) {
        const rank = (c: number) => (former[c]! < 0 ? n + former.length : former[c]!);
        if (o >= 0) children.sort((a, b) => rank(a) - rank(b) || total[b]! - total[a]! || a - b);
        else children.sort((a, b) => total[b]! - total[a]! || a - b);
      }
      for (let k = children.length - 1; k >= 0; k--) {
        stack.push(children[k]!);
        parents.push(at);
      }
    }
    // The kinds of Array.from that map are several times as slow.
    const take = (from: number[]) => {
      const to = new Float64Array(n);
      for (let i = 0; i < n; i++) to[i] = from[order[i]!]!;
      return to;
    };
    const flags = new Uint8Array(n), fn = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      flags[i] = this.flags[order[i]!]!;
      fn[i] = this.fn[order[i]!]!;
    }
    return new Graph(this.functions, fn, parent, flags, this.self.map(take), this.rest.map(take));
  }
}

/** Reads an answer. A node of a difference is as wide as the mean of before and after: what is gone is seen too. */
export function fromTree(tree: Tree, previous?: Graph): Graph {
  const functions: Func[] = [];
  const index = new Map<string, Map<string, number>>(); // by module and name
  const number = (n: FlameNode) => {
    const module = n.module ?? "";
    let names = index.get(module);
    if (!names) index.set(module, names = new Map());
    let id = names.get(n.name);
    if (id === undefined) {
      names.set(n.name, id = functions.length);
      functions.push({ name: n.name, module, kind: n.kind });
    }
    return id;
  };
  number(tree.root);
  const { total, totalBefore } = tree.root, difference = totalBefore !== undefined;
  const factor = tree.factor ?? (totalBefore?.value ? total.value / totalBefore.value : 1); // by share
  const components = difference ? 4 : 2;
  const weigh = (into: number[], sign: number, after: Weight, before: Weight | undefined) => {
    into[COUNT]! += sign * after.samples;
    if (!difference) {
      into[VALUE]! += sign * after.value;
      return;
    }
    const was = (before?.value ?? 0) * factor;
    into[COUNT]! += sign * (before?.samples ?? 0);
    into[VALUE]! += sign * (after.value + was) / 2;
    into[BEFORE]! += sign * was;
    into[AFTER]! += sign * after.value;
  };
  const b = new Builder(functions, components), self = new Array<number>(components), rest = new Array<number>(components);
  const stack = [tree.root], numbers = [0];
  for (let node = stack.pop(); node; node = stack.pop()) {
    const at = numbers.pop()!;
    self.fill(0);
    rest.fill(0);
    weigh(self, 1, node.self, node.selfBefore);
    weigh(rest, 1, node.total, node.totalBefore);
    weigh(rest, -1, node.self, node.selfBefore);
    if (node.children) {
      for (const c of node.children) {
        weigh(rest, -1, c.total, c.totalBefore);
        stack.push(c);
        numbers.push(b.append(at, number(c), (c.inlined ? INLINED : 0) | (c.significant ? SIGNIFICANT : 0)));
      }
    }
    const missing = rest[COUNT]! > 0; // else there are only roundings left
    for (let k = 0; k < components; k++) {
      b.addSelf(at, k, self[k]!);
      if (missing) b.addRest(at, k, Math.max(0, rest[k]!));
    }
  }
  return b.build(previous);
}
