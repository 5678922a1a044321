// Other trees made of a tree: without some stacks, without recursion, from the leaves, around one function.
// In all of them each sample that is kept counts once.

import { Builder, COUNT, INLINED, SIGNIFICANT, VALUE, type Graph } from "./model.ts";

/** Keeps the stacks that have a function matching focus, and none matching ignore. */
export function filter(g: Graph, focus: RegExp | undefined, ignore: RegExp | undefined, previous?: Graph): Graph {
  const wanted = Uint8Array.from(g.functions, (f) => (!focus || focus.test(f.name) ? 1 : 0));
  const dropped = Uint8Array.from(g.functions, (f) => (ignore?.test(f.name) ? 1 : 0));
  const b = new Builder(g.functions, g.total.length);
  // A node is kept if it is in a stack that is: if it is wanted, or one above it, or one below it.
  const inside = new Uint8Array(g.length), keep = new Uint8Array(g.length);
  inside[0] = focus ? 0 : 1;
  for (let i = 1; i < g.length; i++) {
    if (dropped[g.fn[i]!]) {
      i = g.end[i]! - 1;
      continue;
    }
    inside[i] = inside[g.parent[i]!]! | wanted[g.fn[i]!]!;
    keep[i] = inside[i]!;
  }
  for (let i = g.length - 1; i > 0; i--) if (keep[i]) keep[g.parent[i]!] = 1;
  const to = new Int32Array(g.length);
  if (inside[0]) b.add(0, g, 0);
  for (let i = 1; i < g.length; i++) {
    if (!keep[i]) {
      i = g.end[i]! - 1;
      continue;
    }
    to[i] = b.append(to[g.parent[i]!]!, g.fn[i]!, g.flags[i]!);
    if (inside[i]) b.add(to[i]!, g, i);
  }
  return b.build(previous);
}

/** A function that is called again below itself goes back to where it stood: of main, eval, call, eval, add is left main, eval, add. */
export function collapse(g: Graph, previous?: Graph): Graph {
  const b = new Builder(g.functions, g.total.length);
  const at = new Int32Array(g.functions.length).fill(-1); // function -> its node in b, if it is on the path
  const path: number[] = []; // nodes of b
  const fnOf: number[] = [-1]; // of nodes of b
  // What to undo when a node of g is left: take its node from the path, or put back what it had cut off.
  const undo: { end: number; node: number; cut: number[] }[] = [];
  const none: number[] = [];
  b.add(0, g, 0);
  for (let i = 1; i < g.length; i++) {
    for (let u = undo[undo.length - 1]; u && u.end <= i; u = undo[undo.length - 1]) {
      undo.pop();
      if (u.node >= 0) {
        path.pop();
        at[fnOf[u.node]!] = -1;
      }
      for (const n of u.cut) {
        path.push(n);
        at[fnOf[n]!] = n;
      }
    }
    const fn = g.fn[i]!;
    let node = -1, cut = none;
    if (at[fn]! >= 0) {
      cut = path.splice(path.lastIndexOf(at[fn]!) + 1);
      for (const n of cut) at[fnOf[n]!] = -1;
    } else {
      node = b.child(path[path.length - 1] ?? 0, fn, g.flags[i]!);
      fnOf[node] = fn;
      at[fn] = node;
      path.push(node);
    }
    undo.push({ end: g.end[i]!, node, cut });
    b.add(path[path.length - 1]!, g, i);
  }
  return b.build(previous);
}

/** Nodes of a tree of callers, about: of 200,000 stacks it could have millions. What is left out is in rest. */
export const MAX_CALLERS = 200_000;

/** The tree from the leaves: the functions that were sampled, below each its callers. */
export function invert(g: Graph, previous?: Graph, limit = MAX_CALLERS): Graph {
  const b = new Builder(g.functions, g.total.length);
  const seeds: number[] = [];
  for (let i = 0; i < g.length; i++) {
    if (g.self[COUNT]![i]! !== 0) seeds.push(i);
    // Which functions were sampled in what is not there, nobody knows.
    for (let k = 0; k < g.rest.length; k++) b.addRest(0, k, g.rest[k]![i]!);
  }
  climb(g, b, Int32Array.from(seeds), Int32Array.from(seeds), g.self, limit);
  return b.build(previous);
}

/** The stacks that a function is in: its callers, and its callees. The root of both is the function, and both weigh the same. */
export interface Sandwich { callers: Graph; callees: Graph }

/** With recursion, a stack is cut at the outermost frame of the function. */
export function sandwich(g: Graph, name: string, previous?: Sandwich, limit = MAX_CALLERS): Sandwich {
  const middle = Math.max(0, g.functions.findIndex((f) => f.name === name));
  const above = new Builder(g.functions, g.total.length, middle), below = new Builder(g.functions, g.total.length, middle);
  const seeds: number[] = [];
  const to = new Int32Array(g.length);
  for (let i = 1; i < g.length; i++) {
    if (g.func(i).name !== name) continue;
    seeds.push(i);
    below.add(0, g, i);
    for (let j = i + 1; j < g.end[i]!; j++) {
      to[j] = below.child(g.parent[j] === i ? 0 : to[g.parent[j]!]!, g.fn[j]!, g.flags[j]!);
      below.add(to[j]!, g, j);
    }
    i = g.end[i]! - 1;
  }
  climb(g, above, Int32Array.from(seeds, (i) => g.parent[i]!), Int32Array.from(seeds), g.total, limit);
  return { callers: above.build(previous?.callers), callees: below.build(previous?.callees) };
}

/** Ways up that are equal so far: where they are in g, where each began, and the node of the builder they share. */
interface Group { node: number; cursors: Int32Array; seeds: Int32Array; weight: number }

/** Walks up from all cursors at once, the heaviest group first. */
function climb(g: Graph, b: Builder, cursors: Int32Array, seeds: Int32Array, weights: Float64Array[], limit: number) {
  const heap: Group[] = [{ node: 0, cursors, seeds, weight: Infinity }];
  const slot = new Int32Array(g.functions.length).fill(-1);
  for (let group = popHeaviest(heap); group; group = popHeaviest(heap)) {
    const { node, cursors: at, seeds: from } = group;
    if (b.length > limit) { // what is above is left out
      for (const seed of from) weights.forEach((w, k) => b.addRest(node, k, w[seed]!));
      continue;
    }
    if (at.length === 1) { // most ways are soon alone, and have no more company on the way up
      const seed = from[0]!;
      let top = node;
      for (let c = at[0]!; c > 0 && b.length <= limit; c = at[0] = g.parent[c]!) {
        top = b.append(top, g.fn[c]!, (g.flags[c]! & INLINED) | (g.flags[seed]! & SIGNIFICANT));
      }
      for (let k = 0; k < weights.length; k++) (at[0] === 0 ? b.addSelf : b.addRest).call(b, top, k, weights[k]![seed]!);
      continue;
    }
    const fns: number[] = [], sizes: number[] = [], flags: number[] = [];
    at.forEach((c, j) => {
      const seed = from[j]!;
      if (c === 0) { // the stack begins here
        weights.forEach((w, k) => b.addSelf(node, k, w[seed]!));
        return;
      }
      const fn = g.fn[c]!;
      if (slot[fn]! < 0) {
        slot[fn] = fns.push(fn) - 1;
        sizes.push(0);
        flags.push(INLINED);
      }
      const s = slot[fn]!;
      sizes[s]!++;
      flags[s] = (flags[s]! & (g.flags[c]! | SIGNIFICANT)) | (g.flags[seed]! & SIGNIFICANT);
    });
    const groups = fns.map((fn, s): Group =>
      ({ node: b.append(node, fn, flags[s]!), cursors: new Int32Array(sizes[s]!), seeds: new Int32Array(sizes[s]!), weight: 0 }));
    sizes.fill(0);
    at.forEach((c, j) => {
      if (c === 0) return;
      const s = slot[g.fn[c]!]!, into = groups[s]!, n = sizes[s]!++;
      into.cursors[n] = g.parent[c]!;
      into.seeds[n] = from[j]!;
      into.weight += weights[VALUE]![from[j]!]!;
    });
    for (const fn of fns) slot[fn] = -1;
    for (const into of groups) push(heap, into);
  }
}

function push(heap: Group[], g: Group) {
  let i = heap.push(g) - 1;
  while (i > 0) {
    const p = (i - 1) >> 1;
    if (heap[p]!.weight >= g.weight) break;
    heap[i] = heap[p]!;
    i = p;
  }
  heap[i] = g;
}

function popHeaviest(heap: Group[]): Group | undefined {
  const top = heap[0], last = heap.pop();
  if (!top || !last || heap.length === 0) return top;
  let i = 0;
  for (let c = 1; c < heap.length; c = 2 * i + 1) {
    if (c + 1 < heap.length && heap[c + 1]!.weight > heap[c]!.weight) c++;
    if (heap[c]!.weight <= last.weight) break;
    heap[i] = heap[c]!;
    i = c;
  }
  heap[i] = last;
  return top;
}
