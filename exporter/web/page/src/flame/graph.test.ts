// Trees against a list of stacks: what the shapes do is said again on stacks, one at a time, in the plainest way.

import assert from "node:assert/strict";
import test from "node:test";
import { AFTER, BEFORE, COUNT, SIGNIFICANT, VALUE, fromTree, type FlameNode, type Graph, type Weight } from "./model.ts";
import { KINDS, ModuleColors, kindColor } from "./color.ts";
import { ALL, NARROWEST, extent, visible, within, zoom, type View } from "./layout.ts";
import { pattern, search } from "./search.ts";
import { collapse, filter, invert, sandwich } from "./shape.ts";

type Stack = { names: string[]; samples: number };

/** Always the same numbers. */
export function numbers(seed: number): (below: number) => number {
  return (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * below);
  };
}

function someStacks(seed: number, functions = 6, count = 120): Stack[] {
  const below = numbers(seed);
  return Array.from({ length: count }, () => ({ names: Array.from({ length: below(9) }, () => `f${below(functions)}`), samples: 1 + below(20) }));
}

/** The answer of the server for these stacks: a sample's value is 10. */
function answer(stacks: Stack[]): FlameNode {
  const none = (): Weight => ({ samples: 0, value: 0 });
  const add = (w: Weight, n: number) => { w.samples += n; w.value += 10 * n; };
  const node = (name: string): FlameNode => ({ name, kind: "native", self: none(), total: none(), children: [] });
  const root = node("");
  for (const s of stacks) {
    let at = root;
    add(at.total, s.samples);
    for (const name of s.names) {
      let child = at.children!.find((c) => c.name === name);
      if (!child) at.children!.push(child = node(name));
      at = child;
      add(at.total, s.samples);
    }
    add(at.self, s.samples);
  }
  return root;
}

/** A graph as its stacks again: path -> samples. */
function stacksOf(g: Graph): Map<string, number> {
  const out = new Map<string, number>();
  for (let i = 0; i < g.length; i++) {
    const path = g.path(i).map((f) => f.name).join(" "), n = g.self[COUNT]![i]! + g.rest[COUNT]![i]!;
    if (n > 0) out.set(path, (out.get(path) ?? 0) + n);
  }
  return new Map([...out].sort());
}

function added(stacks: Stack[]): Map<string, number> {
  const out = new Map<string, number>();
  for (const s of stacks) out.set(s.names.join(" "), (out.get(s.names.join(" ")) ?? 0) + s.samples);
  return new Map([...out].sort());
}

/** Preorder, sums, and places of all nodes. */
function check(g: Graph) {
  for (let i = 0; i < g.length; i++) {
    const sum = g.total.map((_, k) => g.self[k]![i]! + g.rest[k]![i]!);
    let x = g.x[i]!;
    for (let c = i + 1; c < g.end[i]!; c = g.end[c]!) {
      assert.equal(g.parent[c], i);
      assert.equal(g.depth[c], g.depth[i]! + 1);
      assert.equal(g.x[c], x);
      x += g.value(c);
      g.total.forEach((t, k) => { sum[k]! += t[c]!; });
    }
    assert.deepEqual(sum, g.total.map((t) => t[i]));
    assert.equal(g.total[VALUE]![i], g.isDifference ? (g.total[BEFORE]![i]! + g.total[AFTER]![i]!) / 2 : g.total[COUNT]![i]! * 10);
  }
}

test("shapes are what they would be stack by stack", () => {
  for (let seed = 1; seed <= 30; seed++) {
    const stacks = someStacks(seed), g = fromTree({ root: answer(stacks) });
    const equal = (got: Graph, want: Stack[]) => {
      check(got);
      assert.deepEqual(stacksOf(got), added(want));
    };
    equal(g, stacks);
    equal(filter(g, /^f1$/, /^f2$/), stacks.filter((s) => s.names.includes("f1") && !s.names.includes("f2")));
    equal(filter(g, undefined, /f[34]/), stacks.filter((s) => !s.names.includes("f3") && !s.names.includes("f4")));
    equal(collapse(g), stacks.map((s) => {
      const names: string[] = [];
      for (const n of s.names) {
        const before = names.indexOf(n);
        if (before < 0) names.push(n);
        else names.length = before + 1;
      }
      return { ...s, names };
    }));
    equal(invert(g), stacks.map((s) => ({ ...s, names: [...s.names].reverse() })));
    const { callers, callees } = sandwich(g, "f1"), within = stacks.filter((s) => s.names.includes("f1"));
    equal(callers, within.map((s) => ({ ...s, names: s.names.slice(0, s.names.indexOf("f1")).reverse() })));
    equal(callees, within.map((s) => ({ ...s, names: s.names.slice(s.names.indexOf("f1") + 1) })));
    assert.equal(callers.func(0).name, "f1");
  }
});

test("a tree of callers that would be too large keeps its sums, and its heaviest nodes", () => {
  const g = fromTree({ root: answer(someStacks(7, 30, 2000)) });
  const whole = invert(g), part = invert(g, undefined, 300);
  check(part);
  assert.ok(part.length < 400 && whole.length > 2000, `${part.length} of ${whole.length}`);
  assert.equal(part.value(0), whole.value(0));
  const lightest = Math.min(...Array.from(part.total[VALUE]!).filter((_, i) => part.end[i]! > i + 1));
  for (let i = 1; i < whole.length; i++) {
    // Its parent was opened, if it weighs more than one that was.
    if (whole.value(whole.parent[i]!) > lightest) assert.ok(part.find(whole.path(i)).whole);
  }
});

test("what the server leaves out stays in the sums", () => {
  const root = answer([{ names: ["a", "b"], samples: 5 }, { names: ["a", "c"], samples: 3 }, { names: ["a"], samples: 1 }]);
  root.children![0]!.children!.pop();
  const g = fromTree({ root }), a = g.find([{ name: "a" }]).node;
  check(g);
  assert.deepEqual([g.total[COUNT]![a], g.self[COUNT]![a], g.rest[COUNT]![a]], [9, 1, 3]);
  const runs: number[] = [];
  visible(g, ALL, 90, 0, 9, 1, { frame() {}, merged: (row, left, width, first, last) => { runs.push(row, left, width, first, last); } });
  assert.deepEqual(runs, [2, 50, 30, -1, a]);
  assert.equal(invert(g).rest[COUNT]![0], 3);
});

test("siblings keep their places when data is new", () => {
  const before = fromTree({ root: answer([{ names: ["a"], samples: 9 }, { names: ["b"], samples: 8 }, { names: ["c"], samples: 7 }]) });
  const after = answer([{ names: ["c"], samples: 10 }, { names: ["new"], samples: 99 }, { names: ["a"], samples: 9 }]);
  const order = (g: Graph) => [...g.fn.slice(1)].map((f) => g.functions[f]!.name);
  assert.deepEqual(order(before), ["a", "b", "c"]);
  assert.deepEqual(order(fromTree({ root: after }, before)), ["a", "c", "new"]);
  assert.deepEqual(order(fromTree({ root: after })), ["new", "c", "a"]);
  const deep = someStacks(3), first = fromTree({ root: answer(deep) });
  const again = fromTree({ root: answer(deep.map((s, i) => ({ ...s, samples: s.samples + i % 7 }))) }, first);
  assert.deepEqual([...again.fn].map((f) => again.functions[f]!.name), [...first.fn].map((f) => first.functions[f]!.name));
});

test("a difference is as wide as the mean, and knows both sides", () => {
  const root = answer([{ names: ["a", "gone"], samples: 0 }, { names: ["a", "grown"], samples: 30 }]);
  const before = { samples: 10, value: 100 }, none = { samples: 0, value: 0 };
  const [a] = root.children!, [gone, grown] = a!.children!;
  for (const n of [root, a!, gone!]) Object.assign(n, { selfBefore: n === gone ? before : none, totalBefore: before });
  Object.assign(grown!, { selfBefore: none, totalBefore: none, significant: true });
  const g = fromTree({ root });
  check(g);
  const at = (name: string) => g.find([{ name: "a" }, { name }]).node;
  assert.deepEqual(g.total.map((t) => t[at("gone")]), [150, 10, 300, 0]); // 100 before are 300 of what is after
  assert.deepEqual(g.total.map((t) => t[at("grown")]), [150, 30, 0, 300]);
  assert.deepEqual([at("gone"), at("grown")].map((i) => g.flags[i]! & SIGNIFICANT), [0, SIGNIFICANT]);
  assert.deepEqual(fromTree({ root, factor: 1 }).total.map((t) => t[0]), [200, 40, 100, 300]);
});

test("search counts each sample once", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const stacks = someStacks(seed), found = search(fromTree({ root: answer(stacks) }), pattern("/F[12]$/"));
    const want = stacks.filter((s) => s.names.includes("f1") || s.names.includes("f2")).reduce((n, s) => n + s.samples * 10, 0);
    assert.equal(found.value, want);
  }
});

test("what is searched for is a part of a name, or an expression that cannot hold up the page", () => {
  const matches = (text: string, name: string) => { const p = pattern(text); assert.ok("matches" in p, text); return p.matches(name); };
  assert.ok(matches("operator(", "Operator()") && matches("map[", "map[string]int") && matches("(a+)+$", "x(A+)+$") && !matches("a.c", "abc"));
  assert.ok(matches("/^a.c$|\\(x\\)|[(+*?]y/", "abc") && matches("/^a.c$|\\(x\\)|[(+*?]y/", "f(X)") && !matches("/^a.c$/", "abcd"));
  for (const text of ["/(a+)+$/", "/a*a*a*$/", "/[]a(b]/", "/(/", `/${"a".repeat(101)}/`]) assert.ok("problem" in pattern(text), text);

  const long = Array.from({ length: 2000 }, (_, i) => ({ names: [`${"a".repeat(255)}${i}`], samples: 1 }));
  const found = search(fromTree({ root: answer(long) }), pattern("/a*a*b/")); // each name takes milliseconds, all of them many seconds
  assert.match(found.problem ?? "", /too long/);
  assert.deepEqual([found.nodes.length, found.value], [0, 0]);
});

test("everything in the view is drawn once, as a frame or in a run", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const g = fromTree({ root: answer(someStacks(seed, 12, 400)) }), below = numbers(seed);
    const from = below(900) / 1000, view: View = within({ from, to: from + (1 + below(400)) / 1000 }), width = 300, least = 3;
    const first = below(3), last = first + below(6);
    const drawn = new Uint8Array(g.length);
    let right = -1;
    visible(g, view, width, first, last, least, {
      frame(i, left, w) {
        assert.equal(drawn[i]!++, 0);
        assert.ok(w >= least && left < width && left + w > 0);
        const e = extent(g, i), scale = width / (view.to - view.from);
        assert.ok(Math.abs((e.from - view.from) * scale - left) < 1e-6 && Math.abs((e.to - e.from) * scale - w) < 1e-6);
      },
      merged(row, left, w, a, b) {
        assert.ok(w > 0 && a >= 0);
        right = left + w;
        for (let i = a; i < g.end[b]!; i++) {
          if (g.depth[i] !== row) continue;
          assert.equal(drawn[i]!++, 0);
          const e = extent(g, i), scale = width / (view.to - view.from), l = (e.from - view.from) * scale;
          assert.ok((e.to - e.from) * scale < least && l >= left - 1e-6 && l <= right + 1e-6);
        }
      },
    });
    // Missing is only what lies outside, in other rows, or below something that is in a run itself.
    for (let i = 0; i < g.length; i++) {
      const e = extent(g, i), inside = e.from < view.to - 1e-12 && e.to > view.from + 1e-12 && g.depth[i]! >= first && g.depth[i]! <= last;
      const narrow = (j: number) => (extent(g, j).to - extent(g, j).from) / (view.to - view.from) * width < least;
      const below = i > 0 && narrow(g.parent[i]!);
      assert.equal(drawn[i], inside && !below ? 1 : 0, `node ${i} of seed ${seed}`);
    }
  }
});

test("zoom keeps the point, and stays within the whole", () => {
  const v = zoom({ from: 0.2, to: 0.4 }, 0.25, 0.5);
  assert.ok(Math.abs(v.from + 0.25 * (v.to - v.from) - 0.25) < 1e-12 && Math.abs(v.to - v.from - 0.1) < 1e-12);
  assert.deepEqual(zoom(v, 0.5, 100), ALL);
  let deep: View = ALL;
  for (let i = 0; i < 1000; i++) deep = zoom(deep, 1, 0.5);
  assert.ok(deep.to <= 1 && deep.to - deep.from >= NARROWEST * 0.99);
  assert.deepEqual(within({ from: -0.5, to: 0.25 }), { from: 0, to: 0.75 });
});

test("a module keeps its colour while it is not shown", () => {
  const colors = new ModuleColors();
  const of = (module: string) => colors.of({ name: "f", module, kind: "native" });
  const show = (...modules: string[]) => {
    const root = answer(modules.map((m, i) => ({ names: [m], samples: 10 - i })));
    for (const c of root.children!) c.module = c.name;
    colors.update(fromTree({ root }));
  };
  show("a", "b");
  const [a, b] = [of("a"), of("b")];
  show("c");
  assert.equal(new Set([a, b, of("c")]).size, 3);
  show("b", "a");
  assert.deepEqual([of("a"), of("b")], [a, b]);
  // There are eight: of those that are gone the one that was shown the longest ago gives its colour away, and no two are the same.
  const many = Array.from({ length: 8 }, (_, i) => `m${i}`);
  show(...many);
  assert.equal(new Set(many.map(of)).size, 8);
  assert.equal(of("a"), "other");
});

test("every colour by kind has frames, and every frame a colour", () => {
  // Those of the agent and its trees, and of what OTLP can have beside.
  const kinds = ["kernel", "native", "go", "jit", "unknown", "truncated", "label", "rust", "cpython", "jvm", ""];
  const used = kinds.flatMap((kind) => [kindColor(kind, false), kindColor(kind, true)]);
  assert.deepEqual([...new Set(used)].sort(), KINDS.map(([name]) => name).sort());
  assert.deepEqual([kindColor("cpython", false), kindColor("rust", true)], ["jit", "inlined"]);
});
