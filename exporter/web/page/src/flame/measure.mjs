// Checks what only a browser shows (check.ts), and prints what drawing costs (measure.ts): node src/flame/measure.mjs [NODES [FRAMES]], in exporter/web/page. It needs playwright-core, of the directory in
// PLAYWRIGHT, and chromium (CHROMIUM, /usr/bin/chromium).
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const { chromium } = createRequire(`${process.env.PLAYWRIGHT ?? "../../../test/browser"}/`)("playwright-core");
const [nodes = 200_000, frames = 240] = process.argv.slice(2).map(Number);
const { output } = await build({
  configFile: false, logLevel: "error",
  build: { write: false, minify: true, target: "es2022", rollupOptions: { input: ["check.ts", "measure.ts"].map((f) => fileURLToPath(new URL(f, import.meta.url))) } },
});
const files = new Map(output.map((f) => [`/${f.fileName}`, f.code ?? f.source]));
const scripts = output.filter((f) => f.isEntry).map((f) => f.fileName), style = output.find((f) => f.fileName.endsWith(".css")).fileName;
files.set("/", `<!doctype html><link rel="stylesheet" href="/${style}"><div id="host" style="height:900px"></div>${scripts.map((s) => `<script type="module" src="/${s}"></script>`).join("")}`);
const types = { js: "text/javascript", css: "text/css" };
const server = createServer((request, response) => {
  response.writeHead(files.has(request.url) ? 200 : 404, { "content-type": types[request.url.split(".").pop()] ?? "text/html" });
  response.end(files.get(request.url));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--js-flags=--expose-gc", "--enable-precise-memory-info"] });
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 950 } });
  page.on("pageerror", (e) => console.error(e));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction("window.measure && window.check");
  await page.evaluate(() => window.check(document.getElementById("host")));
  const figures = await page.evaluate(([n, f]) => window.measure(document.getElementById("host"), n, f), [nodes, frames]);
  const heap = await page.evaluate(() => {
    window.gc();
    return Math.round(performance.memory.usedJSHeapSize / 1e6);
  });
  console.log(JSON.stringify({ ...figures, heapMB: heap }));
} finally {
  await browser.close();
  server.close();
}
