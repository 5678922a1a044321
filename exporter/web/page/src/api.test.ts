import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { h, render } from "preact";

Object.assign(globalThis, { location: { search: "" }, addEventListener: () => {} });
const { alone, ask, ranks, useQuery } = await import("./api.ts");
type Answer<T> = import("./api.ts").Answer<T>;

test("a poll leaves nothing with its signal", async () => {
  const { signal } = new AbortController();
  globalThis.fetch = async () => new Response("{}");
  await Promise.all([1, 2, 3, 4].map(() => ask("/", 0, signal)));
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("a graph is asked for first and alone, long queries one after another, and short ones beside them", async () => {
  const { signal } = new AbortController();
  const open = new Map<string, () => void>();
  const begun: string[] = [];
  globalThis.fetch = (async (url: string) => {
    begun.push(url);
    await new Promise<void>((answered) => open.set(url, answered));
    return new Response("{}");
  }) as typeof fetch;
  const settle = () => new Promise((later) => setTimeout(later));
  const all = ([["/graph", ranks.graph], ["/table", ranks.table], ["/detail", ranks.detail], ["/list", ranks.list], ["/strip", ranks.strip]] as const)
    .map(([url, rank]) => ask(url, rank, signal));
  await settle();
  assert.deepEqual(begun, ["/graph"]);
  await new Promise((later) => setTimeout(later, alone + 10)); // it takes long
  assert.deepEqual(begun, ["/graph", "/strip"]);
  for (const [url, next] of [["/strip", "/list"], ["/graph", "/table"], ["/list", undefined], ["/table", "/detail"]] as const) {
    open.get(url)!();
    await settle();
    assert.equal(begun.at(-1), next ?? begun.at(-1));
    assert.equal(begun.length, open.size);
  }
  assert.deepEqual(begun, ["/graph", "/strip", "/list", "/table", "/detail"]);
  open.get("/detail")!();
  await Promise.all(all);

  const soon = [ask("/graph again", ranks.graph, signal), ask("/list again", ranks.list, signal)];
  await settle();
  assert.equal(begun.at(-1), "/graph again");
  const frames: (() => void)[] = [];
  Object.assign(globalThis, { document: { hidden: false }, requestAnimationFrame: (f: () => void) => frames.push(f) });
  open.get("/graph again")!();
  await settle();
  assert.equal(begun.at(-1), "/graph again", "it is not drawn");
  frames.shift()!();
  await settle();
  assert.equal(begun.at(-1), "/list again");
  Object.assign(globalThis, { document: undefined, requestAnimationFrame: undefined });
  open.get("/list again")!();
  await Promise.all(soon);
});

test("a query is asked again when it is due, and where asking again can help", async (t) => {
  const waits: number[] = []; // milliseconds; what waits that long is called at once
  const asked: Record<string, number> = {};
  let answer: () => Response;
  Object.assign(globalThis, {
    document: { body: { dataset: {} }, hidden: false },
    window: { setTimeout: (f: () => void, ms: number) => { waits.push(ms); return setTimeout(f, ms > 3e6 ? ms : 0); } },
    fetch: async (url: string) => { asked[url] = (asked[url] ?? 0) + 1; return answer(); },
  });
  const root = { childNodes: [] } as unknown as Element;
  t.after(() => render(null, root));
  let shown!: Answer<unknown>;
  const Probe = ({ url, every }: { url: string; every: number }) => { shown = useQuery(url, 0, every); return null; };
  const show = (url: string, every: number) => render(h(Probe, { url, every }), root);
  const until = async (what: () => boolean) => { while (!what()) await new Promise((resolve) => setTimeout(resolve, 5)); };
  const settled = () => new Promise((resolve) => setTimeout(resolve, 300)); // effects run within 100 ms

  answer = () => new Response("{}");
  show("/a", 3600e3);
  await until(() => waits.length === 1);
  show("/a", 0); // paused
  await settled();
  assert.equal(asked["/a"], 1);
  show("/a", 1); // the answer is older than that
  await until(() => asked["/a"]! > 2);

  for (const [status, again] of [[0, true], [400, false], [503, true]] as const) {
    answer = () => { if (status === 0) throw new TypeError("refused"); return new Response("no", { status }); };
    const url = `/${status}`;
    show(url, 0);
    await until(() => asked[url]! > 0);
    waits.length = 0;
    if (again) await until(() => asked[url]! > 1);
    else await settled();
    assert.deepEqual([asked[url]! > 1, waits.every((ms) => ms > 9000)], [again, true], url);
  }
  // Beside an error stays an answer to the same question, not one to another.
  answer = () => new Response('"some"');
  show("/of?x=1&limit=10", 0);
  await until(() => shown.data === "some");
  answer = () => new Response("no", { status: 404 });
  for (const [url, data] of [["/of?x=1&limit=20", "some"], ["/of?x=2&limit=20", undefined]] as const) {
    show(url, 0);
    await until(() => asked[url] === 1 && shown.error?.status === 404);
    assert.equal(shown.data, data, url);
  }
  // Those of 503, which is tried for a fixed range too, are ever longer.
  render(null, root);
  await settled();
  waits.length = 0;
  answer = () => new Response("took too long", { status: 503 });
  show("/long", 0);
  await until(() => waits.length >= 8);
  assert.deepEqual(waits.slice(0, 8).map((ms) => Math.round(ms / 1000)), [10, 20, 40, 80, 160, 300, 300, 300]);
});
