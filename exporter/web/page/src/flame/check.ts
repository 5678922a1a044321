// What only a browser can show of the flame graph. Bundled and run by test/browser; check throws at what is wrong.

import type { FlameNode } from "./model.ts";
import { FlameGraph } from "./view.ts";

const HOSTILE = "<img src=x onerror=\"globalThis.hacked = 1\">";

/** A tree of paths "a;b;c" and the samples in their last function. */
function tree(stacks: Record<string, number>): FlameNode {
  const node = (name: string): FlameNode => ({ name, kind: "native", module: "app", self: { samples: 0, value: 0 }, total: { samples: 0, value: 0 }, children: [] });
  const root = node("");
  for (const [path, samples] of Object.entries(stacks)) {
    let at = root;
    const add = (w: { samples: number; value: number }) => { w.samples += samples; w.value += samples * 1e7; };
    add(root.total);
    for (const name of path.split(";")) {
      let child = at.children!.find((c) => c.name === name);
      if (!child) at.children!.push(child = node(name));
      add(child.total);
      at = child;
    }
    add(at.self);
  }
  return root;
}

export async function check(host: HTMLElement) {
  const commands: string[] = [], zooms: string[] = [];
  const graph = new FlameGraph(host, { unit: "nanoseconds", onCommand: (c, fn) => commands.push(`${c} ${fn}`), onSelect: (path) => zooms.push(path.join(";")) });
  const view = host.querySelector<HTMLElement>("[data-test=flame]")!, canvas = view.querySelector("canvas")!;
  const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  /** Until the picture stands still. */
  const still = async () => {
    for (let before = "", now = canvas.toDataURL(); now !== before; now = canvas.toDataURL()) {
      before = now;
      await wait(250);
    }
  };
  const press = (key: string) => (document.activeElement ?? view).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const item = () => document.getElementById(view.getAttribute("aria-activedescendant")!)!.textContent!;
  const equal = (got: unknown, want: unknown, what: string) => {
    if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`${what}: ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
  };
  /** The name in the tooltip at a part of the width, in a row. */
  const at = (part: number, row: number) => {
    const box = view.getBoundingClientRect();
    view.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + part * box.width, clientY: box.top + (row + 0.5) * 20, pointerType: "mouse", bubbles: true }));
    return host.querySelector(".fg-tip:not([hidden]) strong")?.textContent ?? "";
  };
  const leave = () => view.dispatchEvent(new PointerEvent("pointerleave"));
  view.focus();

  graph.setData(tree({ "main;parse": 50, "main;eval;add": 30, "main;eval;call;eval": 20 }), false);
  await still();
  equal([at(0.2, 1), at(0.2, 2), at(0.7, 2), at(0.9, 3)], ["main", "parse", "eval", "call"], "frames under the mouse");
  // By keyboard: to the heaviest below, beside, in.
  const walk: string[] = [];
  for (const key of ["Home", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowUp"]) {
    press(key);
    walk.push(item().split(",")[0]!);
  }
  equal(walk, ["all", "main", "parse", "eval", "add", "eval"], "the way of the arrow keys");
  if (!item().includes("total 50.0 %")) throw new Error(`what a screen reader hears of eval: ${item()}`);
  leave();

  // An update while the zoom is moving must not leave it half way; the zoomed frame may be gone for an update.
  press("Enter");
  await wait(60);
  graph.setData(tree({ "main;parse": 90, "main;eval;add": 30, "main;eval;call;eval": 20 }), true);
  await still();
  equal([at(0.01, 2), at(0.99, 2), graph.path], ["eval", "eval", ["main", "eval"]], "zoomed while data came");
  leave();
  graph.setData(tree({ "main;parse": 90 }), true);
  await still();
  equal([at(0.01, 2), graph.path], ["parse", ["main", "eval"]], "the zoomed frame is gone");
  leave();
  graph.setData(tree({ "main;parse": 5, "main;eval;add": 30 }), true);
  await still();
  equal([at(0.01, 2), at(0.99, 2)], ["eval", "eval"], "the zoomed frame is there again");
  press("Escape");
  await still();
  equal([zooms, graph.path], [["main;eval", ""], []], "zooms told");
  equal([at(0.05, 2), at(0.9, 2)], ["parse", "eval"], "order kept, though eval is heavier now");

  // While the mouse moves there is no update.
  graph.setData(tree({ "main;other": 5 }), true);
  equal(at(0.9, 2), "eval", "an update while the mouse moves");
  leave();
  await wait(1000);
  await still();
  equal(at(0.9, 2), "other", "the update after that");
  leave();

  // Narrow frames are drawn, and a match among them is marked.
  const stacks: Record<string, number> = { "main;wide": 100_000 };
  for (let i = 0; i < 40; i++) stacks[`main;narrow${i}`] = 20;
  graph.setData(tree(stacks), false);
  await still();
  const box = view.getBoundingClientRect(), name = at(1 - 3 / box.width, 2);
  if (!/narrow frames$/.test(name)) throw new Error(`below the mouse are narrow frames: ${name}`);
  const colors = () => {
    const scale = canvas.width / box.width, context = canvas.getContext("2d")!;
    const pixels = context.getImageData(Math.floor((box.width - 6) * scale), 42 * scale, 5 * scale, 16 * scale).data;
    return new Set(Array.from({ length: pixels.length / 4 }, (_, i) => [...pixels.slice(4 * i, 4 * i + 3)].join(" ")));
  };
  leave();
  await still();
  const plain = colors();
  if (plain.size < 2) throw new Error("narrow frames have no pattern");
  equal(graph.search("/narrow17$/").matches, 1, "matches");
  await still();
  if ([...colors()].every((c) => plain.has(c))) throw new Error("a match among narrow frames is not marked");
  equal(graph.search("").matches, 0, "matches of nothing");

  // Callers and callees in place, the menu, and names that are markup.
  graph.setData(tree({ [`main;${HOSTILE};leaf`]: 60, [`other;${HOSTILE}`]: 40 }), false);
  await still();
  at(0.2, 2);
  leave();
  view.focus();
  for (const key of ["Home", "ArrowDown", "ArrowDown", "s"]) press(key);
  await still();
  press("ArrowUp");
  const caller = item().split(",")[0];
  press("ArrowDown");
  press("ArrowDown");
  equal([caller, item().split(",")[0]], ["main", "leaf"], "above and below in the sandwich");
  press("Escape");
  await still();
  press("Home");
  press("ArrowDown");
  press("m");
  const menu = host.querySelector("[role=menu]")!;
  equal([menu.contains(document.activeElement), menu.getAttribute("aria-label")], [true, "main"], "the menu has the focus");
  press("Escape");
  equal([host.querySelector("[role=menu]"), document.activeElement === view], [null, true], "the menu is gone");
  press("f");
  equal(commands, [`sandwich ${HOSTILE}`, "sandwich ", "focus main"], "commands");
  const svg = graph.exportSVG(), image = new Image();
  image.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  await image.decode(); // throws if it is no XML
  equal([/<(img|script|image)/.test(svg), svg.includes("<title>&#60;img src=x onerror=&#34;globalThis.hacked = 1&#34;&#62;\n")], [false, true], "SVG");
  if ((await graph.exportPNG()).size < 1000) throw new Error("PNG is empty");
  equal([host.querySelector("img"), "hacked" in globalThis], [null, false], "markup of names");
  graph.destroy();
  equal(host.childElementCount, 0, "what is left after destroy");
}

Object.assign(globalThis, { check });
