// Draws what is seen on a canvas. All numbers are device pixels; the transformation is left alone, so that edges are sharp.

import { CHANGES, COLORS } from "./color.ts";
import { visible, type View } from "./layout.ts";
import type { Graph } from "./model.ts";
import { Ruler, printable, shorten } from "./text.ts";

/** A graph in the picture. One that grows upwards has its root in the row base too, which is not drawn twice. */
export interface Pane {
  graph: Graph; up: boolean; base: number; colors: Uint8Array;
  /** While there is a search: how many of the nodes before i match. */
  matches: Int32Array | undefined;
}

export const matching = (pane: Pane, node: number) => pane.matches !== undefined && pane.matches[node + 1]! > pane.matches[node]!;

export interface Spot { pane: Pane; node: number }

export interface Scene { panes: Pane[]; view: View; scroll: number; hover: Spot | undefined; selected: Spot | undefined }

/** CSS pixels below which a frame is merged with those beside it. */
export const LEAST = 3;

const SHADES = 3;

export interface Palette {
  /** By colour, shade and whether a search dims it; see bucket. */
  fills: string[];
  ink: string; dimInk: string; matchInk: string; panel: string; hatch: string;
  /** Of the stripes of merged frames with a match among them. */
  matchHatch: string;
}

const bucket = (color: number, shade: number, dim: boolean) => (color * SHADES + shade) * 2 + (dim ? 1 : 0);
const MATCH = COLORS.indexOf("match");

/** Reads custom properties as the colours that they are within an element: rgb(1, 2, 3). The property itself may be light-dark(...). */
export function colorReader(host: HTMLElement): (name: string) => string {
  const style = getComputedStyle(host);
  return (name) => {
    const was = host.style.color;
    host.style.color = `var(${name})`;
    const color = style.color;
    host.style.color = was;
    return color;
  };
}

/** Reads the custom properties of flame.css. */
export function readPalette(host: HTMLElement): Palette {
  const read = colorReader(host);
  const rgb = (name: string): number[] => read(`--flame-${name}`).match(/\d+/g)!.map(Number);
  const mix = (a: number[], b: number[], part: number) => `rgb(${a.map((v, i) => Math.round(v + (b[i]! - v) * part)).join(" ")})`;
  const paper = rgb("paper"), ink = rgb("ink");
  const fills: string[] = [];
  const plain = ["root", "match", ...CHANGES.map(([name]) => name)]; // where a shade would say something else
  COLORS.forEach((name, color) => {
    for (let shade = 0; shade < SHADES; shade++) {
      fills[bucket(color, shade, false)] = mix(rgb(name), paper, plain.includes(name) ? 0 : shade * 0.11);
      fills[bucket(color, shade, true)] = mix(rgb(name), paper, 0.68);
    }
  });
  return { fills, ink: mix(ink, paper, 0), dimInk: mix(ink, paper, 0.3), matchInk: mix(rgb("match-ink"), paper, 0), panel: mix(paper, paper, 0), hatch: mix(ink, paper, 0.5), matchHatch: mix(rgb("match"), paper, 0) };
}

/** Functions are told apart by shade, also where they have the same colour. */
const shadeOf = (name: string) => (name === "" ? 0 : (name.length * 7 + name.charCodeAt(0) + name.charCodeAt(name.length - 1) * 3) % SHADES);

/** The colour of a frame, as it is filled. */
export function fillOf(p: Palette, pane: Pane, node: number): string {
  const match = matching(pane, node);
  return p.fills[bucket(match ? MATCH : pane.colors[node]!, shadeOf(pane.graph.func(node).name), pane.matches !== undefined && !match)]!;
}

export function labelOf(g: Graph, node: number): string {
  return printable(node === 0 && g.func(0).name === "" ? "all" : g.func(node).name);
}

/** What is in the picture: by pane the depths from the first to the last that lie between two rows. */
export function depths(pane: Pane, firstRow: number, lastRow: number): [number, number] {
  return pane.up ? [Math.max(1, pane.base - lastRow), pane.base - firstRow] : [Math.max(0, firstRow - pane.base), lastRow - pane.base];
}

export const rowOf = (pane: Pane, depth: number) => (pane.up ? pane.base - depth : pane.base + depth);

export class Painter {
  palette: Palette;
  private ruler: Ruler | undefined;
  private font = "";
  private scale = 0;
  private hatches: [plain: CanvasPattern, match: CanvasPattern] | undefined;
  private readonly buckets: number[][] = [];
  private readonly labels = new Map<string, [long: string, short: string]>();

  constructor(palette: Palette) { this.palette = palette; }

  setPalette(palette: Palette) {
    this.palette = palette;
    this.hatches = undefined;
  }

  /** Draws width x height; row and least are a row's height and the least width of a frame. */
  draw(c: CanvasRenderingContext2D, scene: Scene, width: number, height: number, row: number, scale: number) {
    const p = this.palette, least = LEAST * scale, gap = Math.max(1, Math.floor(scale)), scroll = Math.round(scene.scroll * scale);
    c.fillStyle = p.panel;
    c.fillRect(0, 0, width, height);
    if (scale !== this.scale) this.hatches = undefined;
    this.scale = scale;
    this.hatches ??= [hatch(c, p.panel, p.hatch, scale), hatch(c, p.panel, p.matchHatch, scale)];
    const firstRow = Math.floor(scroll / row), lastRow = Math.floor((scroll + height - 1) / row);
    const merged: [number[], number[]] = [[], []], texts: [Pane, number, number, number, number][] = [];
    for (const pane of scene.panes) {
      const g = pane.graph, [first, last] = depths(pane, firstRow, lastRow);
      visible(g, scene.view, width, first, last, least, {
        frame: (node, left, size) => {
          const y = rowOf(pane, g.depth[node]!) * row - scroll;
          const l = Math.max(0, Math.round(left)), r = Math.min(width, Math.round(left + size));
          const match = matching(pane, node), dim = pane.matches !== undefined && !match;
          const name = g.func(node).name;
          const b = bucket(match ? MATCH : pane.colors[node]!, shadeOf(name), dim);
          (this.buckets[b] ??= []).push(l, y, Math.max(1, r - l - gap));
          if (r - l > 20 * scale) texts.push([pane, node, l, y, r - l - gap]);
        },
        merged: (depth, left, size, from, to) => {
          const l = Math.max(0, Math.round(left)), r = Math.min(width, Math.round(left + size));
          if (from < 0 && r - l < gap) return; // of what the answer leaves out, what is too narrow for a pixel is in the frame above
          const match = from >= 0 && pane.matches !== undefined && pane.matches[g.end[to]!]! > pane.matches[from]!;
          merged[match ? 1 : 0].push(l, rowOf(pane, depth) * row - scroll, Math.max(gap, r - l - (r - l > 4 ? gap : 0)));
        },
      });
    }
    const tall = row - gap;
    this.buckets.forEach((rects, b) => {
      if (rects.length === 0) return;
      c.fillStyle = p.fills[b]!;
      for (let i = 0; i < rects.length; i += 3) c.fillRect(rects[i]!, rects[i + 1]!, rects[i + 2]!, tall);
      rects.length = 0;
    });
    merged.forEach((rects, match) => {
      c.fillStyle = this.hatches![match]!;
      for (let i = 0; i < rects.length; i += 3) c.fillRect(rects[i]!, rects[i + 1]!, rects[i + 2]!, tall);
    });
    this.write(c, texts, row, scale);
    for (const [spot, thick] of [[scene.hover, 1], [scene.selected, 2]] as const) {
      if (!spot) continue;
      const g = spot.pane.graph, whole = g.value(0) * (scene.view.to - scene.view.from) / width;
      const left = (g.x[spot.node]! - scene.view.from * g.value(0)) / whole, right = left + g.value(spot.node) / whole;
      const l = Math.max(0, Math.round(left)), r = Math.min(width, Math.round(right)), line = thick * gap;
      if (r < 0 || l > width) continue;
      c.strokeStyle = p.ink;
      c.lineWidth = line;
      c.strokeRect(l + line / 2, rowOf(spot.pane, g.depth[spot.node]!) * row - scroll + line / 2, Math.max(1, r - l - gap - line), tall - line);
    }
  }

  private write(c: CanvasRenderingContext2D, texts: [Pane, number, number, number, number][], row: number, scale: number) {
    const font = `${12 * scale}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
    c.font = font;
    c.textBaseline = "middle";
    c.direction = "ltr";
    if (!this.ruler || this.font !== font) {
      this.ruler = new Ruler((text) => c.measureText(text).width);
      this.font = font;
    }
    let style = "";
    for (const [pane, node, left, y, size] of texts) {
      const name = pane.graph.func(node).name;
      let label = this.labels.get(name);
      if (!label) {
        const long = labelOf(pane.graph, node);
        label = [long, shorten(long)];
        if (this.labels.size > 100_000) this.labels.clear();
        this.labels.set(name, label);
      }
      const pad = 5 * scale, room = size - 2 * pad;
      const text = this.ruler.width(label[0]) <= room ? label[0] : this.ruler.fit(label[1], room);
      if (text === "") continue;
      const ink = matching(pane, node) ? this.palette.matchInk : pane.matches ? this.palette.dimInk : this.palette.ink;
      if (ink !== style) c.fillStyle = style = ink;
      c.fillText(text, left + pad, y + row / 2);
    }
  }
}

/** Stripes that no frame has. */
function hatch(c: CanvasRenderingContext2D, paper: string, ink: string, scale: number): CanvasPattern {
  const size = Math.round(4 * scale), tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const t = tile.getContext("2d")!;
  t.fillStyle = paper;
  t.fillRect(0, 0, size, size);
  t.fillStyle = ink;
  for (let i = 0; i < size; i++) t.fillRect(i, size - 1 - i, Math.ceil(scale), 1);
  return c.createPattern(tile, "repeat")!;
}
