// What drawing costs, in a browser: bundled and opened by test/browser, which prints it.

import { FlameGraph } from "./view.ts";
import type { FlameNode } from "./model.ts";

/** A tree of that many nodes, always the same. */
export function synthetic(nodes: number): FlameNode {
  let seed = 1;
  const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const kinds = ["kernel", "native", "native", "go", "jit"];
  const make = (samples: number): FlameNode => {
    const f = Math.floor(random() * 8000);
    return {
      name: `service::module_${f % 89}::Handler<${f}>::process_request_${f}`, module: `lib${f % 23}.so`, kind: kinds[f % 5]!,
      self: { samples: 0, value: 0 }, total: { samples, value: samples * 10_000_000 }, children: [],
    };
  };
  const root = make(1000 * nodes);
  root.name = "";
  // Most functions call one that does nearly all; some share the work out. Row by row, so that all rows are full.
  const open = [root];
  for (let next = 0, made = 0; made < nodes && next < open.length; next++) {
    const node = open[next]!;
    let left = node.total.samples;
    for (let children = random() < 0.75 ? 1 : 2 + Math.floor(random() * 5); children > 0 && left > 1 && made < nodes; children--, made++) {
      const child = make(Math.ceil(left * (children === 1 ? 0.97 : (0.5 + random()) / (children + 0.5))));
      left -= child.total.samples;
      node.children!.push(child);
      open.push(child);
    }
    node.self = { samples: left, value: left * 10_000_000 };
  }
  for (const node of open) if (node.children!.length === 0) node.self = node.total;
  return root;
}

export interface Figures {
  nodes: number;
  /** Milliseconds: of building and first drawing; of a frame while panning and while zooming, until its pixels are there; between two frames. */
  build: number; pan: Percentiles; zoom: Percentiles; interval: Percentiles;
}
interface Percentiles { p50: number; p95: number; most: number }

const percentiles = (all: number[]): Percentiles => {
  const sorted = [...all].sort((a, b) => a - b), at = (p: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))]! * 100) / 100;
  return { p50: at(0.5), p95: at(0.95), most: at(1) };
};

/** Drags and wheels over the graph for so many frames, as a hand does. */
export async function measure(host: HTMLElement, nodes: number, frames: number): Promise<Figures> {
  const root = synthetic(nodes);
  const start = performance.now();
  const graph = new FlameGraph(host, { unit: "nanoseconds" });
  graph.setData(root, false);
  const view = host.querySelector<HTMLElement>("[data-test=flame]")!, canvas = view.querySelector("canvas")!, context = canvas.getContext("2d")!;
  const frame = () => new Promise<number>((resolve) => requestAnimationFrame(resolve));
  await frame();
  const drawn = () => context.getImageData(canvas.width >> 1, 2, 1, 1); // waits until all is drawn
  if (drawn().data.every((v) => v === 0 || v === 255)) throw new Error("the outermost frame has no colour");
  const build = performance.now() - start;
  const box = view.getBoundingClientRect();
  const wheel = (x: number, more: WheelEventInit) => view.dispatchEvent(new WheelEvent("wheel", { clientX: box.left + x, clientY: box.top + 200, cancelable: true, bubbles: true, ...more }));
  // requestAnimationFrame callbacks run in order: one that is asked for before the graph's marks the begin.
  const timed = async (each: (i: number) => void) => {
    const times: number[] = [];
    for (let i = 0; i < frames; i++) {
      let begun = 0;
      requestAnimationFrame(() => { begun = performance.now(); });
      each(i);
      await frame();
      drawn();
      times.push(performance.now() - begun);
    }
    return percentiles(times);
  };
  for (let i = 0; i < 8; i++) wheel(300, { deltaY: -100, ctrlKey: true });
  const to = (i: number) => ({ deltaX: i % 240 < 120 ? 14 : -14, deltaY: i % 80 < 40 ? 9 : -9 });
  const pan = await timed((i) => wheel(300, to(i)));
  const zoom = await timed((i) => wheel(500, { deltaY: i % 60 < 30 ? -25 : 25, ctrlKey: true }));
  const times: number[] = [];
  let before = await frame();
  for (let i = 0; i < frames; i++) {
    wheel(300, to(i));
    const now = await frame();
    times.push(now - before);
    before = now;
  }
  return { nodes: Number(view.dataset["nodes"]), build: Math.round(build), pan, zoom, interval: percentiles(times) };
}

Object.assign(globalThis, { measure });
