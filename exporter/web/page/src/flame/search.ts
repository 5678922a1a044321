import { VALUE, type Graph } from "./model.ts";

const LONGEST_PATTERN = 100, LONGEST_NAME = 256; // characters
const BUDGET = 200; // milliseconds

/** What a search is looked for by: a text as it stands, or a regular expression between slashes. Case does not matter. */
export type Pattern = { matches: (name: string) => boolean } | { problem: string };

/**
 * A link can bring a pattern, and names come from any process: together they must not hold up the page. JavaScript's regular expressions
 * go back to try again, and nothing can stop one. Without groups, and with two repetitions, a name of n characters takes at most n³ / 6 steps.
 */
export function pattern(text: string): Pattern {
  const expression = /^\/(.+)\/$/s.exec(text)?.[1];
  if (expression === undefined) {
    const words = text.toLowerCase();
    return { matches: (name) => name.toLowerCase().includes(words) };
  }
  if (expression.length > LONGEST_PATTERN) return { problem: `a pattern has at most ${LONGEST_PATTERN} characters` };
  let p: RegExp;
  try {
    p = new RegExp(expression, "i");
  } catch {
    return { problem: "not a regular expression" };
  }
  const bare = expression.replace(/\\./gs, "x").replace(/\[[^\]]*\]/g, "x"); // no escapes, no classes
  if (bare.includes("(")) return { problem: "a pattern here has no groups: write /ab|ac/, and \\( for itself" };
  if ((bare.match(/[*+?{]/g) ?? []).length > 2) return { problem: "a pattern here has at most two of * + ? {" };
  return { matches: (name) => p.test(name.slice(0, LONGEST_NAME)) };
}

/** The nodes whose function's name matches, and how much of the graph has one of them in its stack; none, and why, where that takes too long. */
export function search(g: Graph, p: Pattern): { nodes: Int32Array; value: number; problem?: string } {
  const none = (problem: string) => ({ nodes: new Int32Array(0), value: 0, problem });
  if ("problem" in p) return none(p.problem);
  const matches: boolean[] = []; // names are far fewer than nodes
  const end = performance.now() + BUDGET;
  for (const f of g.functions) {
    if (performance.now() > end) return none("this takes too long to search for: give a simpler pattern");
    matches.push(p.matches(f.name));
  }
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
