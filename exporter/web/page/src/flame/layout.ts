import { VALUE, type Graph } from "./model.ts";

/** What part of the width is shown, as parts of the whole: 0 and 1 are all of it. */
export interface View { from: number; to: number }

export const ALL: View = { from: 0, to: 1 };

/** The narrowest that a view can be: some thousand times narrower than one sample of a day. */
export const NARROWEST = 1e-12;

/** Moves and narrows the view so that it lies within the whole. */
export function within(v: View): View {
  const size = Math.min(1, Math.max(NARROWEST, v.to - v.from));
  const from = Math.min(1 - size, Math.max(0, v.from));
  return { from, to: from + size };
}

/** Zooms so that what is at the part `at` of the view stays there; factor < 1 goes in. */
export function zoom(v: View, at: number, factor: number): View {
  const size = v.to - v.from, point = v.from + at * size, now = Math.min(1, Math.max(NARROWEST, size * factor));
  return within({ from: point - at * now, to: point - at * now + now });
}

/** What to do with what is seen. Pixels are those of the view's width; row is the depth. */
export interface Sink {
  frame(node: number, left: number, width: number): void;
  /** Frames too narrow to be told apart, and what is below them; or, if first < 0, what the answer leaves out below the node last. */
  merged(row: number, left: number, width: number, first: number, last: number): void;
}

/**
 * Finds what is seen in the rows from firstRow to lastRow. Frames narrower than least pixels are handed over as runs, those of one row next to each
 * other together, and never wider than 0 pixels only: the sink has to show even the narrowest run. It goes once over what is seen and
 * the siblings beside it, whatever lies below them.
 */
export function visible(g: Graph, v: View, width: number, firstRow: number, lastRow: number, least: number, sink: Sink) {
  const whole = g.value(0);
  if (!(whole > 0) || !(width > 0)) return;
  const scale = width / ((v.to - v.from) * whole), from = v.from * whole;
  const value = g.total[VALUE]!, rest = g.rest[VALUE]!, n = g.length;
  const { x, end, depth } = g;
  // By row, the run that may grow.
  const rows = Math.max(0, Math.min(lastRow, g.lastRow) - firstRow + 1);
  const first = new Int32Array(rows).fill(-1), last = new Int32Array(rows), left = new Float64Array(rows), right = new Float64Array(rows);
  const flush = (row: number) => {
    if (first[row]! < 0) return;
    sink.merged(row + firstRow, left[row]!, right[row]! - left[row]!, first[row]!, last[row]!);
    first[row] = -1;
  };
  for (let i = 0; i < n;) {
    const l = (x[i]! - from) * scale, w = value[i]! * scale, d = depth[i]!;
    if (l + w <= 0 || l >= width || w === 0 || d > lastRow) {
      i = end[i]!;
      continue;
    }
    const row = d - firstRow;
    if (w < least) {
      if (row >= 0) {
        if (first[row]! >= 0 && l > right[row]! + 1) flush(row);
        if (first[row]! < 0) {
          first[row] = i;
          left[row] = l;
        }
        last[row] = i;
        right[row] = l + w;
      }
      i = end[i]!;
      continue;
    }
    if (row >= 0) {
      flush(row);
      sink.frame(i, l, w);
    }
    if (rest[i]! > 0 && row + 1 >= 0 && row + 1 < rows) {
      // It stands where it is left over by the children, which come first.
      const children = childrenValue(g, i), at = (x[i]! + children - from) * scale, size = rest[i]! * scale;
      if (at + size > 0 && at < width) sink.merged(d + 1, at, size, -1, i);
    }
    i++;
  }
  for (let row = 0; row < rows; row++) flush(row);
}

function childrenValue(g: Graph, i: number): number {
  return g.value(i) - g.self[VALUE]![i]! - g.rest[VALUE]![i]!;
}

/** Where the node is. */
export function extent(g: Graph, node: number): View {
  const whole = g.value(0) || 1;
  return { from: g.x[node]! / whole, to: (g.x[node]! + g.value(node)) / whole };
}
