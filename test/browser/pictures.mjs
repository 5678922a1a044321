// The pictures in docs/: node test/browser/pictures.mjs [DIR [SECONDS]], which make pictures runs. They are of real agents over programs that always do the
// same; the tests take them too, of what they have.
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { agent, close, scratch, shop, start, until, visit } from "./harness.mjs";

const iso = (ms) => new Date(ms).toISOString();

/** take takes the five pictures of an agent. times are begun, before and after, end: what is compared is from begun to before, and from after to end. */
export async function take(url, times, dir) {
  mkdirSync(dir, { recursive: true });
  const all = `range=${iso(times.begun)}/${iso(times.end)}`;
  const compared = `${all}&from=${iso(times.after)}&to=${iso(times.end)}&compare=true&before_from=${iso(times.begun)}&before_to=${iso(times.before)}&color=diff`;
  const wide = { viewport: { width: 1440, height: 960 } };
  const pictures = {
    page: ["", wide],
    "page-dark": [`${all}&by=comm&color=module&list=comm`, { ...wide, colorScheme: "dark" }],
    "page-diff": [compared, wide],
    "page-heatmap": [`${all}&heat=true`, wide],
    "page-narrow": ["", { viewport: { width: 390, height: 844 } }],
  };
  for (const [name, [query, options]] of Object.entries(pictures)) {
    const { page, context } = await visit(`${url}/?${query}`, options);
    await page.waitForSelector("body[data-ready=true]");
    await until("all is there", async () => (await page.locator("body").getAttribute("data-busy")) === "false"
      && Number(await page.locator("[data-test=flame]").getAttribute("data-nodes")) > 0);
    await page.mouse.move(700, 5);
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    await page.screenshot({ path: join(dir, `${name}.png`) });
    await context.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [dir = "docs", seconds = 110] = process.argv.slice(2);
  const wait = (s) => new Promise((done) => setTimeout(done, s * 1000));
  try {
    const parts = [];
    for (const part of ["api", "books", "mail"]) parts.push(await shop(part));
    const script = "console.log('ready'); process.stdin.resume().on('end', () => process.exit()); setInterval(() => { const rows = []; for (let i = 0; i < 400; i++) rows.push({ i, text: 'row ' + i }); JSON.parse(JSON.stringify(rows)).sort((a, b) => a.text < b.text ? -1 : 1); }, 8)";
    const { child: node } = await start(process.execPath, ["--perf-basic-prof", "-e", script], /ready/, { cwd: scratch }); // where it writes a log
    node.once("exit", () => rmSync(`/tmp/perf-${node.pid}.map`, { force: true }));
    const { url } = await agent([...parts, node].map((p) => p.pid));
    const begun = Date.now();
    await wait(seconds / 2);
    const change = Date.now();
    parts[0].kill("SIGUSR1");
    await wait(seconds / 2 + 12); // until what is compared is in the history
    const at = (ms) => Math.floor(ms / 1000) * 1000;
    await take(url, { begun: at(begun + 12_000), before: at(change - 1000), after: at(change + 2000), end: at(change + (seconds / 2) * 1000) }, dir);
  } finally {
    await close();
  }
}
