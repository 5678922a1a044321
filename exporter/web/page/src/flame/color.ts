// What colour a frame has. The colours themselves are in flame.css, for light and dark; here they go by name.

import { AFTER, BEFORE, INLINED, SIGNIFICANT, VALUE, type Func, type Graph } from "./model.ts";

export type ColorMode = "kind" | "module" | "diff";

/** By name of the custom property --flame-NAME. */
export const KINDS: [name: string, label: string][] = [
  ["kernel", "kernel"], ["native", "native"], ["inlined", "native, inlined"], ["go", "Go"], ["go-inlined", "Go, inlined"], ["jit", "JIT, interpreted"],
  ["label", "group"], ["unknown", "no name"], ["truncated", "lost callers"],
];

/** Of modules; more modules than these share the last. */
export const MODULES = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "other"];

/** From much less to much more; by what factor at least. No hue between blue and orange is confused by the colour-blind. */
export const CHANGES: [name: string, label: string][] = [
  ["less3", "≤ ½×"], ["less2", "≤ ⅔×"], ["less1", "less"], ["same", "may be chance"], ["more1", "more"], ["more2", "≥ 1½×"], ["more3", "≥ 2×"],
];

/** OTLP of others has more kinds than the agent: OpenTelemetry's are rust, and those of runtimes, such as cpython, jvm and v8js. */
export function kindColor(kind: string, inlined: boolean): string {
  switch (kind) {
    case "native": case "rust": return inlined ? "inlined" : "native";
    case "go": return inlined ? "go-inlined" : "go";
    case "kernel": case "label": case "truncated": return kind;
    case "": case "unknown": return "unknown";
    default: return "jit";
  }
}

/** The colour of a change from before to after; of one that may be chance always the same grey. */
export function changeColor(before: number, after: number, significant: boolean): string {
  if (!significant || before === after) return "same";
  const factor = before > 0 ? after / before : Infinity;
  if (factor >= 1) return factor >= 2 ? "more3" : factor >= 1.5 ? "more2" : "more1";
  return factor <= 1 / 2 ? "less3" : factor <= 2 / 3 ? "less2" : "less1";
}

/** What the module of a frame is called: the kernel's frames have none. */
export function moduleOf(f: Func): string {
  return f.module || (f.kind === "kernel" ? "[kernel]" : f.kind === "label" ? "[group]" : "[none]");
}

/**
 * Gives the modules that have most in themselves a colour each. They keep it, also while other data is shown in which they are not: a colour that went to
 * another module meanwhile would say that it is the same. Only where none is left does it go from the one that was shown the longest ago.
 */
export class ModuleColors {
  private readonly colors = new Map<string, string>(); // those shown last stand last
  private shown = new Set<string>();

  update(g: Graph) {
    const selfOf = new Float64Array(g.functions.length), self = new Map<string, number>();
    for (let i = 1; i < g.length; i++) selfOf[g.fn[i]!]! += g.self[VALUE]![i]!;
    g.functions.forEach((f, i) => {
      if (f.name !== "") self.set(moduleOf(f), (self.get(moduleOf(f)) ?? 0) + selfOf[i]!);
    });
    this.shown = new Set(self.keys());
    for (const [m, color] of [...this.colors]) {
      if (!self.has(m)) continue;
      this.colors.delete(m);
      this.colors.set(m, color);
    }
    const free = MODULES.slice(0, -1).filter((c) => ![...this.colors.values()].includes(c));
    const news = [...self].filter(([m]) => !this.colors.has(m)).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const gone = [...this.colors].filter(([m]) => !self.has(m));
    for (const [m] of news) {
      let color = free.shift();
      if (!color) {
        const last = gone.shift();
        if (!last) break;
        this.colors.delete(last[0]);
        color = last[1];
      }
      this.colors.set(m, color);
    }
  }

  of(f: Func): string { return this.colors.get(moduleOf(f)) ?? "other"; }
  get legend(): [name: string, label: string][] { return [...this.colors].filter(([m]) => this.shown.has(m)).map(([m, c]) => [c, m]); }
}

/** The names of all colours; those of frames are indices in it. */
export const COLORS = ["root", ...[...KINDS, ...CHANGES].map(([name]) => name), ...MODULES, "match"];
const index = new Map(COLORS.map((name, i) => [name, i]));

/** The colour of each node. */
export function colorsOf(g: Graph, mode: ColorMode, modules: ModuleColors): Uint8Array {
  const of = (i: number) => {
    const f = g.func(i), flags = g.flags[i]!;
    if (mode === "diff" && g.isDifference) return changeColor(g.total[BEFORE]![i]!, g.total[AFTER]![i]!, (flags & SIGNIFICANT) !== 0);
    return mode === "module" ? modules.of(f) : kindColor(f.kind, (flags & INLINED) !== 0);
  };
  const colors = new Uint8Array(g.length);
  for (let i = 1; i < colors.length; i++) colors[i] = index.get(of(i))!;
  return colors; // the root's is 0
}
