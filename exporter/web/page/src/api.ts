// What the agent is asked, and how: two queries at a time, which is what it answers at once, those first that are looked at first.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Weight } from "./flame/model.ts";
import type { Place } from "./flame/view.ts";
import { fixedRange, iso, isLive, ofSpans, rangeSeconds, selected, type State } from "./state.ts";

export interface Trust {
  stacks: number;
  whole: number | null; // null: a file of another program does not tell
  frames: number;
  named: number;
  reasons: Record<string, number>;
}

export interface Found {
  query: string;
  warnings: string[];
  start: string;
  seconds: number;
  type: string;
  unit: string;
  period: number;
  lost: Record<string, number>;
  total: Weight;
  trust?: Trust;
}

export interface Node {
  name: string;
  module?: string;
  kind: string;
  inlined?: boolean;
  self: Weight;
  total: Weight;
  selfBefore?: Weight;
  totalBefore?: Weight;
  significant?: boolean;
  children?: Node[];
}

export interface TreeAnswer extends Found {
  root: Node;
  nodes: number;
  omitted: number;
}

export interface DiffTreeAnswer extends Omit<DiffAnswer, "functions"> {
  factor: number;
  root: Node;
  nodes: number;
  omitted: number;
}

export interface Row {
  name: string;
  module?: string;
  kind: string;
  self: Weight;
  total: Weight;
}

export interface TopAnswer extends Found {
  functions: number;
  rows: Row[];
}

export interface Comparison {
  before: Weight;
  after: Weight;
  beforePart: number;
  afterPart: number;
  p: number;
  q: number;
  significant: boolean;
}

export interface Change {
  name: string;
  module?: string;
  kind: string;
  self: Comparison;
  total: Comparison;
}

export interface DiffAnswer {
  query: string;
  before_query: string;
  warnings: string[];
  count: number;
  type: { name: string; unit: string };
  trust: Trust;
  lost: Record<string, number>;
  before_trust: Trust;
  before_lost: Record<string, number>;
  scale: "share" | "time";
  before: Weight & { duration: number }; // nanoseconds
  after: Weight & { duration: number };
  functions: Change[];
}

export interface Neighbour {
  name: string;
  module?: string;
  kind: string;
  weight: Weight;
}

export interface CallersAnswer extends Found {
  of: Row[];
  places: Place[];
  callers: Neighbour[];
  callees: Neighbour[];
}

export interface Line {
  label: string;
  others?: boolean;
  samples: number[];
  values?: number[];
}

export interface SeriesAnswer {
  query: string;
  warnings: string[];
  type: string;
  unit: string;
  start: string;
  step: number;
  steps: number;
  lines: Line[];
}

export interface LabelsAnswer {
  by: string;
  count: number;
  values: { label: string; weight: Weight }[];
}

export interface Process {
  pid: number;
  comm: string;
  exe: string;
  container_id: string;
  cgroup: string;
  weight: Weight;
}

export interface ProcessesAnswer {
  count: number;
  processes: Process[];
}

export interface Reason {
  reason: string;
  title: string;
  loses: "sample" | "stack" | "name";
  meaning: string;
  remedy: string;
}

export interface Status {
  sampling: boolean;
  state: string;
  uptime: string;
  samples: string;
  cost: string;
  version: string;
  hostname: string;
  target: string;
  event: string;
  frequency: number;
  history: boolean;
  files?: { name: string; from: string; to: string }[];
}

// Failure is why there is no answer. Status 0: the agent could not be reached.
export class Failure extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

// Queries that wait for their turn get it in the order of their ranks.
export const ranks = { status: -1, graph: 0, table: 1, strip: 2, list: 3, sparks: 4, places: 5, facets: 6, detail: 7 };

// What reads stacks takes the agent's cores for long: two at once would both be late, and beside one of them there is room for what is answered soon.
const long = new Set([ranks.graph, ranks.table, ranks.detail]);
const atOnce = 2;
// The graph is what the reader waits for. Until it is drawn, or has taken this long, nothing is asked for beside it, which the same cores would have to answer.
export const alone = 1500; // milliseconds
let running = 0;
let reading = false; // a long one runs
let quiet: ReturnType<typeof setTimeout> | undefined; // while a graph is alone
const waiting: { rank: number; start: () => void }[] = [];

function next(): void {
  waiting.sort((a, b) => a.rank - b.rank); // stable: those of one rank in their order
  for (let i = 0; i < waiting.length && running < atOnce && !quiet;) {
    const { rank, start } = waiting[i];
    if (long.has(rank) && reading) {
      i++;
      continue;
    }
    waiting.splice(i, 1);
    running++;
    reading ||= long.has(rank);
    if (rank === ranks.graph) quiet = setTimeout(endQuiet, alone);
    start();
  }
}

function endQuiet(): void {
  clearTimeout(quiet);
  quiet = undefined;
  next();
}

// endQuietWhenDrawn waits until the graph that has just come is on the screen. Where nothing is drawn, it does not.
function endQuietWhenDrawn(): void {
  if (typeof requestAnimationFrame !== "function" || document.hidden) return endQuiet();
  const mine = quiet;
  requestAnimationFrame(() => setTimeout(() => {
    if (quiet === mine) endQuiet(); // it may be another graph's by now
  }));
}

async function turn(rank: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const entry = { rank, start: () => { signal.removeEventListener("abort", leave); resolve(); } };
    const leave = () => {
      waiting.splice(waiting.indexOf(entry), 1);
      reject(signal.reason);
    };
    waiting.push(entry);
    signal.addEventListener("abort", leave, { once: true });
    next();
  });
}

// ask answers with JSON, and says when it is this query's turn. Where the agent is busy with others' queries it asks again.
export async function ask<T>(url: string, rank: number, signal: AbortSignal, begins = () => {}): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    await turn(rank, signal);
    begins();
    let answer: Response;
    let data: T | undefined;
    try {
      answer = await fetch(url, { signal });
      if (answer.ok) return data = (await answer.json()) as T;
      const text = (await answer.text()).trim();
      if (answer.status === 401) location.reload(); // it asks for the token
      if (answer.status !== 429 || attempt === 5) throw new Failure(answer.status, text);
    } catch (e) {
      if (e instanceof Failure || signal.aborted) throw e;
      throw new Failure(0, "the agent does not answer: is it still running?");
    } finally {
      running--;
      if (long.has(rank)) reading = false;
      if (rank === ranks.graph) data === undefined ? endQuiet() : endQuietWhenDrawn();
      next();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

export interface Answer<T> {
  data?: T; // of the last answer; it may be one to what was asked before
  url?: string; // what data answers
  error?: Failure;
  busy: boolean; // an answer is under way that somebody waits for
  since: number; // when it was asked for; 0: others are asked for before it
}

let awaited = 0; // queries that somebody waits for; those that only bring up to date do not count

function await_(by: number): void {
  awaited += by;
  document.body.dataset.busy = String(awaited > 0);
}

// question is what is asked, apart from how much of the answer is wanted.
const question = (url: string | null | undefined) => url?.replace(/&limit=\d+$/, "");

const retryAfter = 10000; // milliseconds, where the agent did not answer or was busy
const longestRetry = 300000; // of a query that took too long: each attempt costs the agent all that it gives a query

// useQuery keeps the answer to a query, asks again each so many milliseconds where that is not 0, and gives up what is no
// longer wanted. Until the new answer is there, the old one stays; where there is none,
// only one to the same question does.
export function useQuery<T>(url: string | null, rank: number, every = 0): Answer<T> {
  const [answer, set] = useState<Answer<T>>({ busy: url !== null, since: 0 });
  const period = useRef(every);
  period.current = every;
  const schedule = useRef(() => {});
  useLayoutEffect(() => { // before anything is drawn: the agent can work meanwhile
    if (url === null) {
      set({ busy: false, since: 0 });
      return;
    }
    const control = new AbortController();
    let timer = 0;
    let last = 0; // when it was answered
    let asking = true;
    let retry = 0; // milliseconds; 0: not failed in a way that may be over
    let tooLong = 0; // times in a row
    let foreground = true;
    const settle = () => {
      if (foreground) await_(-1);
      foreground = false;
    };
    schedule.current = () => {
      clearTimeout(timer);
      if (asking) return;
      const wait = retry || period.current;
      if (wait > 0) timer = window.setTimeout(run, Math.max(0, last + wait - Date.now()));
    };
    const run = async () => {
      if (!document.hidden || foreground) {
        asking = true;
        try {
          const data = await ask<T>(url, rank, control.signal, () => {
            if (foreground) set((last) => ({ ...last, since: Date.now() }));
          });
          retry = tooLong = 0;
          set({ data, url, busy: false, since: 0 });
        } catch (e) {
          if (control.signal.aborted) return;
          const error = e as Failure;
          tooLong = error.status === 503 ? tooLong + 1 : 0;
          retry = error.status === 503 ? Math.min(longestRetry, retryAfter * 2 ** (tooLong - 1))
            : error.status === 0 || error.status === 429 ? Math.min(period.current || retryAfter, retryAfter) : 0;
          // An answer to another question would look like that to this one.
          set(({ data, url: of }) => ({ ...(question(of) === question(url) && { data, url: of }), error, busy: false, since: 0 }));
        } finally {
          settle();
        }
        asking = false;
      }
      last = Date.now();
      schedule.current();
    };
    await_(1);
    set((last) => ({ data: last.data, url: last.url, busy: true, since: 0 }));
    void run();
    return () => {
      control.abort(new DOMException("no longer wanted", "AbortError"));
      clearTimeout(timer);
      schedule.current = () => {};
      settle();
    };
  }, [url]);
  useEffect(() => schedule.current(), [every]);
  return answer;
}

export type Params = Record<string, string | number | undefined>;

export function address(path: string, params: Params): string {
  const p = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== "") p.set(name, String(value));
  const text = p.toString();
  return path + (text === "" ? "" : "?" + text);
}

// The times of a view, for the API. pinned gives absolute ones, which mean the same tomorrow; but of spans, which only the memory knows.
export function timeParams(s: State, pinned = false): Params {
  if (selected(s)) return { from: iso(s.from), to: iso(s.to) };
  const fixed = fixedRange(s.range);
  if (fixed) return { from: iso(fixed[0]), to: iso(fixed[1]) };
  if (isLive(s) && (!pinned || ofSpans(s))) return s.compare ? { from: "-60s" } : { live: "true" };
  const seconds = isLive(s) ? 60 : rangeSeconds(s.range);
  if (!pinned) return { from: `-${seconds}s` };
  const now = Math.floor(Date.now() / 1000) * 1000;
  return { from: iso(now - seconds * 1000), to: iso(now) };
}

export function stripParams(s: State): Params {
  const fixed = fixedRange(s.range);
  return fixed ? { from: iso(fixed[0]), to: iso(fixed[1]) } : { from: `-${rangeSeconds(s.range)}s` };
}

export function beforeParams(s: State): Params {
  return s.beforeTo > 0 ? { before_from: iso(s.beforeFrom), before_to: iso(s.beforeTo) } : {};
}

export function stackParams(s: State): Params {
  return { type: s.type, filter: s.filter, by: s.by, focus: s.focus, ignore: s.ignore, hide: s.hide };
}

// beforeTimes are those that a comparison is with; the agent takes the same where they are not given.
export function beforeTimes(s: State, pinned = false): Params {
  if (s.beforeTo > 0) return { from: iso(s.beforeFrom), to: iso(s.beforeTo) };
  const { from, to } = timeParams(s, pinned);
  if (to === undefined) return { from: `-${2 * -parseInt(String(from))}s`, to: from };
  const [begin, end] = [Date.parse(String(from)), Date.parse(String(to))];
  return { from: iso(2 * begin - end), to: iso(begin) };
}

// refreshEvery is how often what moves with the time is asked for again, in milliseconds.
export function refreshEvery(s: State): number {
  if (s.paused || selected(s) || rangeSeconds(s.range) === 0) return 0;
  return isLive(s) ? 5000 : rangeSeconds(s.range) > 3600 ? 300000 : 20000;
}
