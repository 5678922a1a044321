// The page as people use it, over real agents on real programs. Nothing here depends on how fast the machine is: what is measured is printed.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import Ajv from "ajv";
import { parse } from "yaml";
import { alone } from "./flame.mjs";
import { take } from "./pictures.mjs";
import { agent, asked as askedOfTheAPI, close, goSpans, json, ofADay, scratch, shows, unpaced, until, visit, workload } from "./harness.mjs";

const require = createRequire(import.meta.url);
const hostile = "<img src=x onerror=alert(1)>";
const at = (name) => `[data-test=${name}]`;
const ready = "body[data-ready=true]";

let work, evil, host, changed;

before(async () => {
  [work, evil] = [await workload("shop"), await workload(hostile)];
  const begun = Date.now();
  host = await agent([work.pid, evil.pid]);
  // The history takes whole intervals of 10 s. Those that begin before the change minus 10 s have nothing of what comes after it.
  changed = (async () => {
    await intervals(2);
    const change = Date.now();
    work.kill("SIGUSR1");
    // When one that begins later than 15 s after it is on disk, so are all that begin before: a link shows the same for good.
    await until("the history goes on", () => began().some((ms) => ms > change + 15_000), 120_000);
    return { begun: begun - 1000, before: change - 10_000, after: change + 500, end: change + 15_000 };
  })();
  changed.catch(() => {}); // who waits for it is told
});

after(close);

/** began says when the intervals of the history began, by the names of their files: 20261124T170510Z.parquet. */
const began = () => readdirSync(host.dir, { recursive: true }).flatMap((f) => {
  const [, day, ...time] = /samples.*\/(\d{8})T(\d\d)(\d\d)(\d\d)Z[^/]*\.parquet$/.exec(f) ?? [];
  return day ? [Date.UTC(day.slice(0, 4), day.slice(4, 6) - 1, day.slice(6), ...time)] : [];
});

const intervals = (n) => until(`${n} intervals in the history`, () => began().length >= n, 120_000);

/** open visits a page, waits until it shows something, and holds the test to it that nothing went wrong there. */
async function open(t, url, options, browser) {
  const visited = await visit(url, options, browser);
  t.after(async () => {
    await visited.context.close();
    assert.deepEqual(visited.wrongs, [], "what went wrong on the page");
  });
  await visited.page.waitForSelector(ready);
  return visited.page;
}

/**
 * download clicks on a download, and gives the path of the file when all of it is there. Chromium has been seen to call a file complete that has
 * nothing of what the agent answers: where the agent answers ten times alike, it is asked to fetch it once more, and that is said.
 */
async function download(page, name) {
  for (const again of [false, true]) {
    const [file] = await Promise.all([page.waitForEvent("download"), page.locator(at(`download-${name}`)).click()]);
    assert.equal(await file.failure(), null, name);
    const path = join(scratch, `${name}-${file.suggestedFilename()}`);
    await file.saveAs(path);
    if (statSync(path).size > 0) return path;
    const lengths = [];
    while (lengths.length < 10) lengths.push((await (await fetch(file.url())).arrayBuffer()).byteLength);
    const said = `${name} is empty; ${file.url()} answers with ${lengths} bytes`;
    assert.ok(!again && lengths.every((n) => n > 0 && n === lengths[0]), said);
    console.log(`figures: ${said}`);
  }
}

const iso = (ms) => new Date(ms).toISOString();

/** shell runs a command that the page shows, and gives what it says. */
const shell = (command) => execFileSync("sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, PPROF_TMPDIR: scratch, PATH: `${scratch}:${process.env.PATH}` } });

/** record samples the shop for a second with pilotlight record, to a file. */
function record(format) {
  const file = join(scratch, `recorded.${format}`);
  shell(`pilotlight record -p ${work.pid} -d 1s -F 199 --format ${format} -o ${file}`);
  return file;
}

test("the page says what is hot, and search finds it", async (t) => {
  const page = await open(t, host.url);
  await until("the hottest functions in the document", async () => (await page.textContent("body")).includes("main.steady"));
  await page.locator(at("search")).fill("/^main\\.steady$/");
  const said = await until("a match", async () => {
    const text = await page.locator(at("search-result")).textContent();
    return /^[1-9]/.test(text) && text;
  });
  const share = Number(/([\d.]+) ?%/.exec(said)[1]);
  assert.ok(share > 10 && share < 90, `half of the time is found: ${said}`);
  // Its details say where it stands, as the API has it.
  await page.keyboard.press("Enter");
  const details = page.locator(at("flame-details"));
  await until("file and line", async () => /main\.go:\d+/.test(await details.textContent()));
  const { places } = await json(`${host.url}/api/v1/callers?live=true&function=main.steady`); // of both programs
  const said_ = await details.textContent();
  assert.ok(places.some((p) => [`${p.file}:${p.startLine}`, p.buildId, p.path.split("/").pop()].every((part) => said_.includes(part))), `${said_}: ${JSON.stringify(places)}`);
  // So does the tooltip, of what is under the mouse, with what chance makes of its samples.
  const graph = await page.locator(at("flame")).boundingBox();
  const tip = page.locator(".fg-tip");
  const hover = async () => {
    for (let row = 1; row < 8 && (await tip.isHidden() || !/^main\.(main|steady)/.test(await tip.textContent())); row++) await page.mouse.move(graph.x + 60, graph.y + row * 20 + 10);
  };
  await hover();
  await until("file, line and build id", async () => /self .*total .*\d ± \d+ samples.*main\.go:\d+.*, go.*build id/.test(await tip.textContent()));
  // Of another question it is asked anew.
  await page.route(/\/api\/v1\/callers/, async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    for (const p of answer.places) p.file = "elsewhere.go";
    await route.fulfill({ response, json: answer });
  });
  await page.mouse.move(5, 5);
  await page.locator(`${at("filters")} button.chip[data-value=shop]`).click();
  await until("it is a condition", () => page.url().includes("filter="));
  await until("where the function stands now", async () => {
    await hover();
    return /elsewhere\.go/.test(await tip.textContent());
  });
  await page.unroute(/\/api\/v1\/callers/);

  // The badge opens to what is missing, and what to do about it.
  const { reasons } = await json(`${host.url}/api/v1/reasons`);
  const missing = reasons.find((r) => r.loses === "stack");
  await page.route(/\/api\/v1\/tree/, async (route) => {
    const response = await route.fetch(), answer = await response.json();
    answer.trust.reasons = { [missing.reason]: 7 };
    await route.fulfill({ response, json: answer });
  });
  await page.locator(at("trust")).click();
  await until("the remedy", async () => {
    const text = await page.locator(at("trust-panel")).textContent();
    return text.includes(`${missing.title} 7 samples`) && text.includes(missing.remedy);
  });
  await page.keyboard.press("Escape");
  await page.unroute(/\/api\/v1\/tree/);
});

test("a list keeps its order under the mouse", async (t) => {
  const page = await open(t, host.url);
  const names = (selector, attribute) => page.locator(selector).evaluateAll((rows, a) => rows.map((r) => r.getAttribute(a)), attribute);
  const [list, table] = [`${at("processes")} [data-pid]`, `${at("top-table")} tr[data-function]`];
  await until("both processes", async () => (await names(list, "data-pid")).length === 2);
  const before = [await names(list, "data-pid"), await names(table, "data-function")];
  let turned = 0; // answers in which those have most that had least
  await page.route(/\/api\/v1\/(processes|top)/, async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    for (const p of answer.processes ?? []) p.weight.value = 1e9 * (1 + before[0].indexOf(String(p.pid)));
    for (const r of answer.rows ?? []) r.self.value = 1e9 * (1 + before[1].indexOf(r.name));
    await route.fulfill({ response, json: answer });
    turned++;
  });
  await page.locator(list).first().hover();
  await until("new answers", () => turned >= 2);
  assert.deepEqual(await names(list, "data-pid"), before[0], "under the mouse");
  await page.mouse.move(5, 5);
  await until("they are shown when it leaves", async () => (await names(list, "data-pid"))[0] === before[0][1]);
  assert.notEqual((await names(table, "data-function"))[0], before[1][0], "the table was not under the mouse");
});

test("the tree waits while the mouse is on it", async (t) => {
  const page = await open(t, `${host.url}/?view=tree`);
  const names = () => page.locator(`${at("tree-table")} tr[data-function]`).evaluateAll((rows) => rows.map((r) => r.dataset.function));
  await until("some rows", async () => (await names()).length > 2);
  let newer = 0; // answers that begin with a node that was not there
  await page.route(/\/api\/v1\/tree/, async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    const heaviest = structuredClone(answer.root.children[0]);
    answer.root.children.unshift({ ...heaviest, name: "came.later" });
    await route.fulfill({ response, json: answer });
    newer++;
  });
  // What is above the table may still move it away from below the mouse.
  const before = await until("it is held", async () => {
    await page.locator(`${at("tree-table")} tr[data-function]`).first().hover();
    const [then, names_] = [newer, await names()];
    await until("a newer one", () => newer > then);
    return await page.getByText("A newer tree is shown").isVisible() && names_;
  }, 60_000);
  assert.deepEqual(await names(), before, "under the mouse");
  await page.locator(`${at("tree-table")} tr[aria-expanded=true] .twist`).first().click();
  await until("what the reader closes is closed", async () => (await names()).length < before.length);
  await page.mouse.move(5, 5);
  await until("the newer one is shown when it leaves", async () => (await names())[0] === "came.later");
  // Another question is answered at once.
  await page.unroute(/\/api\/v1\/tree/);
  await page.locator(`${at("tree-table")} tr[data-function]`).first().hover();
  await page.locator(at("group-by")).selectOption("comm");
  await until("the tree by program", async () => ["shop", hostile.slice(0, 15)].includes((await names())[0]));
});

test("the graph waits while its map is dragged", async (t) => {
  const page = await open(t, host.url);
  const nodes = async () => Number(await page.locator(at("flame")).getAttribute("data-nodes"));
  await until("a graph", async () => await nodes() > 0);
  let newer = 0; // answers with many nodes more
  await page.route(/\/api\/v1\/tree/, async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    const last = { ...answer.root.children.at(-1), children: [] };
    for (let i = 0; i < 10_000; i++) answer.root.children.push({ ...last, name: `came.later${i}` });
    await route.fulfill({ response, json: answer });
    newer++;
  });
  const map = await page.locator(".fg-map").boundingBox();
  await page.mouse.move(map.x + 0.2 * map.width, map.y + 10);
  await page.mouse.down();
  await page.mouse.move(map.x + 0.5 * map.width, map.y + 10, { steps: 4 });
  await until("a newer one", () => newer > 0);
  await page.waitForTimeout(1000); // it would be shown by now
  assert.ok(await nodes() < 10_000, "while it is dragged");
  await page.mouse.up();
  await until("it is shown when the map is let go", async () => await nodes() > 10_000);
});

test("slow answers show how long they take, and wrong ones a way out", async (t) => {
  const page = await open(t, host.url);
  let go;
  const held = new Promise((resolve) => { go = resolve; });
  await page.route(/\/api\/v1\/tree/, async (route) => {
    await held;
    await route.fulfill({ json: { root: 1 } });
  });
  await page.locator(at("range-1h")).click();
  await page.locator(".slow progress").waitFor();
  assert.match(await page.locator(".slow").first().textContent(), /Reading the history/);
  go();
  await page.locator(at("broken")).waitFor();
  await page.unroute(/\/api\/v1\/tree/);
  await page.getByRole("link", { name: "Start from now" }).click();
  await page.locator(at("flame")).waitFor();
});

test("a small screen has the graph first, and what works on it folded away", async (t) => {
  const page = await open(t, host.url, { viewport: { width: 390, height: 844 } });
  await page.locator(at("flame")).waitFor();
  const top = async (name) => (await page.locator(at(name)).boundingBox()).y;
  assert.ok(await top("flame") < await top("strip"), "the graph is above the strip");
  const legend = await page.locator(".fg-legend").boundingBox();
  assert.ok(legend.y + legend.height < 844, `the legend is in sight: ${JSON.stringify(legend)}`);
  assert.ok(await top("flame") < 500, "so is the graph");
  assert.equal(await page.locator(at("group-by")).isVisible(), false);
  await page.locator(`${at("fold-filters")} summary`).click();
  await page.locator(at("group-by")).selectOption("comm");
  await until("it is grouped", () => page.url().includes("by=comm"));
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than the screen");
  for (const said of [/whole/, /named/, /lost/]) assert.ok(await page.locator(`${at("trust")} span span`).getByText(said).isVisible(), `${said}`);
  // Names are in sight in all tables, beside one number.
  for (const [view, table] of [["top", "top-table"], ["tree", "tree-table"], ["tree&compare=true", "tree-table"], ["top&compare=true", "diff-table"]]) {
    await page.goto(`${host.url}/?view=${view}`);
    const name = page.locator(`${at(table)} tbody td.name code`).first();
    await name.waitFor();
    const box = await name.boundingBox();
    assert.ok(box.x + Math.min(box.width, 100) < 390, `${view}: ${JSON.stringify(box)}`);
  }
});

test("all by keyboard", async (t) => {
  const page = await open(t, host.url);
  const press = (...keys) => keys.reduce((done, key) => done.then(() => page.keyboard.press(key)), Promise.resolve());
  const focused = (selector) => page.evaluate((s) => document.activeElement?.matches(s), selector);
  await press("?");
  await page.waitForSelector("dialog[open]");
  await press("Escape");
  await page.waitForSelector("dialog[open]", { state: "detached" });
  await press("2");
  await page.waitForSelector(`${at("top-table")} tr[data-function]`);
  await press("/");
  await until("the search has the focus", () => focused(at("search")));
  await page.keyboard.type("steady");
  await page.waitForSelector(at("search-result"));
  for (let i = 0; i < 100 && !await focused(at("flame")); i++) await press("Tab");
  assert.ok(await focused(at("flame")), "Tab leads to the graph");
  await press("ArrowDown", "ArrowDown", "Enter");
  await until("a frame has the focus", () => page.locator(at("flame")).getAttribute("data-path"));
  await until("the address has the zoom", () => page.url().includes("zoom="));
  await press("Escape");
  await until("it is undone", () => !page.url().includes("zoom="));
});

test("nothing is cut, lies over another, or is said twice", async (t) => {
  const page = await open(t, host.url);
  await page.locator(`${at("processes")} [data-pid]`).first().waitFor();
  const cut = await page.locator(`${at("processes")} .name small`).evaluateAll((all) => all.filter((e) => e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + 0.5).length);
  assert.equal(cut, 0, "process ids are whole");
  await page.keyboard.press("?");
  await page.waitForSelector("dialog[open]");
  const over = await page.locator(".keys dt").evaluateAll((all) => all.filter((dt) => [...dt.children].some((key) => key.getBoundingClientRect().right > dt.nextElementSibling.getBoundingClientRect().left)).map((dt) => dt.textContent));
  assert.deepEqual(over, [], "keys that lie over what they do");
});

test("a name from a process is text", async (t) => {
  const page = await open(t, host.url);
  const entry = page.locator(`${at("processes")} [data-pid="${evil.pid}"]`);
  assert.match(await entry.textContent(), /<img src=x on/);
  await entry.locator("button").click(); // a chip with its number
  await page.waitForSelector(`${at("filters")} [data-label=pid][data-value="${evil.pid}"]`);
  await until("only that process is shown", async () => (await page.locator("body").getAttribute("data-busy")) !== "true");

  const file = join(scratch, "hostile.folded");
  writeFileSync(file, `main;${hostile} 30\nmain;"><script>alert(2)</script> 20\nmain;other 1\n`);
  const files = await open(t, await shows(file));
  for (const view of ["top", "tree", "flame"]) {
    await files.locator(at(`view-${view}`)).click();
    await until(`${view} shows the name`, async () => (await files.textContent("body")).includes(hostile) || view === "flame");
  }
  // Characters that turn the text around them are replaced wherever a name stands.
  const turned = join(scratch, "turned.folded");
  writeFileSync(turned, "main;evil\u202egnp.exe;leaf 30\n");
  const page2 = await open(t, await shows(turned));
  for (const view of ["top", "tree", "callers"]) {
    await page2.locator(at(`view-${view}`)).click();
    if (view === "callers") {
      await page2.getByPlaceholder("The whole name of a function").fill("leaf");
      await page2.keyboard.press("Enter");
    }
    await until(`${view} shows the name`, async () => (await page2.textContent("main")).includes("evil\ufffdgnp.exe"));
    const titles = await page2.locator("[title]").evaluateAll((all) => all.map((e) => e.title).join());
    assert.ok(!(await page2.textContent("body") + titles).includes("\u202e"), view);
  }
  assert.equal(await files.locator("img[src=x]").count() + await page.locator("img[src=x]").count(), 0);
});

test("downloads are read by other tools", async (t) => {
  const page = await open(t, `${host.url}/?filter=${encodeURIComponent(`pid="${work.pid}"`)}`);
  await page.locator(at("leave")).click();
  assert.match(execFileSync("go", ["tool", "pprof", "-top", await download(page, "pprof")], { encoding: "utf8", env: { ...process.env, PPROF_TMPDIR: scratch } }), /main\.steady/);
  assert.match(readFileSync(await download(page, "folded"), "utf8"), /main\.main;main\.steady.* \d+\n/);
  // HTML files, of the page and of record, open from the disk, ask nobody, and show the graph.
  for (const file of [await download(page, "html"), record("html")]) {
    const html = await open(t, `file://${file}`);
    assert.ok(Number(await html.locator(at("flame")).getAttribute("data-nodes")) > 3);
    await html.locator("#search").fill("steady");
    assert.match(await html.locator("#found").textContent(), /^[1-9]/);
  }
});

test("speedscope opens what its schema allows", async (t) => {
  const address = "/api/v1/profile?live=true&format=speedscope";
  const file = await json(host.url + address);
  const allowed = new Ajv({ strict: false }).compile(JSON.parse(readFileSync(require.resolve("speedscope/dist/release/file-format-schema.json"), "utf8")));
  assert.ok(allowed(file), JSON.stringify(allowed.errors));
  const recorded = JSON.parse(readFileSync(record("speedscope"), "utf8"));
  assert.ok(allowed(recorded), JSON.stringify(allowed.errors));
  assert.ok(recorded.shared.frames.some((f) => f.name === "main.steady"));
  const { page, wrongs, context } = await visit(`${host.url}/speedscope/#profileURL=${encodeURIComponent(address)}`);
  t.after(() => context.close());
  await until("it has read the profile", async () => /^cpu .* - speedscope$/.test(await page.title()));
  assert.deepEqual(wrongs, []);
});

test("no serious barrier", async (t) => {
  const source = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  const times = await changed;
  const compared = `&from=${iso(times.after)}&to=${iso(times.end)}&before_from=${iso(times.begun)}&before_to=${iso(times.before)}`;
  const address = (view) => `${host.url}/?view=${view}`;
  const file = join(scratch, "barriers.html"), small = { width: 390, height: 844 };
  writeFileSync(file, await (await fetch(`${host.url}/api/v1/profile?live=true&format=html`)).text());
  const folded = join(scratch, "barriers.folded");
  writeFileSync(folded, "main;parse;a_function_with_a_name_that_is_longer_than_any_small_screen_is_wide 60\nmain;other 30\n");
  const files = await shows(folded);
  for (const [colorScheme, url, viewport] of [
    ["light", address("flame")], ["dark", address("top")], ["dark", address("flame&heat=true")], ["light", address("tree")], ["dark", address("callers&function=main.main")],
    ["light", address(`top${compared}`)], ["dark", address(`flame${compared}`)],
    ["dark", address("flame"), small], ["light", address(`top${compared}`), small], ["dark", files], ["light", `${files}/?view=top`, small],
    ["dark", `file://${file}`, small], ["light", `file://${file}`],
  ]) {
    const page = await open(t, url, { colorScheme, ...(viewport && { viewport }) });
    await page.evaluate(source); // not a script element, which the policy would keep out
    for (const dialog of new Set([false, url === address("flame") || url === address("top")])) { // the help, of each colour
      if (dialog) await page.keyboard.press("?");
      const found = await page.evaluate(async () => (await globalThis.axe.run()).violations
        .filter((v) => v.impact === "serious" || v.impact === "critical")
        .map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.failureSummary}`).join("; ")}`));
      assert.deepEqual(found, [], `${colorScheme}, ${url}, ${viewport?.width}`);
    }
  }
});

test("the token is asked for once", async (t) => {
  const token = "0123456789abcdef0123456789abcdef", file = join(scratch, "token");
  writeFileSync(file, token, { mode: 0o600 });
  const guarded = await agent([work.pid], "--no-history", "--token-file", file);
  const { page, context, wrongs } = await visit(guarded.url);
  t.after(() => context.close());
  await page.getByLabel("Token").fill("fedcba9876543210fedcba");
  await page.keyboard.press("Enter");
  await page.getByText("That is not the token").waitFor();
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button").click();
  await page.waitForSelector(ready);
  assert.ok(wrongs.every((w) => w.includes("401")), wrongs.join("\n")); // those of the page that asked
  const [cookie] = await context.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && !cookie.value.includes(token) && !page.url().includes(token));
  const again = await context.newPage();
  await again.goto(guarded.url);
  await again.waitForSelector(ready);
});

test("an agent without a history, and one that is gone, say so and cover nothing", async (t) => {
  const without = await agent([work.pid], "--no-history");
  const { page, context, wrongs } = await visit(without.url);
  t.after(() => context.close());
  await page.waitForSelector(`${at("flame")}[data-nodes]`);
  await page.locator(at("range-15m")).click();
  await page.getByText("Now works without a history").first().waitFor();
  assert.equal(await page.locator(at("flame")).count(), 0, "the graph of the last minute is not left below the error");
  await page.locator(at("range-now")).click();
  await page.waitForSelector(at("flame"));
  // So is what cannot be asked, with the way out.
  await page.locator(at("query")).fill("focus=(");
  await page.keyboard.press("Enter");
  await page.getByText("This cannot be asked").first().waitFor();
  await page.getByRole("button", { name: "Clear the filters" }).first().click();
  await page.waitForSelector(at("flame"));
  await page.locator(".strip .legend button").first().waitFor();
  without.child.kill("SIGKILL");
  const error = page.locator(".strip .problem");
  await error.waitFor();
  const boxes = await Promise.all([".strip-plot", ".strip .legend", at("filters")].map((s) => page.locator(s).boundingBox()));
  const box = await error.boundingBox();
  assert.ok(boxes.every((b) => b.y >= box.y + box.height || b.y + b.height <= box.y), `${JSON.stringify(box)} lies over none of ${JSON.stringify(boxes)}`);
  assert.ok(await page.locator(at("flame")).isVisible(), "what was there stays");
  assert.ok(wrongs.every((w) => /status of 40[04] |net::ERR_CONNECTION_/.test(w)), wrongs.join("\n"));
});

test("the graph is turned, collapsed, coloured, narrowed and saved", async (t) => {
  const [one, other] = ["one.folded", "other.folded"].map((name) => join(scratch, name));
  writeFileSync(one, "main;rec;rec;rec;leaf 60\nmain;other 30\nmain;other;vfs_read_[k] 10\n");
  writeFileSync(other, "main;rec;rec;rec;leaf 10\nmain;other 80\n");
  const page = await open(t, await shows(one));
  const graph = page.locator(at("flame"));
  const nodes = async () => Number(await graph.getAttribute("data-nodes"));
  const asked = (name) => new URL(page.url()).searchParams.get(name);
  const item = async () => (await page.evaluate((s) => document.getElementById(document.querySelector(s).getAttribute("aria-activedescendant"))?.textContent ?? "", at("flame"))).split(",")[0];
  const walk = async (...keys) => {
    await graph.focus();
    for (const key of keys) await page.keyboard.press(key);
    return item();
  };
  const legend = () => page.locator(".fg-legend").textContent();
  await until("all frames", async () => await nodes() === 7);
  assert.match(await page.locator(at("trust")).textContent(), /^100 ?% named/); // folded text does not tell which stacks are whole, so not how good it is
  assert.match(await legend(), /kernel/i);

  await page.getByRole("button", { name: "Collapse recursion" }).click();
  await until("the function that calls itself stands once", async () => await nodes() === 5 && asked("collapse"));
  await page.getByRole("button", { name: "Invert" }).click();
  await until("the innermost function is outermost", async () => await walk("Home", "ArrowDown") === "leaf");
  assert.ok(asked("invert"));
  await page.getByRole("button", { name: "Invert" }).click();
  await page.getByRole("button", { name: "Collapse recursion" }).click();
  await until("as before", async () => await nodes() === 7 && await walk("Home", "ArrowDown") === "main");

  // A search goes forth and back, by the box and by the graph's keys.
  await page.locator(at("search")).fill("e"); // rec three times, leaf, other, vfs_read
  const match = () => page.locator(".fg [role=status]").textContent();
  for (const [key, said] of [["Enter", 1], ["Enter", 2], ["Shift+Enter", 1], ["Shift+Enter", 6]]) {
    await page.locator(at("search")).press(key);
    await until(`${key} goes to match ${said}`, async () => (await match()).startsWith(`Match ${said} of 6`));
  }
  for (const [key, said] of [["N", 5], ["n", 6]]) {
    await graph.press(key);
    await until(`${key} goes to match ${said}`, async () => (await match()).startsWith(`Match ${said} of 6`));
  }
  await page.locator(at("search")).fill("");
  // What a common frame is stands with its numbers.
  assert.equal(await walk("Home", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown"), "vfs_read");
  assert.match(await page.locator(at("flame-details")).textContent(), /A file is read/);
  // T changes the theme, and it stays.
  const dark = () => page.evaluate(() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor].join());
  const light = await dark();
  await page.keyboard.press("t");
  await until("another theme", async () => await dark() !== light && (await dark()).startsWith("dark"));
  await page.keyboard.press("t");
  await until("as before", async () => (await dark()).startsWith("light"));
  assert.equal(await walk("Home", "ArrowDown"), "main");

  // Numbers of one frame, with what chance makes of them.
  assert.equal(await walk("ArrowDown"), "rec");
  await page.keyboard.press("Enter");
  await until("the zoom", () => asked("zoom"));
  const details = await page.locator(at("flame-details")).textContent();
  assert.match(details, /self0 %.*total60\.0 %.*samples60 ± 10/); // 1.96 √(60 (1 − 60/100)) is 9.6
  // The map shows where in the whole the view is.
  const [map, part] = [await page.locator(".fg-map").boundingBox(), await page.locator(".fg-window").boundingBox()];
  assert.ok(part.width > 0.5 * map.width && part.width < 0.7 * map.width, `60 % of the whole: ${part.width} of ${map.width}`);
  await page.keyboard.press("Escape");

  // Where the map, the wheel and the keys lead to is in the address, and no entry of the history; a button and Escape lead back.
  const seen = () => page.locator(".fg-window").evaluate((window) => [window.style.left, window.style.width].map((part) => Math.round(parseFloat(part))));
  const entries = () => page.evaluate(() => history.length);
  await until("all is shown", async () => !asked("zoom") && (await seen())[1] === 100);
  const before = await entries();
  await page.mouse.move(map.x + 0.2 * map.width, map.y + 10);
  await page.mouse.down();
  await page.mouse.move(map.x + 0.35 * map.width, map.y + 10, { steps: 4 });
  await page.waitForTimeout(700); // it rests on the way, which is not where it was led to
  assert.equal(asked("part"), null);
  await page.mouse.move(map.x + 0.5 * map.width, map.y + 10, { steps: 4 });
  await page.mouse.up();
  await until("what was chosen in the map", () => asked("part"));
  await page.reload();
  await page.waitForSelector(ready);
  await until("it is there again", async () => (await seen()).join() === "20,30");
  assert.equal(await entries(), before);
  await page.getByRole("button", { name: "Reset zoom" }).click();
  await until("all", async () => !asked("part") && (await seen())[1] === 100);
  await page.goBack();
  await until("Back goes back to the part", async () => (await seen()).join() === "20,30");
  await page.keyboard.press("Escape"); // the page has the focus, not the graph
  await until("all", async () => !asked("part") && (await seen())[1] === 100);
  for (const zoom of [async () => page.keyboard.press("+"), async () => {
    await graph.hover();
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, -200);
    await page.keyboard.up("Control");
  }]) {
    await graph.focus();
    await zoom();
    await until("a part", () => asked("part"));
    await page.keyboard.press("Escape");
    await until("all", () => !asked("part"));
  }
  // Another graph is seen whole.
  await graph.focus();
  await page.keyboard.press("+");
  await until("a part", () => asked("part"));
  await page.locator(at("query")).fill("focus=leaf");
  await page.keyboard.press("Enter");
  await until("all of what is in focus", async () => asked("focus") && !asked("part") && (await seen())[1] === 100);
  await page.getByRole("button", { name: /^Remove focus/ }).click();

  // Only what a frame is in, and what it is not in; and back by the chips.
  const samples = () => page.locator(".about").textContent();
  await walk("Home", "ArrowDown", "ArrowDown", "f");
  await until("its samples alone", async () => (await samples()).startsWith("60 samples") && asked("focus"));
  await page.getByRole("button", { name: /^Remove focus/ }).click();
  await until("all, of a file that does not say how long it took", async () => await samples() === "100 samples");
  await walk("Home", "ArrowDown", "ArrowDown", "x");
  await until("the others alone", async () => (await samples()).startsWith("40 samples") && asked("ignore"));
  await page.getByRole("button", { name: /^Remove ignore/ }).click();
  await until("all", async () => (await samples()).startsWith("100 samples"));

  // Callers and callees of a function in place, also from the address.
  assert.equal(await walk("Home", "ArrowDown", "ArrowDown", "ArrowRight"), "other");
  await graph.press("s");
  await until("what other is between", async () => asked("sandwich") === "other" && await walk("ArrowUp") === "main" && await walk("ArrowDown", "ArrowDown") === "vfs_read");
  const between = await nodes();
  assert.ok(between < 7, `${between} nodes`);
  await page.reload();
  await page.waitForSelector(ready);
  await until("the same", async () => await nodes() === between);
  await page.keyboard.press("Escape");
  await until("all again", async () => !asked("sandwich") && await nodes() === 7);

  // The tables: a click on a head orders them, at each level of the tree; what is typed leaves what has it, in the tree with the way to it.
  const rows = (table) => page.locator(`${at(table)} tr[data-function]`).evaluateAll((all) => all.map((row) => row.dataset.function).join(" "));
  const has = (table, names) => until(`${table} has ${names}`, async () => await rows(table) === names);
  const head = (table, name) => page.locator(`${at(table)} thead`).getByRole("button", { name }).click();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  const copied = async () => {
    await page.getByRole("button", { name: /^Copy table/ }).click();
    return (await page.evaluate(() => navigator.clipboard.readText())).split("\n").map((line) => line.split("\t").map((cell) => cell.trim()));
  };
  await page.locator(at("view-tree")).click();
  await has("tree-table", "main rec rec rec leaf other");
  await head("tree-table", "Samples");
  await head("tree-table", "Samples");
  await has("tree-table", "main other rec rec rec leaf");
  assert.equal(asked("sort"), "samples");
  await page.locator(at("find")).fill("VFS");
  await has("tree-table", "main other vfs_read");
  assert.equal(await page.locator(`${at("tree-table")} tr.dim`).count(), 2, "the way to it is dim");
  assert.deepEqual(await copied(), [["Total", "Self", "Samples", "Function", "Module"], ["100 %", "", "100", "main", ""], ["40.0 %", "30.0 %", "40", "other", ""], ["10.0 %", "10.0 %", "10", "vfs_read", "[kernel.kallsyms]"]]);
  const heights = await page.locator(`${at("tree-table")} tbody tr`).evaluateAll((all) => all.map((row) => row.offsetHeight));
  assert.equal(new Set(heights).size, 1, `rows are equally high: ${heights}`);
  await page.locator(at("find")).fill("none has this");
  await page.getByText("Nothing matches.").waitFor();
  await page.goBack();
  await has("tree-table", "main other rec rec rec leaf");
  await page.locator(at("view-top")).click();
  await has("top-table", "leaf other vfs_read main rec");
  await head("top-table", "Function");
  await has("top-table", "leaf main other rec vfs_read");
  await head("top-table", "Total");
  await has("top-table", "main leaf rec other vfs_read");
  await page.locator(at("find")).fill("r");
  await has("top-table", "rec other vfs_read");
  assert.deepEqual((await copied()).map((line) => line[5]), ["Function", "rec", "other", "vfs_read"]);
  await page.locator(at("view-flame")).click();

  // A tree of many rows has some of them at first.
  writeFileSync(one, Array.from({ length: 300 }, (_, i) => `main;leaf${i} 1\n`).join(""));
  const many = await open(t, `${await shows(one)}/?view=tree`);
  const shown = () => many.locator(`${at("tree-table")} tr[data-function]`).count();
  await until("the first", async () => await shown() === 100);
  await many.getByRole("button", { name: "Show more" }).click();
  await until("all", async () => await shown() === 301);

  // That nothing matches is said, with the way out.
  await page.locator(at("query")).fill("focus=nobody");
  await page.keyboard.press("Enter");
  await page.getByText("Nothing in this time matches the filters.").waitFor();
  await page.getByRole("button", { name: "Clear the filters" }).click();
  await until("all", async () => await samples() === "100 samples");

  const kinds = await legend();
  await page.getByRole("combobox", { name: /^Colour/ }).selectOption("module");
  await until("the legend has modules", async () => await legend() !== kinds && asked("color") === "module");
  await page.getByRole("button", { name: "Picture" }).click();
  for (const [kind, begin] of [["PNG", "\x89PNG"], ["SVG", "<svg"]]) {
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: kind, exact: true }).click()]);
    assert.ok(readFileSync(await file.path(), "latin1").startsWith(begin), kind);
  }

  // Two files are a difference.
  const both = await open(t, `${await shows(one, other)}/?view=top`);
  await both.waitForSelector(`${at("diff-table")} tr[data-function="leaf"]`);
  await both.locator(at("view-flame")).click();
  await until("the legend tells of both", async () => /more|less/i.test(await both.locator(".fg-legend").textContent()));
});

test("a goroutine is seen by its traces", async (t) => {
  const spans = await goSpans();
  const page = await open(t, `${(await agent([spans.pid])).url}/?view=top`);
  const shown = () => page.textContent("body");
  await until("both goroutines in the document", async () => /burnFirst[^]*burnSecond|burnSecond[^]*burnFirst/.test(await shown()));
  await page.locator(at("query")).fill('filter=trace_id=~"70696c6f746c6967687400000001.*"'); // those of the second
  await page.keyboard.press("Enter");
  await until("one alone", async () => (await shown()).includes("burnSecond") && !(await shown()).includes("burnFirst"));
  assert.match(page.url(), /trace_id/);
  await page.locator(at("group-by")).selectOption("trace_id");
  await page.goto(page.url().replace("view=top", "view=tree"));
  await until("its traces", async () => /70696c6f746c6967687400000001[0-9a-f]{4}/.test(await shown()));
});

test("the graph by itself", async () => {
  const page = await alone("check.ts");
  await page.evaluate(() => globalThis.check(document.getElementById("host")));
  await page.close();
});

test("two ranges are compared, and a link shows the same", async (t) => {
  const times = await changed;
  const page = await open(t, `${host.url}/?range=${iso(times.begun)}/${iso(times.end)}&filter=${encodeURIComponent(`pid="${work.pid}"`)}`);
  const strip = page.locator(`${at("strip")} [role=application]`);
  const drag = async (from, to) => {
    const box = await strip.boundingBox();
    const x = (ms) => box.x + box.width * (ms - times.begun) / (times.end - times.begun);
    await page.mouse.move(x(from), box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move((x(from) + x(to)) / 2, box.y + box.height / 2);
    await page.mouse.move(x(to), box.y + box.height / 2);
    await page.mouse.up();
  };
  await drag(times.after, times.end - 200);
  await until("the range is in the address", () => new URL(page.url()).searchParams.get("from"));
  // A second drag compares; one that begins in what is selected selects anew, and so does one after Escape.
  await page.getByText(/Drag again.*to compare/).waitFor();
  const first = new URL(page.url()).searchParams.get("from");
  await drag(times.after + 5000, times.end - 200);
  await until("it is selected anew", () => new URL(page.url()).searchParams.get("from") > first);
  assert.ok(!page.url().includes("compare"));
  await drag(times.before, times.after + 7000); // over its begin: times that are compared do not overlap
  await until("it is selected anew", () => new URL(page.url()).searchParams.get("from") < first);
  assert.ok(!page.url().includes("compare"));
  await strip.press("Escape");
  await until("it is cleared", () => !page.url().includes("&from="));
  await drag(times.after, times.end - 200);
  await until("the range as it was", () => new URL(page.url()).searchParams.get("from") === first);
  await drag(times.begun + 200, times.before);
  await until("a second drag compares", () => page.url().includes("compare=true") && page.url().includes("before_from="));
  assert.equal(new URL(page.url()).searchParams.get("from"), first);
  assert.equal(await page.getByText(/Drag again.*to compare/).count(), 0);
  await page.goBack();
  await until("Back", () => !page.url().includes("compare"));
  // With shift, or by a second drag while comparing: of both comes the same.
  await page.keyboard.down("Shift");
  await drag(times.begun + 200, times.before);
  await page.keyboard.up("Shift");
  const chosen = (name) => new URL(page.url()).searchParams.get(name);
  const before = await until("so is the one to compare with", () => chosen("before_from"));
  const choice = page.locator(`.tag.before button`);
  await choice.click();
  await until("it is forgotten", () => !chosen("before_from"));
  await drag(times.begun + 200, times.before);
  await until("it is there again", () => chosen("before_from") === before);
  // By keyboard: it moves, the other stays, and Back goes back to before the first key.
  const after = chosen("from");
  await strip.focus();
  await choice.click();
  await strip.focus();
  for (const key of ["ArrowLeft", "ArrowLeft"]) await page.keyboard.press(key);
  await until("the keys choose it", () => chosen("before_from"));
  assert.equal(chosen("from"), after);
  await page.goBack();
  await until("Back takes it away in one step", () => !chosen("before_from"));
  await drag(times.begun + 200, times.before);
  await until("it is chosen for the rest of this test", () => chosen("before_from") === before);
  await page.locator(at("view-top")).click();
  await page.waitForSelector(`${at("diff-table")} tr[data-function]`);
  const names = await page.locator(`${at("diff-table")} tr[data-function]`).evaluateAll((rows) => rows.slice(0, 4).map((r) => r.dataset.function));
  assert.match(names[0], /^main\.(first|second|burn)$/, `the changed function tops the table: ${names}`);
  assert.ok(names.includes("main.first") && names.includes("main.second"), names.join());

  // The other views compare too, and so does the badge.
  const differences = async (table) => {
    const of = (name) => page.locator(`${at(table)} tr[data-function="${name}"] td`).nth(2).textContent();
    await page.waitForSelector(`${at(table)} tr[data-function="main.second"]`);
    assert.match(await of("main.first"), /^−[1-9]/, table);
    assert.match(await of("main.second"), /^\+[1-9]/, table);
  };
  await page.locator(at("view-tree")).click();
  await differences("tree-table");
  await page.locator(at("view-callers")).click();
  await page.getByPlaceholder("The whole name of a function").fill("main.main");
  await page.keyboard.press("Enter");
  await differences("callees-table");
  // In a shell comes the same: of the comparison, and of the callees of one of its times.
  await page.locator(at("leave")).click();
  const [, diffed, compares] = await page.locator(".command code").allTextContents();
  await page.keyboard.press("Escape");
  assert.match(shell(diffed.replace("-http=:", "-top -sample_index=samples")), /-\d+ .* main\.first\n/, diffed);
  assert.match(shell(`${compares} --data-dir ${host.dir}`), /main\.first/, compares);
  const one = await open(t, page.url().replace("compare=true", "compare=false"));
  await one.waitForSelector(`${at("callees-table")} tr[data-function="main.second"]`);
  await one.locator(at("leave")).click();
  const callers = (await one.locator(".command code").allTextContents())[2];
  assert.match(callers, /--format callers --function main\.main/);
  assert.match(shell(`${callers} --data-dir ${host.dir}`), /main\.second/, callers);
  await page.locator(at("trust")).click();
  assert.match(await page.locator(at("trust-panel")).textContent(), /Before.*Whole stacks.*After.*Whole stacks/);
  await page.keyboard.press("Escape");
  await page.locator(at("leave")).click();
  assert.match(readFileSync(await download(page, "folded-before"), "utf8"), /main\.first/);
  await page.keyboard.press("Escape");
  await page.locator(at("view-top")).click();
  await page.waitForSelector(`${at("diff-table")} tr[data-function]`);

  await page.locator(at("find")).fill("main.");
  await page.locator(`${at("diff-table")} thead button`, { hasText: "After" }).click();
  await until("the order and the filter are in the address", () => chosen("find") === "main." && chosen("sort") === "-after");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.locator(at("leave")).click();
  await page.locator(at("copy-link")).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await open(t, link);
  await other.waitForSelector(`${at("diff-table")} tr[data-function]`);
  const table = (p) => p.locator(at("diff-table")).textContent();
  assert.equal(await table(other), await table(page), "the same view");

  await page.keyboard.press("Escape");
  await page.locator(at("view-flame")).click();
  await until("the graph of both", async () => Number(await page.locator(at("flame")).getAttribute("data-nodes")) > 3);
  await page.goBack();
  await until("Back goes back", () => page.url().includes("view=top"));

  // Before the agent was there, there is nothing to compare with.
  await page.goto(`${host.url}/?range=15m&filter=${encodeURIComponent(`pid="${work.pid}"`)}`);
  await page.waitForSelector(at("flame"));
  await page.keyboard.press("c");
  await page.getByText("There is nothing to compare with").waitFor();
  assert.equal(await page.locator(at("flame")).count(), 0, "no grey graph");
  await page.getByRole("button", { name: "Do not compare" }).click();
  await page.waitForSelector(at("flame"));
});

test("a view is chosen, copied, and had in a shell", async (t) => {
  const times = await changed;
  const page = await open(t, host.url);
  const asked = (name) => new URL(page.url()).searchParams.get(name);
  for (const range of ["15m", "1h", "24h", "now"]) {
    await page.locator(at(`range-${range}`)).click();
    await until(`the range ${range}`, async () => (asked("range") ?? "now") === range && await page.locator(at(`range-${range}`)).getAttribute("aria-pressed") === "true");
  }
  await page.locator(at("range-custom")).click();
  for (const [label, ms] of [["From", times.after], ["To", times.end]]) {
    const local = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
    await page.getByLabel(label, { exact: true }).fill(local);
  }
  await page.getByRole("button", { name: "Show", exact: true }).click();
  await until("a range of one's own", () => /^2\d{3}-.*\/2\d{3}-/.test(asked("range") ?? ""));
  const [from, to] = asked("range").split("/").map(Date.parse);
  assert.deepEqual([from, to], [times.after, times.end].map((ms) => ms - ms % 1000));

  // A value is chosen among those that there are, each with its share; in the list stand processes, and others, with lines over time.
  const chip = page.locator(`${at("filters")} button.chip[data-value=shop]`);
  assert.match(await chip.locator("small").textContent(), /^[1-9]\d?(\.\d)? ?%$/);
  await chip.click();
  await until("it is a condition", () => asked("filter") === 'comm="shop"');
  await page.locator(`${at("processes")} [data-pid="${work.pid}"] svg.spark polyline`).waitFor({ state: "attached" });
  await page.getByRole("group", { name: "List" }).getByRole("button", { name: "Containers" }).click();
  await until("containers", async () => /no container|[0-9a-f]{12}/.test(await page.locator(at("processes")).textContent()));

  // The strip is stacked by another label.
  await page.getByLabel("Stacked by").selectOption("pid");
  await page.locator(".strip .legend").getByRole("button", { name: String(work.pid) }).waitFor();
  const painted = () => page.locator(".strip canvas").evaluate((c) => new Set(new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer)).size);
  assert.ok(await painted() > 10, "it is drawn");
  await page.getByLabel("Stacked by").selectOption("comm");

  // What is looked for in the list, which label has chips, and that it is held still are in the address too, and Back takes them away.
  await page.locator(at("find-list")).fill("nothing of this name");
  await page.getByText("Nothing matches.").waitFor();
  await page.locator(at("chips")).selectOption("pid");
  await page.locator(`${at("filters")} button.chip[data-value="${work.pid}"]`).waitFor();
  assert.deepEqual([asked("find_list"), asked("chips")], ["nothing of this name", "pid"]);
  for (const name of ["chips", "find_list"]) {
    await page.goBack();
    await until(`Back takes ${name} away`, () => !asked(name));
  }
  await until("the list has all", async () => /no container|[0-9a-f]{12}/.test(await page.locator(at("processes")).textContent()));
  const live = await open(t, `${host.url}/?paused=true`);
  await live.getByRole("button", { name: "Paused" }).waitFor();
  await live.keyboard.press("p");
  await live.getByRole("button", { name: "Live" }).waitFor();

  // What is copied is the table, and what a shell gives is the view.
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.locator(at("view-top")).click();
  await page.waitForSelector(`${at("top-table")} tr[data-function="main.second"]`);
  await page.getByRole("button", { name: /^Copy table/ }).first().click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  const rows = await page.locator(`${at("top-table")} tbody tr`).evaluateAll((all) => all.map((row) => row.dataset.function));
  assert.deepEqual(copied.split("\n").slice(1).map((line) => line.split("\t").find((cell) => rows.includes(cell))), rows);
  const exact = Object.fromEntries((await json(`${host.url}/api/v1/top?from=${iso(from)}&to=${iso(to)}&filter=${encodeURIComponent('comm="shop"')}`)).rows.map((r) => [r.name, r.self.samples]));
  await page.locator(at("leave")).click();
  const [, pprof, query] = await page.locator(".command code").allTextContents();
  const top = shell(pprof.replace("-http=:", "-top -sample_index=samples"));
  const asks = shell(`${query} --data-dir ${host.dir}`);
  for (const name of ["main.steady", "main.second"]) {
    assert.equal(Number(new RegExp(`^\\s*(\\d+) .* ${name}$`, "m").exec(top)[1]), exact[name], `${pprof}: ${name}`);
    assert.match(asks, new RegExp(name), query);
  }
});

test("a part of a second is selected in the heatmap", async (t) => {
  const times = await changed;
  const page = await open(t, `${host.url}/?range=${iso(times.begun)}/${iso(times.end)}&heat=true`);
  await page.waitForSelector("canvas.heat");
  const box = await page.locator(`${at("strip")} [role=application]`).boundingBox();
  const x = box.x + box.width * 0.7;
  await page.mouse.move(x, box.y + box.height * 0.8);
  // Of two programs that never rest a cell of 20 ms has some samples in most cells: the cells above and below are looked at too.
  const hover = page.locator(".hover");
  await until("the time to the millisecond, and a count", async () => /:\d\d\.\d{3}/.test(await hover.textContent()) && /\d+ samples? in 20 ms/.test(await hover.textContent()));
  await page.mouse.down();
  await page.mouse.move(x, box.y + box.height * 0.3); // up, within a column
  await page.mouse.up();
  const at_ = (name) => Date.parse(new URL(page.url()).searchParams.get(name));
  const length = await until("a range", () => at_("to") - at_("from"));
  assert.ok(length > 100 && length < 1000, `half of a second or so: ${length} ms`);
  assert.match(await page.locator(".tag.after").textContent(), /:\d\d\.\d{3} – .*:\d\d\.\d{3} \(\d+ ms\)/);
  const selection = await page.locator(".range.after").boundingBox();
  assert.ok(selection.height > 10 && selection.height < box.height, "it is drawn as a part of the column");
  // The graph is of what the heatmap counts there.
  const span = `from=${iso(at_("from"))}&to=${iso(at_("to"))}`;
  const [cells, top] = await Promise.all([`heatmap?step=20ms&${span}`, `top?${span}`].map(async (query) => (await fetch(`${host.url}/api/v1/${query}`)).json()));
  const counted = cells.lines.flatMap((l) => l.samples).reduce((a, b) => a + b, 0);
  assert.ok(counted > 10, `${counted} samples`);
  assert.equal(top.total.samples, counted);
  await until("a graph of them", async () => (await page.locator(".about").textContent()).startsWith(`${counted} samples in ${length} ms`));

  // By keyboard: a column at first, then by cells, up and down.
  await page.keyboard.press("Escape");
  await until("nothing is selected", () => !new URL(page.url()).searchParams.has("from"));
  await page.locator(`${at("strip")} [role=application]`).focus();
  await page.keyboard.press("ArrowLeft");
  const column = await until("the last column", () => at_("to") - at_("from"));
  const begun = at_("from");
  const cell = column / 50;
  for (const [keys, from, to] of [
    [["ArrowDown", "ArrowDown"], begun - 2 * cell, begun + column - 2 * cell],
    [["ArrowUp"], begun - cell, begun + column - cell],
    [["Shift+ArrowDown"], begun - cell, begun + column - 2 * cell],
    [["ArrowLeft"], begun - cell - column, begun - 2 * cell],
  ]) {
    for (const key of keys) await page.keyboard.press(key);
    await until(`${keys} chooses it`, () => at_("from") === from && at_("to") === to);
  }

  // Where only the time before was chosen, Escape takes it away too.
  await page.keyboard.press("Escape");
  await page.keyboard.press("c");
  await page.keyboard.press("ArrowLeft");
  await until("the time before is chosen", () => at_("before_from") > 0);
  assert.ok(!at_("from"), "and no other");
  await page.keyboard.press("Escape");
  await until("it is chosen no more", () => !new URL(page.url()).searchParams.has("before_from"));
});

test("pictures", async () => {
  const dir = new URL("../../build/test/pictures", import.meta.url).pathname;
  await take(host.url, await changed, dir);
  assert.equal(readdirSync(dir).filter((name) => readFileSync(join(dir, name)).subarray(1, 4).toString() === "PNG").length, 5);
});

test("figures", async (t) => {
  for (const program of [work, evil]) { // they would have the CPUs that the page is to be drawn with
    program.kill("SIGSTOP");
    t.after(() => program.kill("SIGCONT"));
  }
  // 200,000 nodes, the most that the page asks for: 2,000 stacks that share nothing, each 100 deep.
  const lines = [];
  for (let i = 0; i < 2000; i++) {
    const frames = [];
    for (let depth = 0; depth < 100; depth++) frames.push(`service::module_${i % 89}::Handler<${i}>::process_${depth}`);
    lines.push(`${frames.join(";")} ${1000 + (i * 7919) % 5000}`);
  }
  const file = join(scratch, "large.folded");
  writeFileSync(file, lines.join("\n") + "\n");
  const large = await open(t, await shows(file), {}, await unpaced());
  await until("all nodes are in the graph", async () => Number(await large.locator(at("flame")).getAttribute("data-nodes")) === 200_000, 60_000);
  const figures = await large.evaluate(async (selector) => {
    const view = document.querySelector(selector);
    const box = view.getBoundingClientRect();
    const wheel = (more) => view.dispatchEvent(new WheelEvent("wheel", { clientX: box.left + 300, clientY: box.top + 200, cancelable: true, bubbles: true, ...more }));
    const frame = () => new Promise((next) => requestAnimationFrame(next));
    for (let i = 0; i < 8; i++) wheel({ deltaY: -100, ctrlKey: true });
    const times = [];
    let last = await frame();
    for (let i = 0; i < 120; i++) {
      wheel({ deltaX: i % 60 < 30 ? 14 : -14, deltaY: i % 40 < 20 ? 9 : -9 });
      const now = await frame();
      times.push(now - last);
      last = now;
    }
    times.sort((a, b) => a - b);
    globalThis.gc();
    return { median: times[Math.floor(0.5 * times.length)], p95: times[Math.floor(0.95 * times.length)], heap: performance.memory.usedJSHeapSize };
  }, at("flame"));
  assert.ok(figures.heap <= 150e6, `the page takes ${Math.round(figures.heap / 1e6)} MB`);

  const day = await open(t, `${(await ofADay(work.pid)).url}/?range=24h`);
  const painted = await (await day.waitForFunction(() => globalThis.drawn)).jsonValue();
  const shown = Number((await day.locator(".about").textContent()).split(" samples")[0].replace(/\D/g, ""));
  assert.ok(shown > 1e7, `a day has ${shown} samples`);
  const asked = await day.evaluate(() => performance.getEntriesByType("resource").filter((e) => e.name.includes("/api/v1/tree?") && e.name.endsWith("=5000")).map((e) => e.startTime));
  const began = await day.evaluate(() => performance.getEntriesByType("resource").find((e) => e.name.endsWith(".js")).responseEnd);
  assert.ok(asked.length === 1 && asked[0] < began, `the graph is asked for once, before the script is there: after ${asked} ms, and that after ${began}`);
  const assets = new URL("../../exporter/web/assets/page/assets/", import.meta.url).pathname;
  let size = 0;
  for (const name of readdirSync(assets)) if (statSync(join(assets, name)).isFile()) size += gzipSync(readFileSync(join(assets, name)), { level: 9 }).length;
  assert.ok(size <= 300_000, `assets take ${size} bytes zipped`);
  const late = [figures.p95 > 16 && "panning is slower than 16 ms a frame", painted > 1500 && "the first paint is later than 1500 ms"].filter(Boolean);
  console.log(`figures: ${late.length > 0 ? `WARNING: ${late.join(", and ")}: ` : ""}200,000 nodes: panning median ${figures.median.toFixed(1)} p95 ${figures.p95.toFixed(1)} ms a frame, heap ${Math.round(figures.heap / 1e6)} MB; ` +
    `24 h of ${Math.round(shown / 1e6)} million samples drawn ${Math.round(painted)} ms after the navigation began; assets ${Math.round(size / 1000)} kB zipped`);
});

// It is the last: it looks at all that the others' pages asked.
test("the page asks for nothing that the API does not describe", async (t) => {
  await open(t, host.url);
  const { paths, components } = parse(readFileSync(new URL("../../exporter/web/assets/openapi.yaml", import.meta.url), "utf8"));
  const private_ = [...askedOfTheAPI].filter((request) => {
    const [method, address] = request.split(" ");
    const { pathname, searchParams } = new URL(address, host.url);
    const described = paths[pathname]?.[method.toLowerCase()];
    const names = (described?.parameters ?? []).map((p) => (p.$ref ? components.parameters[p.$ref.split("/").pop()] : p).name);
    return !described || [...searchParams.keys()].some((name) => !names.includes(name));
  });
  assert.deepEqual(private_, []);
  assert.ok([...askedOfTheAPI].some((request) => request.startsWith("GET /api/v1/tree?")), "what pages ask is seen");
});
