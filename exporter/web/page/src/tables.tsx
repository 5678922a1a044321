// The tables: functions, the tree, and who calls whom. Each can be sorted, narrowed and copied.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Answer, CallersAnswer, Change as Changed, DiffAnswer, DiffTreeAnswer, Found, Neighbour, Node, Row, TopAnswer, TreeAnswer } from "./api.ts";
import { kindColor } from "./flame/color.ts";
import type { Weight } from "./flame/model.ts";
import type { Place } from "./flame/view.ts";
import { printable } from "./flame/text.ts";
import { amount, count, difference, part, percent, rate } from "./format.ts";
import { explain } from "./glossary.ts";
import { Busy, Copy, Problem, useHeld, useSmall, useSteady } from "./parts.tsx";
import { exactly } from "./query.ts";
import { change, unsorted, type State } from "./state.ts";

interface Column<T> {
  key: string;
  title: string;
  hint?: string;
  number?: boolean;
  lead?: boolean; // the number that is seen first on a small screen
  sort: (row: T) => number | string;
  text: (row: T) => string; // what is shown, and copied
  show?: (row: T) => ComponentChildren;
}

const page = 100;
const mostRows = 5000; // of a tree, that are open

// arranged are the columns with the number that leads, and the name, in sight on a small screen.
function arranged<T>(columns: Column<T>[], small: boolean): Column<T>[] {
  const rank = (c: Column<T>) => (c.lead ? 0 : c.key === "name" ? 1 : 2);
  return small ? [...columns].sort((a, b) => rank(a) - rank(b)) : columns;
}

// ordered is the order of rows by a column; undefined where there is no such column.
function ordered<T>(columns: Column<T>[], sort: string): ((a: T, b: T) => number) | undefined {
  const by = columns.find((c) => c.key === sort.replace(/^-/, ""))?.sort;
  const sign = sort.startsWith("-") ? -1 : 1;
  return by && ((a, b) => {
    const [x, y] = [by(a), by(b)];
    return (x < y ? -1 : x > y ? 1 : 0) * sign;
  });
}

function Head<T>({ columns, sort, setSort }: { columns: Column<T>[]; sort: string; setSort: (sort: string) => void }) {
  const descending = sort.startsWith("-");
  const key = sort.replace(/^-/, "");
  return (
    <thead>
      <tr>
        {columns.map((c) => (
          <th key={c.key} scope="col" class={c.number ? "number" : ""} aria-sort={c.key === key ? (descending ? "descending" : "ascending") : "none"}>
            <button type="button" title={c.hint} onClick={() => setSort(c.key === key ? (descending ? c.key : `-${c.key}`) : c.number ? `-${c.key}` : c.key)}>{c.title}</button>
          </th>
        ))}
      </tr>
    </thead>
  );
}

interface Finding { text: string; set: (text: string) => void }

// FindBar has what narrows a table, how many rows that leaves, and what copies them.
function FindBar({ find, left, text, label }: { find: Finding; left: string; text: () => string; label: string }) {
  return (
    <div class="bar narrowing">
      <input type="search" placeholder="Filter by function or module" aria-label="Filter by function or module" data-test="find" value={find.text} onInput={(e) => find.set(e.currentTarget.value)} />
      <span class="hint">{left}</span>
      <span class="spring" />
      <Copy text={text} label={label}>Copy table</Copy>
    </div>
  );
}

const matches = (r: { name: string; module?: string }, words: string) => `${r.name} ${r.module ?? ""}`.toLowerCase().includes(words);

function Table<T extends { name: string; module?: string }>({ rows, columns, sort, setSort, caption, test, find, all, dim, most, none }: {
  rows: T[]; columns: Column<T>[]; sort: string; setSort: (sort: string) => void; caption: string; test?: string; none?: string;
  find?: Finding; all?: number; dim?: (row: T) => boolean; most?: number;
}) {
  const pattern = find?.text ?? "";
  const [limit, setLimit] = useState(most ?? page);
  const small = useSmall();
  const sorted = useMemo(() => {
    const words = pattern.toLowerCase();
    const found = rows.filter((r) => matches(r, words));
    const order = ordered(columns, sort);
    return order ? found.sort(order) : found;
  }, [rows, pattern, sort]);
  const shown = arranged(columns, small);
  const steady = useSteady(sorted, (r) => `${r.name}\0${r.module ?? ""}`, sort + "\0" + pattern);
  const text = () => [columns.map((c) => c.title), ...steady.rows.map((r) => columns.map((c) => c.text(r)))].map((line) => line.join("\t")).join("\n");
  return (
    <div class="table">
      {find && (
        <FindBar find={find} text={text} label="Copy table as tab-separated text"
          left={count(sorted.length) + (all !== undefined && all > rows.length ? ` of the ${count(rows.length)} heaviest, of ${count(all)}` : all !== undefined ? ` of ${count(all)}` : "")} />
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
        <table data-test={test}>
          <caption class="sr">{caption}</caption>
          <Head columns={shown} sort={sort} setSort={setSort} />
          <tbody {...steady.holding}>
            {steady.rows.slice(0, limit).map((r) => (
              <tr key={`${r.name}\0${r.module ?? ""}`} data-function={r.name} class={dim?.(r) ? "dim" : ""}>
                {shown.map((c) => <td key={c.key} class={c.number ? "number" : c.key}>{c.show ? c.show(r) : c.text(r)}</td>)}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && none && <p class="hint">{none}</p>}
      {sorted.length > limit && !most && <button type="button" class="more" onClick={() => setLimit(limit + 5 * page)}>Show more</button>}
    </div>
  );
}

// finding narrows a table; what is typed is one entry in the history.
const finding = (s: State) => ({ text: s.find, set: (text: string) => change({ find: text }, s.find === "" ? "push" : "replace") });

export function callersOf(name: string): void {
  change({ view: "callers", function: name, find: "", ...unsorted });
}

// KindOf is the colour that the graph has by kind.
function KindOf({ kind, inlined }: { kind: string; inlined?: boolean }) {
  return <i class="kind" style={{ background: `var(--flame-${kindColor(kind, inlined === true)})` }} aria-hidden="true" />;
}

function Name({ name, kind, inlined }: { name: string; kind: string; inlined?: boolean }) {
  const text = explain(name, kind);
  return (
    <span class="function">
      <KindOf kind={kind} inlined={inlined} />
      <button type="button" class="link" title={text ?? "Callers and callees"} onClick={() => callersOf(name)}><code>{printable(name)}</code></button>
      {inlined && <small>inlined</small>}
    </span>
  );
}

function Bar({ part }: { part: number }) {
  return <i class="weight" style={{ transform: `scaleX(${Math.min(1, part)})` }} aria-hidden="true" />;
}

export function Top({ s, answer, most }: { s: State; answer: Answer<TopAnswer>; most?: number }) {
  const data = answer.data;
  const columns = useMemo((): Column<Row>[] => {
    if (!data) return [];
    const whole = data.total.value;
    const heaviest = Math.max(1, ...data.rows.map((r) => r.self.value));
    return [
      { key: "self", title: "Self", hint: "In the function itself", number: true, lead: true, sort: (r) => r.self.value, text: (r) => percent(r.self.value, whole), show: (r) => <><Bar part={r.self.value / heaviest} /><span>{percent(r.self.value, whole)}</span></> },
      { key: "total", title: "Total", hint: "In it, or in what it calls", number: true, sort: (r) => r.total.value, text: (r) => percent(r.total.value, whole) },
      ...(most ? [] : [
        { key: "value", title: "Self time", hint: "What was taken in the function itself", number: true, sort: (r: Row) => r.self.value, text: (r: Row) => amount(r.self.value, data.unit) },
        { key: "rate", title: "Per second", hint: "The same per second: of CPU time, CPUs", number: true, sort: (r: Row) => r.self.value, text: (r: Row) => rate(r.self.value, data.seconds, data.unit) },
      ]),
      { key: "samples", title: "Samples", hint: "Taken in the function itself", number: true, sort: (r) => r.self.samples, text: (r) => count(r.self.samples) },
      { key: "name", title: "Function", sort: (r) => r.name, text: (r) => printable(r.name), show: (r) => <Name name={r.name} kind={r.kind} /> },
      { key: "module", title: "Module", hint: "The executable or library", sort: (r) => r.module ?? "", text: (r) => printable(r.module ?? "") },
    ];
  }, [data, most]);
  return (
    <div class="view">
      <Busy answer={answer} />
      {answer.error && <Problem error={answer.error} />}
      {data && <Table rows={data.rows} columns={columns} all={data.functions} find={most ? undefined : finding(s)} most={most} sort={most ? "-self" : s.sort || "-self"} setSort={(sort) => change({ sort, ...(most ? { view: "top" } : {}) }, "replace")} caption="Functions" test="top-table" />}
    </div>
  );
}

function Change({ parts: [before, after], significant, scale, unit }: { parts: [number, number]; significant: boolean; scale: State["scale"]; unit: string }) {
  return (
    <span class={!significant ? "unsure" : after > before ? "more" : "less"}>
      {difference(before, after, scale, unit)}{!significant && <span title="May well be chance"> ~</span>}
    </span>
  );
}

// differing are the columns of what is compared: before, after, and the difference.
function differing<T>(parts: (row: T) => [number, number], significant: (row: T) => boolean, scale: State["scale"], unit: string): Column<T>[] {
  const of = (i: number) => ({ number: true, sort: (r: T) => parts(r)[i], text: (r: T) => part(parts(r)[i], scale, unit) });
  return [
    { key: "before", title: "Before", ...of(0) },
    { key: "after", title: "After", ...of(1) },
    {
      key: "change", title: "Difference", hint: "After less before; ~ may well be chance", number: true, lead: true, sort: (r) => Math.abs(parts(r)[1] - parts(r)[0]),
      text: (r) => difference(...parts(r), scale, unit) + (significant(r) ? "" : "~"),
      show: (r) => <Change parts={parts(r)} significant={significant(r)} scale={scale} unit={unit} />,
    },
  ];
}

export function DiffTable({ s, answer, most }: { s: State; answer: Answer<DiffAnswer>; most?: number }) {
  const data = answer.data;
  const { total } = s;
  const unit = data?.type.unit ?? "";
  const columns = useMemo((): Column<Changed>[] => {
    const side = (r: Changed) => (total ? r.total : r.self);
    return [
      ...differing<Changed>((r) => [side(r).beforePart, side(r).afterPart], (r) => side(r).significant, s.scale, unit),
      { key: "q", title: "Q", hint: "How likely chance alone makes such a difference, corrected for how many functions there are", number: true, sort: (r) => side(r).q, text: (r) => side(r).q.toPrecision(2) },
      { key: "samples", title: "Samples", hint: "Before → after", number: true, sort: (r) => side(r).after.samples, text: (r) => `${count(side(r).before.samples)} → ${count(side(r).after.samples)}` },
      { key: "name", title: "Function", sort: (r) => r.name, text: (r) => printable(r.name), show: (r) => <Name name={r.name} kind={r.kind} /> },
      { key: "module", title: "Module", sort: (r) => r.module ?? "", text: (r) => printable(r.module ?? "") },
    ];
  }, [s.scale, total, unit]);
  // Without another order it is that of the agent: those first that are no chance, and of those the largest.
  const rows = useMemo(() => (data && total ? [...data.functions].sort((a, b) => Number(b.total.significant) - Number(a.total.significant)
    || Math.abs(b.total.afterPart - b.total.beforePart) - Math.abs(a.total.afterPart - a.total.beforePart)) : data?.functions ?? []), [data, total]);
  return (
    <div class="view">
      <div class="bar">
        <div class="group" role="group" aria-label="Compare">
          <button type="button" aria-pressed={!total} onClick={() => change({ total: false }, "replace")}>Self</button>
          <button type="button" aria-pressed={total} onClick={() => change({ total: true }, "replace")}>Total</button>
        </div>
        <span class="hint">~ and grey: may well be chance. Of all others 5 % at most are expected to be.</span>
      </div>
      <Busy answer={answer} />
      {answer.error && <Problem error={answer.error} />}
      {data && <Table rows={rows} columns={columns} all={data.count} find={most ? undefined : finding(s)} most={most} sort={most ? "" : s.sort} setSort={(sort) => change({ sort, ...(most ? { view: "top" } : {}) }, "replace")} caption="Differences" test="diff-table"
        dim={(r) => !(total ? r.total : r.self).significant} />}
    </div>
  );
}

// between are the neighbours of both times, each with what it is in the other one. By what chance they differ is not known of them.
interface Both extends Neighbour { was?: Weight }

function between(before: Neighbour[], after: Neighbour[]): Both[] {
  const key = (n: Neighbour) => `${n.name}\0${n.module ?? ""}`;
  const was = new Map(before.map((n) => [key(n), n]));
  const both: Both[] = after.map((n) => ({ ...n, was: was.get(key(n))?.weight }));
  for (const n of after) was.delete(key(n));
  return [...both, ...[...was.values()].map((n) => ({ ...n, weight: { samples: 0, value: 0 }, was: n.weight }))];
}

export function Callers({ s, answer, before }: {
  s: State; answer: Answer<CallersAnswer>;
  before?: Answer<CallersAnswer>; // where two times are compared
}) {
  const [name, setName] = useState(s.function);
  useEffect(() => setName(s.function), [s.function]);
  const data = answer.data;
  const old = before?.data;
  const of = data?.of[0] ?? old?.of[0];
  const partIn = (w: Weight | undefined, f: Found) => (w ? w.value / ((s.scale === "time" ? f.seconds : f.total.value) || 1) : 0);
  const columns = (whole: number): Column<Both>[] => [
    ...(old ? differing<Both>((r) => [partIn(r.was, old), partIn(r.weight, data!)], () => true, s.scale, data!.unit) : [{ key: "weight", title: "Share", hint: "Of all samples", number: true, lead: true, sort: (r) => r.weight.value, text: (r) => percent(r.weight.value, whole), show: (r) => <><Bar part={r.weight.value / whole} /><span>{percent(r.weight.value, whole)}</span></> } satisfies Column<Both>]),
    { key: "samples", title: "Samples", number: true, sort: (r) => r.weight.samples, text: (r) => (old ? `${count(r.was?.samples ?? 0)} → ` : "") + count(r.weight.samples) },
    { key: "name", title: "Function", sort: (r) => r.name, text: (r) => printable(r.name), show: (r) => (r.name ? <Name name={r.name} kind={r.kind} /> : <em>(the stack begins here)</em>) },
    { key: "module", title: "Module", sort: (r) => r.module ?? "", text: (r) => printable(r.module ?? "") },
  ];
  return (
    <div class="view callers">
      <form class="bar" onSubmit={(e) => { e.preventDefault(); change({ function: name }); }}>
        <input type="search" class="long" aria-label="Function, by its whole name" placeholder="The whole name of a function" value={name} onInput={(e) => setName(e.currentTarget.value)} />
        <button type="submit" class="primary">Show</button>
        {s.function && <button type="button" onClick={() => change({ focus: exactly(s.function), zoom: [], view: "flame" })}>Focus</button>}
        {s.function && <button type="button" onClick={() => change({ ignore: exactly(s.function), zoom: [], view: "flame" })}>Ignore</button>}
      </form>
      <Busy answer={before?.busy ? before : answer} />
      {(answer.error ?? before?.error) && <Problem error={(answer.error ?? before?.error)!} />}
      {!s.function && <div class="empty"><b>No function is chosen</b><p>Give a name here, or choose one in the graph or in a table.</p></div>}
      {s.function && data && (!before || old) && !of && <div class="empty"><b>It took no samples</b><p>No function of this name was sampled in this time.</p></div>}
      {s.function && data && (!before || old) && of && (
        <>
          <div class="of">
            <h3><code>{printable(of.name)}</code></h3>
            {explain(of.name, of.kind) && <p>{explain(of.name, of.kind)}</p>}
            {[...(old ? [["Before", old] as const] : []), [old ? "After" : "", data] as const].map(([time, d]) => d.of.map((r) => (
              <dl key={time + r.module}>
                {time && <><dt>{time}</dt><dd>{count(d.total.samples)} samples in all</dd></>}
                <dt>Self</dt><dd>{percent(r.self.value, d.total.value)} ({amount(r.self.value, d.unit)}, {count(r.self.samples)} samples)</dd>
                <dt>Total</dt><dd>{percent(r.total.value, d.total.value)} ({amount(r.total.value, d.unit)}, {count(r.total.samples)} samples)</dd>
                {r.module && <><dt>Module</dt><dd>{printable(r.module)}</dd></>}
              </dl>
            )))}
            <dl>{data.places.slice(0, 4).map((p, i) => <PlaceOf key={i} place={p} />)}</dl>
          </div>
          <div class="two">
            <section><h3>Callers</h3><Table rows={between(old?.callers ?? [], data.callers)} columns={columns(data.total.value)} sort={s.sort} setSort={(sort) => change({ sort }, "replace")} caption="Callers" test="callers-table" find={finding(s)} none="None: stacks begin here." /></section>
            <section><h3>Callees</h3><Table rows={between(old?.callees ?? [], data.callees)} columns={columns(data.total.value)} sort={s.sortCallees} setSort={(sortCallees) => change({ sortCallees }, "replace")} caption="Callees" test="callees-table" find={finding(s)} none="None was seen." /></section>
          </div>
        </>
      )}
    </div>
  );
}

function PlaceOf({ place }: { place: Place }) {
  const lines = [...place.lines].sort((a, b) => b.self.samples - a.self.samples).slice(0, 5);
  return (
    <>
      {place.file && <><dt>Source</dt><dd>{printable(place.file)}{place.startLine ? `:${place.startLine}` : ""}{lines.length > 0 && <span class="hint"> hottest lines: {lines.map((l) => l.line).join(", ")}</span>}</dd></>}
      {place.path && <><dt>File</dt><dd>{printable(place.path)}</dd></>}
      {place.buildId && <><dt>Build id</dt><dd><code>{printable(place.buildId)}</code></dd></>}
    </>
  );
}

// Tree is the graph as a table, for those who read rather than look: a row for each node, opened and closed like folders.
export function Tree({ s, answer }: { s: State; answer: Answer<TreeAnswer | DiffTreeAnswer> }) {
  // A row that comes or goes moves all below it, and another path that is the heaviest opens other rows: the tree waits while it is looked at.
  const { value: data, late, holding } = useHeld(answer.data, answer.url ?? "");
  const compared = data && "before" in data ? data : undefined; // two times
  const root = data?.root;
  const unit = data && "unit" in data ? data.unit : compared?.type.unit ?? "nanoseconds";
  const [chosen, setChosen] = useState<Map<string, boolean>>(new Map()); // what the reader opened or closed
  const [active, setActive] = useState("");
  const [limit, setLimit] = useState(page);
  const small = useSmall();
  const body = useRef<HTMLTableSectionElement>(null);
  const whole = root?.total.value ?? 0;
  const columns = useMemo((): Column<Node>[] => [
    ...(compared ? differing<Node>((n) => {
      const of = (w: Weight | undefined, side: DiffTreeAnswer["before"]) => (w?.value ?? 0) / ((s.scale === "time" ? side.duration / 1e9 : side.value) || 1);
      return [of(n.totalBefore, compared.before), of(n.total, compared.after)];
    }, (n) => n.significant === true, s.scale, unit) : [
      { key: "total", title: "Total", hint: "In it, or in what it calls", number: true, lead: true, sort: (n: Node) => n.total.value, text: (n: Node) => percent(n.total.value, whole), show: (n: Node) => <><Bar part={n.total.value / whole} /><span title={amount(n.total.value, unit)}>{percent(n.total.value, whole)}</span></> },
      { key: "self", title: "Self", hint: "In the function itself", number: true, sort: (n: Node) => n.self.value, text: (n: Node) => (n.self.value ? percent(n.self.value, whole) : ""), show: (n: Node) => n.self.value > 0 && <span title={amount(n.self.value, unit)}>{percent(n.self.value, whole)}</span> },
    ]),
    { key: "samples", title: "Samples", number: true, sort: (n) => n.total.samples, text: (n) => (compared ? `${count(n.totalBefore?.samples ?? 0)} → ` : "") + count(n.total.samples) },
    { key: "name", title: "Function", sort: (n) => n.name, text: (n) => printable(n.name) },
    { key: "module", title: "Module", sort: (n) => n.module ?? "", text: (n) => printable(n.module ?? "") },
  ], [compared, s.scale, unit, whole]);
  const find = finding(s);
  const words = find.text.toLowerCase();
  // While it is narrowed: the nodes that match, and those on the way to them.
  const found = useMemo(() => {
    if (words === "" || !root) return null;
    const on = new Set<Node>(), hits = new Set<Node>();
    const look = (n: Node): boolean => {
      if (matches(n, words)) hits.add(n);
      let inside = false;
      for (const c of n.children ?? []) inside = look(c) || inside;
      if (inside || hits.has(n)) on.add(n);
      return on.has(n);
    };
    for (const c of root.children ?? []) look(c);
    return { on, hits };
  }, [root, words]);
  const sort = s.sort || (compared ? "" : "-total"); // without another order it is that of the agent
  const open = useMemo(() => {
    const out: { node: Node; key: string; depth: number; inner: boolean; open: boolean }[] = [];
    const order = ordered(columns, sort);
    const below = (n: Node) => (n.children ?? []).filter((c) => !found || found.on.has(c));
    const walk = (n: Node, key: string, depth: number) => {
      const children = below(n);
      for (const c of order ? children.sort(order) : children) {
        if (out.length >= mostRows) return;
        const k = `${key}\0${c.name}\0${c.module ?? ""}`;
        const inner = below(c).length > 0;
        // The heaviest path is open, or all that leads to what is looked for, where the reader did not choose.
        const open = chosen.get(words + k) ?? (found ? inner : c === n.children![0] && (depth === 0 || c.total.value * 2 >= n.total.value) && depth < 12);
        out.push({ node: c, key: k, depth, inner, open });
        if (open) walk(c, k, depth + 1);
      }
    };
    if (root) walk(root, "", 0);
    return out;
  }, [root, chosen, columns, sort, found]);
  const rows = open.slice(0, limit);
  const toggle = (key: string, open: boolean) => setChosen(new Map(chosen).set(words + key, !open)); // of what is narrowed it is another choice
  const focus = (i: number) => {
    const row = rows[Math.max(0, Math.min(rows.length - 1, i))];
    if (!row) return;
    setActive(row.key);
    (body.current!.children[rows.indexOf(row)] as HTMLElement).focus();
  };
  const key = (e: KeyboardEvent, i: number) => {
    const { node, depth, inner, open } = rows[i];
    switch (e.key) {
      case "ArrowDown": focus(i + 1); break;
      case "ArrowUp": focus(i - 1); break;
      case "Home": focus(0); break;
      case "End": focus(rows.length - 1); break;
      case "ArrowRight": if (inner && !open) toggle(rows[i].key, open); else focus(i + 1); break;
      case "ArrowLeft":
        if (inner && open) toggle(rows[i].key, open);
        else focus(rows.slice(0, i).map((r) => r.depth < depth).lastIndexOf(true));
        break;
      case "Enter": callersOf(node.name); break;
      default: return;
    }
    e.preventDefault();
    e.stopPropagation();
  };
  const text = () => [columns.map((c) => c.title), ...open.map(({ node, depth }) => columns.map((c) => (c.key === "name" ? "  ".repeat(depth) : "") + c.text(node)))]
    .map((line) => line.join("\t")).join("\n");
  const shown = arranged(columns, small);
  const first = rows.some((r) => r.key === active) ? active : rows[0]?.key;
  return (
    <div class="view">
      <Busy answer={answer} />
      {answer.error && <Problem error={answer.error} />}
      <p class="hint line">{late ? "A newer tree is shown when the mouse and the focus leave this one." : "Arrow keys walk and open; Enter shows the callers and callees."}</p>
      <FindBar find={find} left={found ? `${count(found.hits.size)} found` : ""} text={text} label="Copy table: the open rows, as tab-separated text" />
      <div class="scroll">
        <table role="treegrid" aria-label="Call tree" class="tree" data-test="tree-table">
          <Head columns={shown} sort={sort} setSort={(sort) => change({ sort }, "replace")} />
          <tbody ref={body} {...holding}>
            {rows.map(({ node, key: k, depth, inner, open }, i) => (
              <tr key={k} data-function={node.name} class={found && !found.hits.has(node) ? "dim" : ""} aria-level={depth + 1} aria-expanded={inner ? open : undefined} tabIndex={k === first ? 0 : -1}
                onKeyDown={(e) => key(e, i)} onFocus={() => setActive(k)}>
                {shown.map((c) => (c.key !== "name" ? <td key={c.key} class={c.number ? "number" : c.key}>{c.show ? c.show(node) : c.text(node)}</td> : (
                  <td key={c.key} class="name" style={{ paddingLeft: `${8 + Math.min(depth, 40) * 14}px` }}>
                    <button type="button" class={`twist${inner ? "" : " none"}`} tabIndex={-1} aria-hidden="true" onClick={() => toggle(k, open)}>{open ? "▾" : "▸"}</button>
                    <KindOf kind={node.kind} inlined={node.inlined} />
                    <code>{printable(node.name)}</code>{node.inlined && <small> inlined</small>}
                  </td>
                )))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {root && rows.length === 0 && found && <p class="hint">Nothing matches.</p>}
      {open.length > limit ? <button type="button" class="more" onClick={() => setLimit(limit + 5 * page)}>Show more</button>
        : open.length === mostRows && <p class="hint">These are the first {count(mostRows)} open rows.</p>}
    </div>
  );
}
