// The flame graph by itself: what only a browser shows of it (check.ts), and what drawing 200,000 nodes costs (measure.ts), which is printed.
import { after, test } from "node:test";
import { createServer } from "node:http";
import { build } from "esbuild";
import { browser, close } from "./harness.mjs";

const NODES = 200_000, FRAMES = Number(process.env.FRAMES ?? 60);

after(close);

/** alone opens a page that holds a part of the graph's sources, and its style, and nothing else. */
async function alone(t, source) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`../../exporter/web/page/src/flame/${source}`, import.meta.url).pathname],
    bundle: true, write: false, outdir: "/", format: "esm", target: "es2022",
  });
  const files = new Map(outputFiles.map((f) => [f.path, f]));
  const server = createServer((request, response) => {
    const file = files.get(request.url);
    response.writeHead(200, { "content-type": file ? `text/${request.url.endsWith("css") ? "css" : "javascript"}` : "text/html" });
    const name = source.replace(/ts$/, "");
    response.end(file?.text ?? `<!doctype html><link rel="stylesheet" href="/${name}css"><div id="host" style="height:900px"></div><script type="module" src="/${name}js"></script>`);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  t.after(() => server.close());
  const page = await (await browser()).newPage({ viewport: { width: 1440, height: 950 } });
  t.after(() => page.close());
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction("globalThis.check ?? globalThis.measure");
  return page;
}

test("the graph in a browser", async (t) => {
  const page = await alone(t, "check.ts");
  await page.evaluate(() => globalThis.check(document.getElementById("host")));
});

test("figures of the graph", async (t) => {
  const page = await alone(t, "measure.ts");
  const { nodes, build: built, pan, zoom, interval } = await page.evaluate(([n, f]) => globalThis.measure(document.getElementById("host"), n, f), [NODES, FRAMES]);
  const heap = await page.evaluate(() => {
    globalThis.gc();
    return performance.memory.usedJSHeapSize;
  });
  const of = ({ p50, p95, most }) => `median ${p50} p95 ${p95} most ${most}`;
  console.log(`figures of the graph: ${nodes} nodes, built in ${built} ms, heap ${Math.round(heap / 1e6)} MB\n` +
    `  ms until a frame is drawn: panning ${of(pan)}, zooming ${of(zoom)}\n  ms between two frames: ${of(interval)}`);
});
