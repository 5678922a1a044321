// The flame graph as people use it: an icicle on a canvas, with a minimap, a legend and the numbers of one frame.

import "./flame.css";
import { CHANGES, COLORS, KINDS, ModuleColors, colorsOf, type ColorMode } from "./color.ts";
import { ALL, extent, visible, within, zoom, type View } from "./layout.ts";
import { openMenu, type Item } from "./menu.ts";
import { AFTER, BEFORE, COUNT, INLINED, SIGNIFICANT, VALUE, fromTree, type FlameNode, type Func, type Graph, type Tree, type Weight } from "./model.ts";
import { LEAST, Painter, fillOf, labelOf, readPalette, rowOf, type Pane, type Spot } from "./paint.ts";
import { pattern, search } from "./search.ts";
import { collapse, filter, invert, sandwich, type Sandwich } from "./shape.ts";
import { toSVG } from "./svg.ts";
import { formatCount, formatShare, formatValue, plusMinus, printable } from "./text.ts";

/** What the keys do while the graph has the focus. */
export const KEYS: [key: string, what: string][] = [
  ["← → ↑ ↓", "go to the frame beside, above or below"], ["Home", "go to the outermost frame shown"], ["Enter", "zoom in on the frame"],
  ["Esc", "zoom out, or leave callers and callees"], ["+ −", "zoom"], ["0", "show all"], ["Page Up/Down", "scroll"], ["n N", "next, previous match"],
  ["c", "copy the name"], ["s", "callers and callees"], ["f", "only stacks with the function"], ["x", "without stacks with the function"], ["m", "menu of the frame"],
];

export interface Options {
  unit: string;
  /** The reader has zoomed to a frame, or out to all ([]). */
  onSelect?(path: string[]): void;
  /** What is seen is no longer what was zoomed to: a part of the width, and the first row; "" where it is. Told when it stands still. */
  onMove?(part: string, row: string): void;
  /** The details show another function, or none (""): whoever knows where it stands says so by setPlaces. */
  onDetails?(name: string): void;
  /** So does the tooltip; of what is known already it is not told. */
  onHover?(name: string): void;
  /** A sentence on what a function is, where there is one. */
  explain?(name: string, kind: string): string | undefined;
  /** Where it is given, the page does focus and ignore. Sandwich was done already; fn "" is that it was left. */
  onCommand?(c: "focus" | "ignore" | "sandwich", fn: string): void;
}

/** Where a function stands: the path of its executable or library, with its build id, and its source; "" and 0 where unknown. */
export interface Place {
  path: string; buildId: string; file: string; startLine: number;
  lines: { line: number; self: Weight }[];
}

/** Frames that are drawn as one; first < 0: what was not loaded below last. */
interface Run { first: number; last: number; pane: Pane }

/** New data waits as long as the mouse was moved in this time. */
const QUIET_MS = 1500;
const ZOOM_MS = 180;
/** Where the view was moved to is told when it has not been moved for so long. */
const REST_MS = 250;
/** Where functions stand is kept of so many. */
const MOST_PLACES = 100;

export class FlameGraph {
  private readonly options: Options;
  private readonly root = element("div", "fg");
  private readonly view = element("div", "fg-view");
  private readonly canvas = document.createElement("canvas");
  private readonly context: CanvasRenderingContext2D;
  private readonly map = element("div", "fg-map");
  private readonly mapCanvas = document.createElement("canvas");
  private readonly window = element("div", "fg-window");
  private readonly notes = element("div", "fg-notes");
  private readonly details = element("div", "fg-details");
  private readonly legend = element("ul", "fg-legend");
  private readonly tip = element("div", "fg-tip");
  private readonly live = element("div", "fg-hidden");
  private readonly empty = element("div", "fg-empty");
  private readonly item = element("div", "fg-hidden");
  private readonly painter: Painter;
  private readonly cleanup: (() => void)[] = [];
  private readonly tall = matchMedia("(pointer: coarse)").matches ? 26 : 20;
  private readonly still = matchMedia("(prefers-reduced-motion: reduce)");

  private data: Graph | undefined; // as it was given
  private waiting: { tree: Tree; timer: number } | undefined;
  private panes: Pane[] = []; // the last one is that which path is of
  private halves: Sandwich | undefined;
  private mode: ColorMode = "kind";
  private readonly modules = new ModuleColors();
  private inverted = false;
  private collapsed = false;
  private middle = ""; // the function between its callers and callees
  private focus = "";
  private ignore = "";
  private pattern = "";

  private at: View = ALL;
  private scroll = 0;
  private zoomed: { name: string; module?: string }[] = []; // the path, also while the data has no such node
  private top = 0; // where all that is shown is scrolled to at first
  private home = 0; // where a zoom is, in a page that is opened with it
  private told = { part: "", row: "" }; // how far it was moved from there
  private resting = 0;
  private selected: Spot | undefined;
  private hover: Spot | undefined;
  private match = -1;
  private hits: Spot[] = [];
  private mouse = { x: 0, y: 0 };
  private moving: number | undefined; // the animation's frame request
  private goal = { view: ALL, scroll: 0 }; // of the animation
  private drawing: number | undefined;
  private pointers = new Map<number, PointerEvent>();
  private dragged = false;
  private grip: { at: number; view: View | undefined } | undefined; // where the map was taken, and the window if that was taken
  private movedAt = -Infinity;
  private closeMenu: (() => void) | undefined;
  private detailed = ""; // the function that the details are about
  private hovered = ""; // that which the tooltip is about
  private places = new Map<string, Place[]>(); // by function, those told last last

  constructor(host: HTMLElement, options: Options) {
    this.options = options;
    this.view.tabIndex = 0;
    this.view.dataset["test"] = "flame";
    this.view.setAttribute("role", "tree");
    this.view.setAttribute("aria-label", "Flame graph");
    this.view.setAttribute("aria-keyshortcuts", "ArrowUp ArrowDown ArrowLeft ArrowRight Enter Escape");
    this.item.setAttribute("role", "treeitem");
    this.item.id = "fg-item-a";
    this.item.textContent = "no samples yet";
    this.view.setAttribute("aria-activedescendant", this.item.id);
    this.canvas.setAttribute("aria-hidden", "true");
    this.map.setAttribute("aria-hidden", "true"); // the keys do the same
    this.tip.setAttribute("aria-hidden", "true"); // the item says it
    this.details.dataset["test"] = "flame-details";
    this.legend.setAttribute("aria-label", "Colours");
    this.live.setAttribute("role", "status");
    this.tip.hidden = true;
    this.empty.hidden = true;
    this.map.append(this.mapCanvas, this.window);
    this.view.append(this.canvas, this.item, this.empty);
    const top = element("div", "fg-top");
    top.append(this.map);
    this.root.append(top, this.notes, this.legend, this.view, this.details, this.live, this.tip);
    host.append(this.root);
    this.context = this.canvas.getContext("2d", { alpha: false })!;
    this.painter = new Painter(readPalette(this.root));
    this.listen();
  }

  // ---- data

  /** With keepView it is an update of what is shown; it waits while the mouse is moving on the graph. */
  setData(data: Tree | FlameNode, keepView: boolean): void {
    const tree = "root" in data ? data : { root: data };
    clearTimeout(this.waiting?.timer);
    this.waiting = undefined;
    const busy = this.held || this.closeMenu || performance.now() - this.movedAt < QUIET_MS;
    if (keepView && this.data && busy) {
      this.waiting = { tree, timer: window.setTimeout(() => this.setData(tree, true), QUIET_MS / 3) };
      return;
    }
    this.data = fromTree(tree, keepView ? this.data : undefined);
    this.modules.update(this.data);
    this.shape(keepView);
  }

  setColor(mode: ColorMode): void {
    if (this.mode === mode) return;
    this.mode = mode;
    this.paintPanes();
  }

  setInverted(on: boolean): void {
    if (this.inverted === on) return;
    this.inverted = on;
    this.shape(false);
  }

  setCollapse(recursion: boolean): void {
    if (this.collapsed === recursion) return;
    this.collapsed = recursion;
    this.shape(false);
  }

  /** Shows the callers and callees of the functions of that name; "" shows the whole graph again. */
  setSandwich(name: string): void {
    if (this.middle === name) return;
    this.middle = name;
    this.shape(false);
  }

  /** Makes of the data what is shown. */
  private shape(keepView: boolean) {
    if (!this.data) return;
    this.settle();
    const before = keepView ? this.main?.graph : undefined;
    const anchor = before && this.anchor(), selected = before && place(this.selected), hover = before && place(this.hover);
    let g = this.data;
    if (this.focus || this.ignore) g = filter(g, exact(this.focus), exact(this.ignore), before);
    if (this.collapsed) g = collapse(g, before);
    let shapes: { graph: Graph; up: boolean; base: number }[];
    if (this.middle) {
      this.halves = sandwich(g, this.middle, before && this.halves);
      const { callers, callees } = this.halves, base = callers.lastRow;
      shapes = [{ graph: callers, up: true, base }, { graph: callees, up: false, base }];
    } else {
      this.halves = undefined;
      shapes = [{ graph: this.inverted ? invert(g, before) : g, up: false, base: 0 }];
    }
    this.panes = shapes.map((s) => ({ ...s, colors: new Uint8Array(s.graph.length), matches: undefined }));
    const find = (p: { up: boolean; path: Func[] } | undefined): Spot | undefined => {
      const pane = p && this.panes.find((q) => q.up === p.up), found = pane?.graph.find(p!.path);
      return found?.whole ? { pane: pane!, node: found.node } : undefined;
    };
    this.selected = find(selected);
    this.hover = find(hover);
    if (!keepView) {
      this.zoomed = [];
      this.at = ALL;
      this.scroll = this.home = this.top = this.middle ? Math.max(0, (shapes[0]!.base + 3) * this.row - this.view.clientHeight / 2) : 0;
      this.told = { part: "", row: "" };
      this.tip.hidden = true;
    } else if (anchor) {
      this.at = anchor();
      if (this.told.part) this.rest();
    }
    this.find();
    this.paintPanes();
    this.showNotes();
    this.showDetails();
    this.fillItem(this.selected ?? { pane: this.main!, node: 0 });
    if (this.hover && !this.tip.hidden) this.fillTip();
    else this.tip.hidden = true;
    this.empty.hidden = this.main!.graph.value(0) > 0;
    this.empty.textContent = this.middle ? `No samples with ${printable(this.middle)}.` : "No samples.";
    this.view.dataset["nodes"] = String(this.panes.reduce((n, p) => n + p.graph.length - 1, 0));
  }

  /** Remembers the view by the frame it is about, and gives the same view of that frame when the data is another. */
  private anchor(): () => View {
    const v = this.at, all = v.to - v.from > 0.9999, zoomed = this.extentOf(this.zoomedSpot());
    if (all || same(v, zoomed)) return () => (this.zoomed.length ? this.extentOf(this.zoomedSpot()) : ALL);
    const about = this.hover ?? this.zoomedSpot(), was = this.extentOf(about), path = place(about), part = was.to - was.from;
    return () => {
      const pane = path && this.panes.find((p) => p.up === path.up), found = pane?.graph.find(path!.path);
      if (!found?.whole) return v;
      const is = extent(pane!.graph, found.node), size = is.to - is.from;
      return within({ from: is.from + (v.from - was.from) / part * size, to: is.from + (v.to - was.from) / part * size });
    };
  }

  /** Whether a finger or a button of the mouse is down on the graph or its map. */
  private get held(): boolean {
    return this.pointers.size > 0 || this.grip !== undefined;
  }

  /** The height of a row in CSS pixels: a whole number of the screen's. */
  private get row(): number {
    const scale = devicePixelRatio || 1;
    return Math.round(this.tall * scale) / scale;
  }

  private get main(): Pane | undefined { return this.panes[this.panes.length - 1]; }

  /** The node zoomed to, or the nearest one above it that there is. */
  private zoomedSpot(): Spot | undefined {
    const pane = this.main;
    return pane && this.zoomed.length ? { pane, node: pane.graph.find(this.zoomed).node } : undefined;
  }

  private extentOf(spot: Spot | undefined): View { return spot ? extent(spot.pane.graph, spot.node) : ALL; }

  private paintPanes() {
    for (const pane of this.panes) pane.colors = colorsOf(pane.graph, this.mode, this.modules);
    this.showLegend();
    this.drawMap();
    this.redraw();
  }

  // ---- search

  /** Marks the frames whose names match, "" none. The share is of samples with a match in their stack. */
  search(text: string): { matches: number; share: number; problem?: string } {
    this.pattern = text;
    this.match = -1;
    const { share, problem } = this.find();
    this.drawMap();
    this.redraw();
    return { matches: this.hits.length, share, problem };
  }

  private find(): { share: number; problem?: string } {
    this.hits = [];
    let share = 0, problem: string | undefined;
    for (const pane of this.panes) {
      pane.matches = undefined;
      if (!this.pattern) continue;
      const found = search(pane.graph, pattern(this.pattern));
      problem ??= found.problem;
      const is = new Uint8Array(pane.graph.length);
      for (const node of found.nodes) {
        is[node] = 1;
        this.hits.push({ pane, node });
      }
      pane.matches = new Int32Array(is.length + 1);
      is.forEach((m, i) => { pane.matches![i + 1] = pane.matches![i]! + m; });
      if (pane === this.main) share = found.value / (pane.graph.value(0) || 1);
    }
    return { share, problem };
  }

  next(): void { this.step(1); }
  previous(): void { this.step(-1); }

  private step(by: number) {
    if (this.hits.length === 0) return;
    this.match = this.match < 0 ? (by > 0 ? 0 : this.hits.length - 1) : (this.match + by + this.hits.length) % this.hits.length;
    const hit = this.hits[this.match]!;
    this.select(hit);
    this.say(`Match ${this.match + 1} of ${this.hits.length}: ${this.describe(hit)}`);
  }

  // ---- zoom

  get path(): string[] { return this.zoomed.map((f) => f.name); }

  zoomTo(path: string[]): void {
    const pane = this.main;
    this.zoomed = path.map((name) => ({ name }));
    if (!pane) return;
    const { node, whole } = pane.graph.find(this.zoomed);
    if (whole) this.zoomed = pane.graph.path(node);
    this.go({ pane, node });
    this.arrive({ pane, node });
  }

  /** From here on it is told how far the view is from where a page has it that is opened with this zoom. */
  private arrive(spot: Spot) {
    this.home = this.scrollTo(spot, this.top);
    this.told = { part: "", row: "" };
  }

  /** Goes to where onMove told that the view was; with "" to what was zoomed to. */
  moveTo(part: string, row: string): void {
    if ((part === this.told.part && row === this.told.row) || !this.main) return;
    const [from, size] = part.split(",").map(Number);
    const view = from! >= 0 && size! > 0 ? { from: from!, to: from! + size! } : this.extentOf(this.zoomedSpot());
    this.glide(view, row && Number(row) >= 0 ? Number(row) * this.row : this.home);
    this.told = { part, row };
  }

  /** How far the view is from what was zoomed to, in as many digits as it takes to find the place again. */
  private tell() {
    if (this.held || this.moving !== undefined) return this.rest();
    const { from, to } = this.at, size = to - from;
    const part = same(this.at, this.extentOf(this.zoomedSpot())) ? "" : `${+from.toFixed(Math.min(15, 4 - Math.floor(Math.log10(size))))},${+size.toPrecision(4)}`;
    const row = Math.abs(this.scroll - this.limit(this.home)) < 1 ? "" : String(+(this.scroll / this.row).toFixed(1));
    if (part === this.told.part && row === this.told.row) return;
    this.told = { part, row };
    this.options.onMove?.(part, row);
  }

  private rest() {
    clearTimeout(this.resting);
    this.resting = window.setTimeout(() => this.tell(), REST_MS);
  }

  reset(): void {
    this.zoomed = [];
    this.glide(ALL, this.top);
    this.home = this.top;
    this.told = { part: "", row: "" };
    this.showDetails();
  }

  private go(spot: Spot) {
    this.glide(this.extentOf(spot), this.scrollTo(spot, this.scroll));
    this.showDetails();
  }

  /** Where to scroll to from somewhere for a frame to be in sight, with some of what is in it. */
  private scrollTo(spot: Spot, from: number): number {
    const y = rowOf(spot.pane, spot.pane.graph.depth[spot.node]!) * this.row, height = this.view.clientHeight;
    return y >= from && y + this.row <= from + height * (spot.pane.up ? 1 : 0.6) ? from : y - Math.min(3 * this.row, height / 3);
  }

  /** The reader zooms: to a node, or to all. */
  private choose(spot: Spot | undefined) {
    if (spot && spot.node > 0 && spot.pane === this.main) {
      this.zoomed = spot.pane.graph.path(spot.node);
      this.go(spot);
      this.arrive(spot);
    } else if (spot && spot.node > 0) { // among the callers there is a view, but no path
      this.go(spot);
      return;
    } else {
      this.reset();
    }
    this.options.onSelect?.(this.path);
    this.say(this.zoomed.length ? `Zoomed to ${this.describe(spot!)}` : "All is shown");
  }

  /** To the nearest frame outwards that is wider than the view. */
  private out() {
    let spot = this.zoomedSpot();
    const size = (this.at.to - this.at.from) * 1.01;
    while (spot && spot.node > 0 && (this.extentOf(spot).to - this.extentOf(spot).from) <= size) spot = { pane: spot.pane, node: spot.pane.graph.parent[spot.node]! };
    this.choose(spot && !same(this.extentOf(spot), ALL) ? spot : undefined);
  }

  private glide(to: View, scroll: number) {
    this.stop();
    const target = within(to), down = this.limit(scroll);
    this.goal = { view: target, scroll: down };
    this.rest();
    if (this.still.matches || document.hidden) {
      this.at = target;
      this.scroll = down;
      this.redraw();
      return;
    }
    const from = this.at, up = this.scroll, start = performance.now();
    const step = (now: number) => {
      const t = Math.min(1, Math.max(0, now - start) / ZOOM_MS), e = 1 - (1 - t) ** 3;
      this.at = t === 1 ? target : within({ from: from.from + (target.from - from.from) * e, to: from.to + (target.to - from.to) * e });
      this.scroll = up + (down - up) * e;
      this.draw();
      this.moving = t < 1 ? requestAnimationFrame(step) : undefined;
    };
    this.moving = requestAnimationFrame(step);
  }

  /** Ends the animation where it goes to. */
  private settle() {
    if (this.moving === undefined) return;
    this.stop();
    this.at = this.goal.view;
    this.scroll = this.goal.scroll;
  }

  private stop() {
    if (this.moving !== undefined) cancelAnimationFrame(this.moving);
    this.moving = undefined;
  }

  private get rows(): number { return 1 + Math.max(0, ...this.panes.map((p) => p.base + (p.up ? 0 : p.graph.lastRow))); }
  private limit(scroll: number) { return Math.max(0, Math.min(scroll, this.rows * this.row - this.view.clientHeight)); }

  private pan(dx: number, dy: number) {
    this.stop();
    const part = (this.at.to - this.at.from) * dx / (this.view.clientWidth || 1);
    this.at = within({ from: this.at.from - part, to: this.at.to - part });
    this.scroll = this.limit(this.scroll - dy);
    this.rest();
    this.redraw();
  }

  private zoomAt(x: number, factor: number) {
    this.stop();
    this.at = zoom(this.at, x / (this.view.clientWidth || 1), factor);
    this.rest();
    this.redraw();
  }

  // ---- drawing

  private redraw() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = undefined;
      this.draw();
    });
  }

  private draw() {
    const scale = devicePixelRatio || 1, width = Math.round(this.view.clientWidth * scale), height = Math.round(this.view.clientHeight * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.scroll = this.limit(this.scroll);
    this.painter.draw(this.context, { panes: this.panes, view: this.at, scroll: this.scroll, hover: this.hover, selected: this.selected },
      width, height, Math.round(this.row * scale), scale);
    const all = this.at.to - this.at.from >= 0.9999;
    this.window.classList.toggle("all", all);
    this.window.style.left = `${this.at.from * 100}%`;
    this.window.style.width = `${(this.at.to - this.at.from) * 100}%`;
    // A graph that fits leaves swipes up and down to the page.
    this.view.style.touchAction = this.rows * this.row > this.view.clientHeight ? "none" : "pan-y";
  }

  private drawMap() {
    const scale = devicePixelRatio || 1, c = this.mapCanvas, width = Math.round(this.map.clientWidth * scale), height = Math.round(this.map.clientHeight * scale);
    if (width === 0 || height === 0) return;
    c.width = width;
    c.height = height;
    const context = c.getContext("2d", { alpha: false })!, rows = this.rows, tall = height / rows;
    context.fillStyle = this.painter.palette.panel;
    context.fillRect(0, 0, width, height);
    for (const pane of this.panes) {
      const put = (depth: number, left: number, size: number) => context.fillRect(left, rowOf(pane, depth) * tall, Math.max(0.5, size), Math.max(0.5, tall));
      visible(pane.graph, ALL, width, 0, pane.graph.lastRow, scale, {
        frame: (node, left, size) => {
          context.fillStyle = fillOf(this.painter.palette, pane, node);
          put(pane.graph.depth[node]!, left, size);
        },
        merged: (depth, left, size, first, last) => {
          const match = first >= 0 && pane.matches && pane.matches[pane.graph.end[last]!]! > pane.matches[first]!;
          context.fillStyle = match ? this.painter.palette.matchHatch : this.painter.palette.hatch;
          put(depth, left, size);
        },
      });
    }
  }

  private showLegend() {
    const used = new Set<number>();
    for (const p of this.panes) for (const c of p.colors) used.add(c);
    const named = this.mode === "kind" || (this.mode === "diff" && !this.data?.isDifference) ? KINDS
      : this.mode === "diff" ? CHANGES : [...this.modules.legend, ["other", "other files"] as [string, string]];
    this.legend.replaceChildren(...named.filter(([name]) => named === CHANGES || used.has(COLORS.indexOf(name))).map(([name, label]) => {
      const li = element("li"), swatch = element("i");
      swatch.style.background = `var(--flame-${name})`;
      li.append(swatch, printable(label));
      return li;
    }));
    const narrow = element("li"), swatch = element("i", "narrow");
    narrow.append(swatch, "narrow frames together: zoom in");
    this.legend.append(narrow);
    if (named === CHANGES) {
      const note = element("li");
      note.textContent = "width: mean of before and after";
      this.legend.append(note);
    }
  }

  private showNotes() {
    const note = (text: string, key: string, run: () => void) => {
      const b = document.createElement("button"), name = element("span");
      b.type = "button";
      name.textContent = printable(text);
      const x = element("span");
      x.textContent = key;
      b.append(name, x);
      b.addEventListener("click", run);
      return b;
    };
    const notes: HTMLElement[] = [];
    if (this.middle) notes.push(note(`Callers and callees of ${this.middle}`, "✕", () => this.leave()));
    if (this.focus) notes.push(note(`Only ${this.focus}`, "✕", () => { this.focus = ""; this.shape(false); }));
    if (this.ignore) notes.push(note(`Without ${this.ignore}`, "✕", () => { this.ignore = ""; this.shape(false); }));
    this.notes.replaceChildren(...notes);
  }

  private leave() {
    this.setSandwich("");
    this.options.onCommand?.("sandwich", "");
    this.view.focus();
  }

  // ---- the numbers of a frame

  private name(spot: Spot): string {
    return labelOf(spot.pane.graph, spot.node);
  }

  private share(v: number): string { return formatShare(v / (this.data?.value(0) || 1)); }

  /** One line for tooltip and screen reader. */
  private numbers(spot: Spot): string {
    const g = spot.pane.graph, i = spot.node, total = g.value(i);
    if (g.isDifference) {
      const d = this.data!, before = g.total[BEFORE]![i]! / (d.total[BEFORE]![0]! || 1), after = g.total[AFTER]![i]! / (d.total[AFTER]![0]! || 1);
      return `${formatShare(before)} before, ${formatShare(after)} after${g.flags[i]! & SIGNIFICANT || i === 0 ? "" : "; may be chance"}`;
    }
    const self = this.inverted || spot.pane.up ? "" : `self ${this.share(g.self[VALUE]![i]!)}, `;
    return `${self}total ${this.share(total)}, ${formatValue(total, this.options.unit)}`;
  }

  private counted(spot: Spot): string {
    const n = spot.pane.graph.total[COUNT]![spot.node]!;
    return `${formatCount(n)} ± ${formatCount(Math.ceil(plusMinus(n, this.data!.total[COUNT]![0]!)))}`;
  }

  private describe(spot: Spot): string { return `${this.name(spot)}, ${this.numbers(spot)}`; }

  private showDetails() {
    const pane = this.main;
    if (!pane || !this.data) return;
    const spot = this.selected ?? this.zoomedSpot() ?? { pane, node: 0 };
    const g = spot.pane.graph, i = spot.node, f = g.func(i), unit = this.options.unit;
    const name = element("strong"), list = element("dl");
    name.textContent = this.name(spot);
    const entry = (what: string, text: string, title = "") => {
      const row = element("div"), dt = element("dt"), dd = element("dd");
      dt.textContent = what;
      dd.textContent = text;
      if (title) row.title = title;
      row.append(dt, dd);
      list.append(row);
    };
    const amount = (v: number) => `${this.share(v)}  ${formatValue(v, unit)}`;
    if (g.isDifference) {
      entry("before → after", this.numbers(spot));
      entry("samples of both", formatCount(g.total[COUNT]![i]!));
    } else {
      if (!this.inverted && !spot.pane.up) entry("self", amount(g.self[VALUE]![i]!));
      entry("total", amount(g.value(i)));
      entry("samples", this.counted(spot), "n ± 1.96 √(n (1 − n/N)): 95 of 100 times the true number is within it, if samples are independent. N is all samples.");
      if (g.rest[VALUE]![i]! > 0) entry("in lighter frames not loaded", this.share(g.rest[VALUE]![i]!));
    }
    if (i > 0 && (f.module || f.kind)) entry("in", [f.module, f.kind, g.flags[i]! & INLINED ? "inlined" : ""].filter(Boolean).map(printable).join(", "));
    const of = this.codeOf(spot), here = this.placesOf(spot);
    for (const p of here.filter((p) => p.file).slice(0, 3)) {
      const hot = [...p.lines].sort((a, b) => b.self.value - a.self.value).slice(0, 3).map((l) => l.line);
      entry("at", sourceOf(p));
      if (hot.length) entry(hot.length > 1 ? "hottest lines" : "hottest line", hot.join(", "));
    }
    for (const id of new Set(here.map((p) => p.buildId).filter(Boolean))) entry("build id", printable(id));
    const told = element("p");
    told.textContent = this.explain(spot);
    this.details.replaceChildren(name, list, ...(told.textContent ? [told] : []));
    if (of !== this.detailed) this.options.onDetails?.(this.detailed = of);
    this.view.dataset["path"] = spot.pane.graph.path(i).map((x) => x.name).join(";");
  }

  /** The function that a frame is of; "" of a label's. */
  private codeOf(spot: Spot): string { return spot.pane.graph.func(spot.node).kind === "label" ? "" : this.functionOf(spot); }

  /** Where the function of a frame stands. A name may be in several files: those of other modules are not this frame's. */
  private placesOf(spot: Spot): Place[] {
    const { module } = spot.pane.graph.func(spot.node);
    return (this.places.get(this.codeOf(spot)) ?? []).filter((p) => !module || p.path.endsWith(module));
  }

  private explain(spot: Spot): string {
    const f = spot.pane.graph.func(spot.node);
    return this.options.explain?.(f.name, f.kind) ?? "";
  }

  /** Says where the functions of a name stand. */
  setPlaces(name: string, places: Place[]): void {
    this.places.delete(name);
    this.places.set(name, places);
    if (this.places.size > MOST_PLACES) this.places.delete(this.places.keys().next().value!);
    if (name === this.detailed) this.showDetails();
    if (this.hover && !this.tip.hidden && name === this.codeOf(this.hover)) this.fillTip();
    this.placeTip(); // it is larger now
  }

  /** Of another question a function may stand elsewhere. What was asked for last is told again. */
  forgetPlaces(): void { this.places.clear(); }

  private fillTip(run?: Run) {
    const name = element("strong"), lines: HTMLElement[] = [];
    const line = (text: string, className = "") => {
      const p = element("p", className);
      p.textContent = text;
      if (text) lines.push(p);
    };
    if (run) {
      const g = run.pane.graph;
      if (run.first < 0) {
        name.textContent = "Lighter frames that were not loaded";
        line(`${this.share(g.rest[VALUE]![run.last]!)} below ${labelOf(g, run.last)}`);
      } else {
        let value = 0, frames = 0;
        for (let i = run.first; i <= run.last; i = g.depth[i] === g.depth[run.first] ? g.end[i]! : i + 1) {
          if (g.depth[i] !== g.depth[run.first]) continue;
          value += g.value(i);
          frames++;
        }
        name.textContent = `${formatCount(frames)} narrow ${frames === 1 ? "frame" : "frames"}`;
        line(`together ${this.share(value)}; zoom in to tell them apart`);
      }
      this.tip.replaceChildren(name, ...lines);
      return;
    }
    const spot = this.hover!, g = spot.pane.graph, f = g.func(spot.node), here = this.placesOf(spot);
    name.textContent = this.name(spot);
    line(this.numbers(spot));
    line(g.isDifference ? `${formatCount(g.total[COUNT]![spot.node]!)} samples of both` : `${this.counted(spot)} samples`);
    line([...new Set(here.filter((p) => p.file).map(sourceOf))].slice(0, 2).join(", "), "dim");
    if (spot.node > 0) line([f.module, f.kind, g.flags[spot.node]! & INLINED ? "inlined" : ""].filter(Boolean).map(printable).join(", "), "dim");
    line([...new Set(here.map((p) => p.buildId).filter(Boolean))].map((id) => `build id ${printable(id)}`).slice(0, 2).join(", "), "dim");
    line(this.explain(spot), "told");
    this.tip.replaceChildren(name, ...lines);
  }

  private say(text: string) { this.live.textContent = text; }

  /** Selects a frame, brings it into sight and tells the screen reader. */
  private select(spot: Spot) {
    const g = spot.pane.graph, e = this.extentOf(spot), size = e.to - e.from, seen = this.at.to - this.at.from;
    const width = this.view.clientWidth || 1, height = this.view.clientHeight;
    let view = this.at;
    // Wide enough to be seen and read, and not beside the view.
    if (size / seen * width < 40) view = within({ from: (e.from + e.to) / 2 - size * width / 240, to: (e.from + e.to) / 2 + size * width / 240 });
    else if (e.to <= this.at.from + seen * 0.02 || e.from >= this.at.to - seen * 0.02) view = within({ from: (e.from + e.to) / 2 - seen / 2, to: (e.from + e.to) / 2 + seen / 2 });
    const y = rowOf(spot.pane, g.depth[spot.node]!) * this.row;
    const scroll = y < this.scroll ? y - this.row : y + this.row > this.scroll + height ? y + 2 * this.row - height : this.scroll;
    if (view !== this.at || scroll !== this.scroll) this.glide(view, scroll);
    else this.redraw();
    this.mark(spot);
  }

  private mark(spot: Spot) {
    this.selected = spot;
    // A reader is told of a new element, not of a changed one.
    this.item.id = this.item.id === "fg-item-a" ? "fg-item-b" : "fg-item-a";
    this.view.setAttribute("aria-activedescendant", this.item.id);
    this.fillItem(spot);
    this.showDetails();
  }

  private fillItem(spot: Spot) {
    const g = spot.pane.graph;
    this.item.textContent = this.describe(spot);
    this.item.setAttribute("aria-level", String(g.depth[spot.node]! + 1));
    this.item.setAttribute("aria-selected", "true");
    if (g.end[spot.node]! > spot.node + 1) this.item.setAttribute("aria-expanded", "true");
    else this.item.removeAttribute("aria-expanded");
  }

  /** The neighbour of the selected frame in a direction of the picture. */
  private neighbour(key: string): Spot | undefined {
    const main = this.main!;
    const from = this.selected ?? this.zoomedSpot() ?? { pane: main, node: 0 };
    if (!this.selected) return from;
    const { pane, node } = from, g = pane.graph;
    const heaviest = (h: Graph, of: number) => {
      let best = -1;
      for (let c = of + 1; c < h.end[of]!; c = h.end[c]!) if (best < 0 || h.value(c) > h.value(best)) best = c;
      return best;
    };
    const inwards = (p: Pane, of: number) => {
      const c = heaviest(p.graph, of);
      return c < 0 ? undefined : { pane: p, node: c };
    };
    if (key === "ArrowUp" || key === "ArrowDown") {
      const away = (key === "ArrowUp") === pane.up;
      if (away) return inwards(pane, node);
      if (node > 0) return { pane: g.parent[node] === 0 ? main : pane, node: g.parent[node]! };
      const other = this.panes.find((p) => p !== pane);
      return other && inwards(other, 0);
    }
    const depth = g.depth[node];
    if (key === "ArrowRight") {
      for (let i = g.end[node]!; i < g.length; i++) if (g.depth[i] === depth) return { pane, node: i };
    } else {
      for (let i = node - 1; i > 0; i--) if (g.depth[i] === depth) return { pane, node: i };
    }
    return undefined;
  }

  // ---- commands

  private functionOf(spot: Spot): string { return spot.node === 0 ? this.middle : spot.pane.graph.func(spot.node).name; }

  private command(c: "focus" | "ignore" | "sandwich", name: string) {
    if (!name) return;
    if (c === "sandwich") {
      this.setSandwich(name);
      this.mark({ pane: this.main!, node: 0 });
      this.say(`Callers and callees of ${printable(name)}`);
      this.options.onCommand?.(c, name);
    } else if (this.options.onCommand) {
      this.options.onCommand(c, name);
    } else {
      this[c] = name;
      this.shape(false);
    }
  }

  private async copy(name: string) {
    try {
      await navigator.clipboard.writeText(name);
      this.say("Copied");
    } catch {
      // Without TLS and beyond loopback there is no clipboard but by selection.
      const area = document.createElement("textarea");
      area.value = name;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      this.view.focus();
      this.say(done ? "Copied" : "The browser did not let the name be copied");
    }
  }

  private menu(spot: Spot, x: number, y: number) {
    const name = this.functionOf(spot), items: Item[] = [];
    if (name) {
      items.push({ label: "Copy name", key: "c", run: () => void this.copy(name) });
      if (spot.node > 0) items.push({ label: "Zoom in", key: "Enter", run: () => this.choose(spot) });
      if (name !== this.middle) items.push({ label: "Callers and callees", key: "s", run: () => this.command("sandwich", name) });
      items.push({ label: "Only stacks with it", key: "f", run: () => this.command("focus", name) },
        { label: "Without stacks with it", key: "x", run: () => this.command("ignore", name) });
    }
    if (this.middle) items.push({ label: "Whole graph", key: "Esc", run: () => this.leave() });
    items.push({ label: "Show all", key: "0", run: () => this.choose(undefined) });
    this.tip.hidden = true;
    this.closeMenu?.();
    this.closeMenu = openMenu(this.root, this.name(spot), items, x, y, () => {
      this.closeMenu = undefined;
      this.view.focus();
    });
  }

  private key(e: KeyboardEvent) {
    if (!this.main || e.altKey || ((e.ctrlKey || e.metaKey) && e.key !== "F10")) return;
    const spot = this.selected ?? this.zoomedSpot() ?? { pane: this.main, node: 0 }, name = this.functionOf(spot), page = this.view.clientHeight * 0.8;
    switch (e.key) {
      case "ArrowUp": case "ArrowDown": case "ArrowLeft": case "ArrowRight": {
        const to = this.neighbour(e.key);
        if (to) this.select(to);
        break;
      }
      case "Home": this.select(this.zoomedSpot() ?? { pane: this.main, node: 0 }); break;
      case "Enter": case " ": this.choose(spot); break;
      case "Escape":
        if (this.at.to - this.at.from < 0.9999 || this.zoomed.length) this.out();
        else if (this.middle) this.leave();
        else return;
        break;
      case "+": case "=": this.glide(zoom(this.at, this.centre(spot), 0.6), this.scroll); break;
      case "-": case "_": this.glide(zoom(this.at, this.centre(spot), 1 / 0.6), this.scroll); break;
      case "0": this.choose(undefined); break;
      case "PageUp": this.glide(this.at, this.scroll - page); break;
      case "PageDown": this.glide(this.at, this.scroll + page); break;
      case "n": this.next(); break;
      case "N": this.previous(); break;
      case "c": if (name) void this.copy(name); break;
      case "s": this.command("sandwich", name); break;
      case "f": this.command("focus", name); break;
      case "x": this.command("ignore", name); break;
      case "m": case "ContextMenu": case "F10": {
        if (e.key === "F10" && !e.shiftKey) return;
        const box = this.view.getBoundingClientRect(), y = (rowOf(spot.pane, spot.pane.graph.depth[spot.node]!) + 1) * this.row - this.scroll;
        this.menu(spot, box.left + box.width * Math.min(0.9, Math.max(0, this.centre(spot))), box.top + Math.min(box.height, Math.max(0, y)));
        break;
      }
      default: return;
    }
    e.preventDefault();
    e.stopPropagation();
  }

  /** The middle of what is seen of the frame, as a part of the view. */
  private centre(spot: Spot): number {
    const e = this.extentOf(spot), from = Math.max(e.from, this.at.from), to = Math.min(e.to, this.at.to);
    return to > from ? ((from + to) / 2 - this.at.from) / (this.at.to - this.at.from) : 0.5;
  }

  // ---- mouse and touch

  /** What is below a point of the view. */
  private hit(x: number, y: number): { spot?: Spot; run?: Run } {
    const row = Math.floor((y + this.scroll) / this.row), width = this.view.clientWidth;
    for (const pane of this.panes) {
      const depth = pane.up ? pane.base - row : row - pane.base;
      if (depth < (pane.up ? 1 : 0)) continue;
      let run: Run | undefined, spot: Spot | undefined;
      visible(pane.graph, this.at, width, depth, depth, LEAST, {
        frame(node, left, size) { if (x >= left && x < left + size) spot = { pane, node }; },
        merged(_, left, size, first, last) { if (x >= left - 1 && x < left + Math.max(1, size) + 1) run = { first, last, pane }; },
      });
      if (spot) return { spot }; // rather than a run that is only near
      if (run) return { run };
    }
    return {};
  }

  private point(e: { clientX: number; clientY: number }): [number, number] {
    const box = this.view.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  }

  private hoverAt(e: PointerEvent) {
    const { spot, run } = this.hit(...this.point(e));
    const changed = spot?.node !== this.hover?.node || spot?.pane !== this.hover?.pane;
    this.hover = spot;
    this.tip.hidden = !spot && !run;
    if (spot && changed) this.fillTip();
    if (run) this.fillTip(run);
    this.mouse = { x: e.clientX, y: e.clientY };
    this.placeTip();
    if (changed) {
      this.wonder(spot);
      this.redraw();
    }
  }

  private placeTip() {
    if (this.tip.hidden) return;
    const width = this.tip.offsetWidth, height = this.tip.offsetHeight, { x, y } = this.mouse;
    const left = x + 14 + width > innerWidth ? Math.max(4, x - width - 10) : x + 14;
    const top = y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18;
    this.tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  private wonder(spot: Spot | undefined) {
    const name = spot ? this.codeOf(spot) : "", ask = this.places.has(name) ? "" : name;
    if (ask !== this.hovered) this.options.onHover?.(this.hovered = ask);
  }

  private listen() {
    const on = <K extends keyof HTMLElementEventMap>(target: HTMLElement, type: K, run: (e: HTMLElementEventMap[K]) => void) =>
      target.addEventListener(type, run, { passive: false });
    const view = this.view;
    on(view, "keydown", (e) => this.key(e));
    on(view, "pointerdown", (e) => {
      if (e.button !== 0) return;
      this.pointers.set(e.pointerId, e);
      if (this.pointers.size === 1) this.dragged = false;
      view.setPointerCapture(e.pointerId);
    });
    on(view, "pointermove", (e) => {
      this.movedAt = performance.now();
      const before = this.pointers.get(e.pointerId);
      if (!before) {
        if (e.pointerType !== "touch") this.hoverAt(e);
        return;
      }
      if (!this.dragged && Math.hypot(e.clientX - before.clientX, e.clientY - before.clientY) < 4) return;
      this.dragged = true;
      this.tip.hidden = true;
      this.hover = undefined;
      view.classList.add("dragging");
      const other = [...this.pointers.values()].find((p) => p.pointerId !== e.pointerId);
      this.pointers.set(e.pointerId, e);
      if (!other) {
        this.pan(e.clientX - before.clientX, e.clientY - before.clientY);
        return;
      }
      const apart = (p: PointerEvent) => Math.max(20, Math.abs(p.clientX - other.clientX));
      this.zoomAt(this.point({ clientX: (e.clientX + other.clientX) / 2, clientY: 0 })[0], apart(before) / apart(e));
      this.pan((e.clientX - before.clientX) / 2, (e.clientY - before.clientY) / 2);
    });
    const up = (e: PointerEvent) => {
      const down = this.pointers.delete(e.pointerId);
      view.classList.toggle("dragging", this.pointers.size > 0 && this.dragged);
      if (!down || this.dragged || e.type !== "pointerup") return;
      const { spot, run } = this.hit(...this.point(e));
      if (spot) {
        this.mark(spot);
        this.choose(spot);
      } else if (run && run.first >= 0) { // nearer, until they can be told apart
        const g = run.pane.graph, from = extent(g, run.first).from, to = extent(g, run.last).to;
        this.glide({ from: from - (to - from) * 0.05, to: to + (to - from) * 0.05 }, this.scroll);
      }
    };
    on(view, "pointerup", up);
    on(view, "pointercancel", up);
    on(view, "pointerleave", () => {
      this.movedAt = -Infinity;
      this.hover = undefined;
      this.wonder(undefined);
      this.tip.hidden = true;
      this.redraw();
    });
    on(view, "wheel", (e) => {
      const unit = e.deltaMode === 1 ? this.row : e.deltaMode === 2 ? view.clientHeight : 1, [x] = this.point(e);
      let dx = e.deltaX * unit, dy = e.deltaY * unit;
      if (e.ctrlKey || e.metaKey) { // a pinch on a touchpad comes as this too
        this.zoomAt(x, Math.exp(Math.max(-120, Math.min(120, dy)) * 0.004));
        e.preventDefault();
        return;
      }
      if (e.shiftKey && dx === 0) [dx, dy] = [dy, 0];
      const scrolls = this.limit(this.scroll + dy) !== this.scroll, sideways = Math.abs(dx) > Math.abs(dy) && this.at.to - this.at.from < 1;
      if (!scrolls && !sideways) return; // the page's
      e.preventDefault();
      this.pan(-dx, -dy);
      if (e.target === view || e.target === this.canvas) this.tip.hidden = true;
    });
    on(view, "contextmenu", (e) => {
      e.preventDefault();
      const { spot } = this.hit(...this.point(e));
      if (!spot) return;
      this.pointers.clear();
      this.select(spot);
      this.menu(spot, e.clientX, e.clientY);
    });
    // In the map the window is moved; where there is none, or beside it, a range is chosen.
    const drag = (e: PointerEvent) => {
      const box = this.map.getBoundingClientRect(), at = (e.clientX - box.left) / box.width, { from, to } = this.at;
      if (e.type === "pointerdown") {
        if (e.button !== 0) return;
        this.map.setPointerCapture(e.pointerId);
        this.grip = { at, view: to - from < 0.9999 && at >= from && at <= to ? this.at : undefined };
      } else if (!this.map.hasPointerCapture(e.pointerId)) return;
      const grip = this.grip;
      if (!grip || Math.abs(at - grip.at) * box.width < 3) return;
      this.stop();
      this.at = within(grip.view ? { from: grip.view.from + at - grip.at, to: grip.view.to + at - grip.at } : { from: Math.min(at, grip.at), to: Math.max(at, grip.at) });
      this.rest();
      this.redraw();
    };
    on(this.map, "pointerdown", drag);
    on(this.map, "pointermove", drag);
    on(this.map, "lostpointercapture", () => { this.grip = undefined; });

    const recolor = () => {
      this.painter.setPalette(readPalette(this.root));
      this.drawMap();
      this.redraw();
    };
    const resized = new ResizeObserver(() => {
      this.drawMap();
      this.draw(); // at once, or the old picture is stretched for a frame
    });
    resized.observe(view);
    const themed = new MutationObserver(recolor);
    themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", recolor);
    this.cleanup.push(() => resized.disconnect(), () => themed.disconnect(), () => dark.removeEventListener("change", recolor));
  }

  // ---- pictures

  /** The view from its top to its bottom row, also what is scrolled away. */
  async exportPNG(): Promise<Blob> {
    const scale = 2, width = Math.max(1200, this.view.clientWidth) * scale, row = this.row * scale;
    const rows = Math.min(this.rows, Math.floor(16384 / row)); // canvases end there
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = rows * row;
    new Painter(this.painter.palette).draw(canvas.getContext("2d", { alpha: false })!,
      { panes: this.panes, view: this.at, scroll: 0, hover: undefined, selected: undefined }, width, canvas.height, row, scale);
    return new Promise((resolve, reject) => canvas.toBlob((b) => (b ? resolve(b) : reject(new Error("the browser could not make a PNG of the graph"))), "image/png"));
  }

  exportSVG(): string {
    return toSVG(this.panes, this.rows, this.painter.palette, this.options.unit, this.data?.value(0) || 1, this.at);
  }

  destroy(): void {
    this.stop();
    if (this.drawing !== undefined) cancelAnimationFrame(this.drawing);
    clearTimeout(this.resting);
    clearTimeout(this.waiting?.timer);
    for (const c of this.cleanup) c();
    this.root.remove();
  }
}

function element<K extends keyof HTMLElementTagNameMap>(tag: K, className = ""): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  if (className) e.className = className;
  return e;
}

const same = (a: View, b: View) => Math.abs(a.from - b.from) + Math.abs(a.to - b.to) < (b.to - b.from) * 1e-9;

const place = (spot: Spot | undefined) => spot && { up: spot.pane.up, path: spot.pane.graph.path(spot.node) };

const sourceOf = (p: Place) => printable(`${p.file}${p.startLine ? `:${p.startLine}` : ""}`);

/** A pattern for this name alone. */
const exact = (name: string) => (name ? new RegExp(`^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`) : undefined);
