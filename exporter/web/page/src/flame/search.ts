import { VALUE, type Graph } from "./model.ts";

/** The pattern as a regular expression; one that is not valid is taken as it stands. Case does not matter. */
export function pattern(text: string): RegExp {
  try {
    return new RegExp(text, "i");
  } catch {
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
  }
}

/** The nodes whose function's name matches, and how much of the graph has one of them in its stack. */
export function search(g: Graph, p: RegExp): { nodes: Int32Array; value: number } {
  const matches = g.functions.map((f) => p.test(f.name)); // names are far fewer than nodes
  const nodes: number[] = [];
  let value = 0, counted = 0; // counted: the end of the last subtree that is in value
  for (let i = 1; i < g.length; i++) {
    if (!matches[g.fn[i]!]) continue;
    nodes.push(i);
    if (i < counted) continue;
    value += g.total[VALUE]![i]!;
    counted = g.end[i]!;
  }
  return { nodes: Int32Array.from(nodes), value };
}
