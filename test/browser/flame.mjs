// The flame graph by itself, in a browser. As a program it prints what drawing 200,000 nodes costs (measure.ts), for make bench-page.
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { browser, close } from "./harness.mjs";

/** alone opens a page that holds one of the graph's sources with its style, and nothing else. */
export async function alone(source) {
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
  const page = await (await browser()).newPage({ viewport: { width: 1440, height: 950 } });
  page.once("close", () => server.close());
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction("globalThis.check ?? globalThis.measure");
  return page;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const page = await alone("measure.ts");
    const { nodes, build: built, pan, zoom, interval } = await page.evaluate(() => globalThis.measure(document.getElementById("host"), 200_000, 240));
    const heap = await page.evaluate(() => {
      globalThis.gc();
      return performance.memory.usedJSHeapSize;
    });
    const of = ({ p50, p95, most }) => `median ${p50} p95 ${p95} most ${most}`;
    console.log(`${nodes} nodes, built in ${built} ms, heap ${Math.round(heap / 1e6)} MB\n` +
      `ms until a frame is drawn: panning ${of(pan)}, zooming ${of(zoom)}\nms between two frames: ${of(interval)}`);
  } finally {
    await close();
  }
}
