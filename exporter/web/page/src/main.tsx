// The page of the agent: what ran, over time, and why.

import { Component, render, type ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import {
  address, beforeParams, beforeTimes, ranks, refreshEvery, stackParams, stripParams, timeParams, useQuery,
  type Answer, type CallersAnswer, type DiffAnswer, type DiffTreeAnswer, type Found, type LabelsAnswer, type ProcessesAnswer, type SeriesAnswer,
  type Status, type TopAnswer, type TreeAnswer,
} from "./api.ts";
import { Chips, QueryBox } from "./filters.tsx";
import { printable } from "./flame/text.ts";
import { count, duration } from "./format.ts";
import { focusSearch, Graph } from "./graph.tsx";
import { Help } from "./help.tsx";
import { Leave } from "./leave.tsx";
import { Busy, conditions, Empty, Fold, NothingBefore, Problem, useSmall } from "./parts.tsx";
import { formatFilter, labels, spanLabels } from "./query.ts";
import { Side } from "./side.tsx";
import { change, fixedRange, freeze, initial, isLive, moves, ofSpans, rangeSeconds, selected, state, stripSpan, toggleCompare, unsorted, useAppState, whole, type State, type View } from "./state.ts";
import { Strip } from "./strip.tsx";
import { Callers, DiffTable, Top, Tree } from "./tables.tsx";
import { partsOf, partsOfDifference, TrustBadge } from "./trust.tsx";

const page = document.getElementById("page")!;

// What the agent can answer has to be known first: one without a history knows the last minute alone, and files have no processes. It says so
// in the document; under npm run dev it is asked.
const told = page.dataset.status!;
const begun: Status = told.startsWith("{{") ? await (await fetch("/api/v1/status")).json() : JSON.parse(told);
const hostname = printable(begun.hostname);

const views: [View, string][] = [["flame", "Flame graph"], ["top", "Top"], ["tree", "Tree"], ["callers", "Callers"]];

function App() {
  const s = useAppState();
  const [help, setHelp] = useState(false);
  const small = useSmall();
  const every = refreshEvery(s);

  const time = timeParams(s);
  const stack = stackParams(s);
  const status = useQuery<Status>("/api/v1/status", ranks.status, 10000);
  const { files, history, ...agent } = status.data ?? begun;
  // Of spans the last minute and files tell; what was chosen there is no choice elsewhere.
  const known = files || (isLive(s) && !s.compare) ? [...labels, ...spanLabels] : labels;
  const facet = known.includes(s.chips) ? s.chips : initial.chips;
  const of = { ...time, ...stack };
  const compared = { ...of, ...beforeParams(s), scale: s.scale };
  const graphic = s.view === "flame" || s.view === "tree";
  // A graph of the heaviest nodes, those of a pixel or more, is there soon: the agent has the browser ask for it before this runs (firstQuery). One of all that can
  // be told apart, which is much to send, follows where nodes were left out.
  const [seen, setSeen] = useState(""); // the address of that first graph
  const treeOf = (limit: number) => (s.compare ? address("/api/v1/difftree", { ...compared, limit }) : address("/api/v1/tree", { ...of, limit }));
  const coarse = treeOf(s.view === "flame" ? 5000 : 20000);
  const detailed = s.view === "flame" && seen === coarse;
  const shape = !graphic ? null : detailed ? treeOf(200000) : coarse;
  const rank = detailed ? ranks.detail : ranks.graph;
  const tree = useQuery<TreeAnswer>(s.compare ? null : shape, rank, every);
  const diffTree = useQuery<DiffTreeAnswer>(s.compare ? shape : null, rank, every);
  const main: Answer<TreeAnswer | DiffTreeAnswer> = s.compare ? diffTree : tree;
  useEffect(() => {
    if (s.view === "flame" && main.data?.omitted && main.url === coarse) setSeen(coarse);
  }, [s.view, main.data, main.url, coarse]);
  const rows = s.view === "top" ? 2000 : 10;
  const top = useQuery<TopAnswer>(!s.compare && s.view !== "callers" && s.view !== "tree" ? address("/api/v1/top", { ...of, by: "", limit: rows }) : null, ranks.table, every);
  const diff = useQuery<DiffAnswer>(s.compare && s.view !== "callers" && s.view !== "tree" ? address("/api/v1/diff", { ...compared, by: "", limit: rows }) : null, ranks.table, every);
  const callers = useQuery<CallersAnswer>(s.view === "callers" && s.function ? address("/api/v1/callers", { ...of, by: "", function: s.function, limit: 1000 }) : null, ranks.graph, every);
  const callersBefore = useQuery<CallersAnswer>(s.compare && s.view === "callers" && s.function ? address("/api/v1/callers", { ...beforeTimes(s), ...stack, by: "", function: s.function, limit: 1000 }) : null, ranks.graph, every);

  // The strip and the list show all of the range, with the conditions, but as they were before somebody chose from the list itself; of spans the last
  // minute, which is all that is known of them.
  const past = history && !(isLive(s) && ofSpans({ ...s, by: "" }));
  const strip = { ...(past ? stripParams(s) : { live: "true" }), type: s.type, filter: s.filter, focus: s.focus, ignore: s.ignore };
  const seriesEvery = s.paused || rangeSeconds(s.range) === 0 ? 0 : Math.max(10000, every);
  const series = useQuery<SeriesAnswer>(files || s.heat ? null : address("/api/v1/series", { ...strip, by: s.stack }), ranks.strip, seriesEvery);
  const list = useQuery<SeriesAnswer>(files ? null : address("/api/v1/series", { ...strip, filter: withoutLabel(s, s.list), by: s.list }), ranks.sparks, seriesEvery);
  const here = { ...time, type: s.type, filter: withoutLabel(s, s.list), focus: s.focus, ignore: s.ignore };
  const processes = useQuery<ProcessesAnswer>(!files && s.list === "pid" ? address("/api/v1/processes", { ...here, limit: 1000 }) : null, ranks.list, every);
  const listed = useQuery<LabelsAnswer>(files || s.list === "pid" ? null : address("/api/v1/labels", { ...here, by: s.list, limit: 1000 }), ranks.list, every);
  const facets = useQuery<LabelsAnswer>(address("/api/v1/labels", { ...time, type: s.type, filter: withoutLabel(s, facet), by: facet, limit: 100 }), ranks.facets, every && Math.max(every, 30000));

  const found: Found | undefined = s.view === "callers" ? callers.data : s.view === "top" ? top.data : s.compare ? undefined : tree.data;
  const empty = s.view === "top" ? (s.compare ? diff.data?.count === 0 : top.data?.functions === 0)
    : graphic ? main.data !== undefined && !main.data.root.children?.length : false;
  const nothingBefore = s.compare && !(main.busy || diff.busy || callersBefore.busy) && (s.view === "callers" ? callersBefore.data?.total : (diff.data ?? diffTree.data)?.before)?.samples === 0;
  const unit = (s.compare ? diffTree.data?.type.unit : tree.data?.unit) ?? "nanoseconds";

  useEffect(() => {
    if (main.data || top.data || diff.data || callers.data || main.error) document.body.dataset.ready = "true";
  }, [main.data, main.error, top.data, diff.data, callers.data]);
  useKeys(files, () => setHelp(true));

  const [from, to] = selected(s) ? [s.from, s.to] : stripSpan(s);
  const seconds = isLive(s) ? 60 : (to - from) / 1000;
  const warnings = [...new Set([...(found?.warnings ?? []), ...(series.data?.warnings ?? [])])];
  const offline = status.error?.status === 0;

  // A small screen has the graph first, and what narrows it below.
  const narrowing = (
    <>
      {!files && <Strip s={s} small={small} series={series} list={labels} history={past} />}
      <Fold small={small} title="Filters and groups" test="fold-filters"><Chips s={s} labels={known} facet={facet} facets={facets} /></Fold>
    </>
  );
  const side = !files && <Fold small={small} title="What runs" test="fold-list"><Side s={s} series={list} processes={processes} labels={listed} seconds={found?.seconds || seconds} /></Fold>;

  return (
    <>
      <a class="skip" href="#view">Skip to the profile</a>
      <header class="masthead">
        <h1><a href="/" onClick={(e) => { if (e.ctrlKey || e.metaKey) return; e.preventDefault(); change({ ...initial, ...whole(files) }); }}>
          <img src="/static/flame.svg" alt="" width="22" height="22" />Pilotlight</a> <span>{files ? files.map((f) => printable(f.name)).join(" → ") : hostname}</span></h1>
        <QueryBox s={s} />
        <p class={`state ${offline || !agent.sampling ? "off" : "on"}`} role="status" title={`${agent.samples}\nup ${agent.uptime}\ncosts ${agent.cost}`}>
          {offline ? "no answer" : files ? "" : agent.sampling ? "sampling" : agent.state}
        </p>
        {moves(s) && !files && (
          <button type="button" class={`live ${s.paused ? "" : "on"}`} aria-pressed={!s.paused} title="P" onClick={() => change({ paused: !s.paused })}>{s.paused ? "Paused" : "Live"}</button>
        )}
        <TrustBadge parts={s.compare && s.view !== "callers" ? partsOfDifference(s.view === "tree" ? diffTree.data : diff.data) : partsOf(found, callersBefore.data)} />
        <Leave s={s} files={files !== undefined} />
        <button type="button" class="quiet" aria-label="Light or dark" title="Light or dark (T)" onClick={toggleTheme}>◐</button>
        <button type="button" class="quiet" aria-label="Keys and words" title="Keys and words (?)" onClick={() => setHelp(true)}>?</button>
      </header>
      <main>
        {!small && narrowing}
        {warnings.map((w) => <p key={w} class="warning" role="status">{printable(w)}</p>)}
        <div class={`work${files ? " alone" : ""}`}>
          {!small && side}
          <div class="panel stage" id="view" tabIndex={-1}>
            <div class="bar">
              <div class="tabs" role="tablist" aria-label="View">
                {views.map(([v, name], i) => (
                  <button key={v} type="button" role="tab" id={`tab-${v}`} data-test={`view-${v}`} aria-selected={s.view === v} aria-controls="view-panel" tabIndex={s.view === v ? 0 : -1}
                    title={String(i + 1)} onClick={() => change({ view: v, ...unsorted })}
                    onKeyDown={(e) => {
                      const d = e.key === "ArrowRight" ? 1 : e.key === "ArrowLeft" ? -1 : 0;
                      if (d === 0) return;
                      const next = views[(i + d + views.length) % views.length][0];
                      change({ view: next, ...unsorted }, "replace");
                      document.getElementById(`tab-${next}`)!.focus();
                    }}>{s.compare && v === "top" ? "Differences" : name}</button>
                ))}
              </div>
              <span class="spring" />
              <span class="hint about">{about(s, found, diff.data)}</span>
            </div>
            <div role="tabpanel" id="view-panel" aria-labelledby={`tab-${s.view}`}>
              {empty && !main.busy ? <Empty s={s} sampling={agent.sampling} whole={files && whole(files)} /> : nothingBefore && s.view !== "callers" ? <NothingBefore s={s} /> : (
                <>
                  {s.view === "flame" && (
                    <>
                      <Busy answer={main} />
                      {main.error && <Problem error={main.error} />}
                      {main.data && <Graph s={s} small={small} tree={main.data} unit={unit} of={of} keep={JSON.stringify([{ ...stack }, s.range, s.from, s.to, s.compare])} />}
                      {!main.error && <h2 class="sub">{s.compare ? "What changed most" : "Hottest functions"}</h2>}
                      {!main.error && (s.compare ? <DiffTable s={s} answer={diff} most={10} /> : <Top s={s} answer={top} most={10} />)}
                    </>
                  )}
                  {s.view === "top" && (s.compare ? <DiffTable s={s} answer={diff} /> : <Top s={s} answer={top} />)}
                  {s.view === "tree" && <Tree s={s} answer={main} />}
                  {nothingBefore && <NothingBefore s={s} />}
                  {s.view === "callers" && <Callers s={s} answer={callers} before={s.compare ? callersBefore : undefined} />}
                </>
              )}
            </div>
          </div>
        </div>
        {small && narrowing}
        {small && side}
      </main>
      <footer>
        <span>Pilotlight {agent.version}</span>
        {!files && <span>{agent.target}, {agent.event} at {agent.frequency} Hz</span>}
        {!files && <a href="/debug/pprof/">Collect a profile now</a>}
        {!files && <a href="/metrics">Metrics</a>}
        <a href="/api/v1/openapi.yaml">API</a>
      </footer>
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

// Boundary shows what went wrong in the page itself, and ways out of it: without it an error leaves a page that answers to nothing.
class Boundary extends Component<{ children: ComponentChildren }, { error?: Error }> {
  override state: { error?: Error } = {};

  override componentDidCatch(error: Error) {
    console.warn(error);
    document.body.dataset.ready = "true";
    this.setState({ error });
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <main>
        <div class="problem" role="alert" data-test="broken">
          <b>The page could not show this</b>
          <p>{printable(String(error.message))}</p>
          <p class="hint">The agent goes on sampling. Its tools are not concerned: pilotlight query, go tool pprof.</p>
          <p><button type="button" class="primary" onClick={() => location.reload()}>Try again</button>{" "}<a href="/">Start from now</a>{" "}<a href="/debug/pprof/">Download a profile</a></p>
        </div>
      </main>
    );
  }
}

function about(s: State, found: Found | undefined, diff: DiffAnswer | undefined): string {
  if (s.compare) return diff ? `${count(diff.before.samples)} samples before, ${count(diff.after.samples)} after` : "";
  return found ? `${count(found.total.samples)} samples${found.seconds > 0 ? ` in ${duration(found.seconds * 1000)}` : ""}` : ""; // files need not say how long they took
}

// withoutLabel is the filter without what chooses one value of a label: the others stay to be chosen.
function withoutLabel(s: State, label: string): string {
  const all = conditions(s);
  return all.some((c) => c.label === label && c.op === "=") ? formatFilter(all.filter((c) => c.label !== label || c.op !== "=")) : s.filter;
}

function toggleTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // a browser that keeps nothing shows it until the page is left
  }
  dispatchEvent(new Event("pilotlight-theme"));
}

function shift(s: State, direction: number): void {
  const [from, to] = selected(s) ? [s.from, s.to] : fixedRange(s.range) ?? stripSpan(s);
  const length = (to - from) * direction;
  if (selected(s)) change({ ...freeze(), from: from + length, to: to + length });
  else change({ range: `${new Date(from + length).toISOString()}/${new Date(to + length).toISOString()}` });
}

function useKeys(files: Status["files"], help: () => void): void {
  useEffect(() => {
    const listener = (e: KeyboardEvent) => {
      const s = state(); // as it is: a key may come before the last one is drawn
      if (e.ctrlKey || e.altKey || e.metaKey || document.querySelector("dialog[open]")) return;
      const typing = (e.target as HTMLElement).closest("input, select, textarea");
      if (typing) {
        if (e.key === "Escape") (e.target as HTMLElement).blur();
        return;
      }
      const focus = (selector: string) => document.querySelector<HTMLElement>(selector)?.focus();
      switch (e.key) {
        case "?": help(); break;
        case "/":
          if (s.view !== "flame") change({ view: "flame" });
          focusSearch();
          break;
        case "f": focus("[data-test=query]"); break;
        case "1": case "2": case "3": case "4": change({ view: views[Number(e.key) - 1][0], ...unsorted }); break;
        case "n": change({ beforeFrom: 0, beforeTo: 0, paused: false, ...whole(files) }); break;
        case "p": change({ paused: !s.paused }); break;
        case "[": shift(s, -1); break;
        case "]": shift(s, 1); break;
        case "c": toggleCompare(s); break;
        case "h": change({ heat: !s.heat }); break;
        case "i": change({ invert: !s.invert, zoom: [] }); break;
        case "r": change({ collapse: !s.collapse, zoom: [] }); break;
        case "t": toggleTheme(); break;
        case "e": document.querySelector<HTMLElement>("[data-test=leave]")?.click(); break;
        case "Escape":
          if (s.zoom.length > 0 || s.part) change({ zoom: [] });
          else if (s.sandwich) change({ sandwich: "" });
          else if (selected(s) || s.beforeTo > 0) change({ from: 0, to: 0, beforeFrom: 0, beforeTo: 0 });
          else if (s.search) change({ search: "" });
          else return;
          break;
        default: return;
      }
      e.preventDefault();
    };
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, [files]);
}

try {
  const theme = localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // as above
}
document.title = `Pilotlight · ${hostname}`;
// Of files all is shown, of two the difference.
if (begun.files && state().range === initial.range) change(whole(begun.files), "replace");
page.replaceChildren();
render(<Boundary><App /></Boundary>, page);
