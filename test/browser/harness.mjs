// What the tests stand on: real agents on real programs, and Debian's Chromium. Everything that is started here is ended by close.
import { spawn, execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const root = new URL("../..", import.meta.url).pathname;
export const scratch = mkdtempSync(join(tmpdir(), "pilotlight-browser-"));
const ending = [() => rmSync(scratch, { recursive: true, force: true })];

export async function close() {
  for (const end of ending.reverse()) await end();
}

/** build makes a program of the tree. */
function build(pkg, name) {
  const to = join(scratch, name);
  execFileSync("go", ["build", "-o", to, pkg], { cwd: root, env: { ...process.env, CGO_ENABLED: "0" }, stdio: ["ignore", "inherit", "inherit"] });
  return to;
}

/** start runs a program until close, and waits for a line that it says. */
export function start(program, args, pattern, options = {}) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], ...options });
  ending.push(() => new Promise((ended) => {
    if (child.exitCode !== null || child.signalCode !== null) return ended();
    child.once("exit", ended);
    child.kill("SIGTERM");
  }));
  return new Promise((ready, failed) => {
    let said = "";
    const hear = (chunk) => {
      said += chunk;
      const match = pattern.exec(said);
      if (match) ready({ child, match });
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.once("error", failed);
    child.once("exit", (code) => failed(new Error(`${program} ended with ${code}: ${said}`)));
  });
}

let built;
const pilotlight = () => (built ??= build("./cmd/pilotlight", "pilotlight"));

/** A program that works in functions whose shares are known, under a name of its own. */
export async function workload(name) {
  const path = join(scratch, name);
  copyFileSync(build("./test/browser/workload", "workload"), path);
  const { child } = await start(path, [], /ready/);
  return child;
}

/** A program of Go that works for spans: each of two goroutines, burnFirst and burnSecond, for a trace of nine spans after the other. */
export async function goSpans() {
  return (await start(build("./test/workloads/gospans", "gospans"), [join(scratch, "spans")], /ready/)).child;
}

/** A part of the made-up shop that pictures are taken of. */
export async function shop(part) {
  const path = join(scratch, `shop-${part}`);
  copyFileSync(build("./test/browser/shop", "shop"), path);
  return (await start(path, [part], /ready/)).child;
}

/** agent samples processes, and nothing else. */
export const agent = (pids, ...flags) => agentOver(mkdtempSync(join(scratch, "data-")), pids, ...flags);

async function agentOver(dir, pids, ...flags) {
  const { child, match } = await start(pilotlight(),
    ["agent", "-p", pids.join(","), "-F", "199", "--data-dir", dir, "--listen", "127.0.0.1:0", "--seccomp", "trap", ...flags], /listening on (\S+)/);
  return { child, dir, url: match[1] };
}

/** shows serves files. */
export async function shows(...files) {
  return (await start(pilotlight(), ["web", ...files], /showing .* on (\S+)/)).match[1];
}

/** ofADay samples processes, and has a day of the history of a busy host, which is compacted as that of an agent that has run for so long. */
export async function ofADay(pid) {
  const dir = mkdtempSync(join(scratch, "day-"));
  execFileSync(build("./test/browser/day", "day"), [dir], { stdio: ["ignore", "inherit", "inherit"] });
  const started = await agentOver(dir, [pid]);
  const compactions = async () => Number(/^pilotlight_history_compactions_total (\S+)/m.exec(await (await fetch(`${started.url}/metrics`)).text())[1]);
  let last = -1;
  await until("the history is compacted", async () => {
    const before = last;
    await new Promise((later) => setTimeout(later, 2000));
    return (last = await compactions()) === before;
  }, 120_000);
  return started;
}

async function launch(...args) {
  const launched = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--js-flags=--expose-gc", "--enable-precise-memory-info", ...args] });
  ending.push(() => launched.close());
  return launched;
}

let running;

/** browser is one Chromium for all tests; --no-sandbox because they run as root. */
export const browser = () => (running ??= launch());

/** unpaced is one that draws a frame when the last one is done, not sixty times a second, so that the time between two is what they take. */
export const unpaced = () => launch("--disable-frame-rate-limit", "--disable-gpu-vsync");

/** asked has what pages asked of the API: METHOD and address. */
export const asked = new Set();

/**
 * visit opens a page that holds all that it did against: what it asked of whom, errors, violations of the content policy, and
 * dialogs, which only an injected script would open. blameless checks that there was nothing.
 */
export async function visit(url, options = {}, of = browser()) {
  const context = await (await of).newContext({ viewport: { width: 1280, height: 800 }, ...options });
  ending.push(() => context.close());
  await context.addInitScript(tellDrawn);
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const wrongs = [];
  const origin = new URL(url).origin;
  page.on("request", (r) => {
    const to = new URL(r.url());
    if (to.pathname.startsWith("/api/")) asked.add(`${r.method()} ${to.pathname}${to.search}`);
    if (to.protocol !== "data:" && to.protocol !== "blob:" && to.origin !== origin) wrongs.push(`asked ${r.url()}`);
  });
  page.on("pageerror", (e) => wrongs.push(`error: ${e.stack ?? e}`));
  page.on("console", (m) => {
    // 429: the agent answers two queries at once, and on a busy machine the page is told to come again. It does.
    if (m.type() === "error" && !/status of 429/.test(m.text())) wrongs.push(`console: ${m.text()} ${m.location().url}`);
  });
  page.on("dialog", (d) => { wrongs.push(`dialog: ${d.message()}`); void d.dismiss(); });
  await page.goto(url, { waitUntil: "domcontentloaded" }); // loaded it is when its first query is answered
  return { page, context, wrongs };
}

/** tellDrawn runs in a page: globalThis.drawn is when its first graph was on the screen, in milliseconds after the navigation began. */
function tellDrawn() {
  const arrival = new MutationObserver(() => {
    if (!Number(document.querySelector("[data-test=flame]")?.dataset.nodes) || !document.querySelector(".about")?.textContent) return;
    arrival.disconnect();
    requestAnimationFrame(() => setTimeout(() => { globalThis.drawn = performance.now(); })); // behind the frame that has it
  });
  arrival.observe(document, { subtree: true, childList: true, characterData: true, attributeFilter: ["data-nodes"] });
}

/** until waits for something to hold: on a busy machine that takes as long as it takes. */
export async function until(what, holds, patience = 20_000) {
  for (const end = Date.now() + patience; ;) {
    const answer = await holds();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${patience / 1000} s: ${what}`);
    await new Promise((later) => setTimeout(later, 100));
  }
}

export async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
