// What the page shows is all in its address: a copied link shows the same, and Back goes back.

import { useEffect, useState } from "preact/hooks";
import { parseFilter, spanLabels } from "./query.ts";

export type View = "flame" | "top" | "tree" | "callers";
export type Color = "kind" | "module" | "diff";

export interface State {
  // What the strip shows: now (the last 15 minutes, and the rest of the page the last one, live), 15m, 1h, 24h, or FROM/TO.
  range: string;
  // What is selected in it, in milliseconds; all of it where they are 0.
  from: number;
  to: number;
  compare: boolean;
  beforeFrom: number; // 0: as long as the time that is compared, and just before it
  beforeTo: number;
  scale: "share" | "time";

  type: string;
  filter: string;
  by: string;
  focus: string;
  ignore: string;
  hide: string;

  view: View;
  function: string; // whose callers and callees are shown
  stack: string; // the label that the strip is stacked by
  heat: boolean;
  list: string; // the label of the list beside the graph
  findList: string; // a part of the names that the list shows
  chips: string; // the label whose values are there to choose from
  paused: boolean; // what moves with the time is held still
  color: Color;
  invert: boolean;
  collapse: boolean;
  search: string;
  zoom: string[]; // names from the root
  part: string; // the part of the graph's width that is seen, where it is not what was zoomed to: from,size
  row: string; // its first row in sight, where that is not the one that a zoom begins with
  sandwich: string; // the function that the graph shows the callers and callees of
  sort: string; // column of the table, with - before it where it descends
  sortCallees: string; // of the second table of callers
  find: string; // a part of the functions or modules that the table shows
  total: boolean; // the table of differences is about totals, not about self
}

export const initial: State = {
  range: "now", from: 0, to: 0, compare: false, beforeFrom: 0, beforeTo: 0, scale: "share",
  type: "", filter: "", by: "", focus: "", ignore: "", hide: "",
  view: "flame", function: "", stack: "comm", heat: false, list: "pid", findList: "", chips: "comm", paused: false,
  color: "kind", invert: false, collapse: false, search: "", zoom: [], part: "", row: "", sandwich: "", sort: "", sortCallees: "", find: "", total: false,
};

// unsorted is for another view, whose columns are others.
export const unsorted: Partial<State> = { sort: "", sortCallees: "" };

const unmoved: Partial<State> = { part: "", row: "" };
// reshapes are what makes another graph of it: where the old one was moved to means nothing there.
const reshapes: (keyof State)[] = ["zoom", "range", "from", "to", "compare", "beforeFrom", "beforeTo", "filter", "by", "focus", "ignore", "hide", "invert", "collapse", "sandwich"];

// The names in the address are those of the API where there is one.
const names: Record<keyof State, string> = {
  range: "range", from: "from", to: "to", compare: "compare", beforeFrom: "before_from", beforeTo: "before_to", scale: "scale",
  type: "type", filter: "filter", by: "by", focus: "focus", ignore: "ignore", hide: "hide",
  view: "view", function: "function", stack: "stack", heat: "heat", list: "list", findList: "find_list", chips: "chips", paused: "paused",
  color: "color", invert: "invert", collapse: "collapse", search: "search", zoom: "zoom", part: "part", row: "row", sandwich: "sandwich", sort: "sort", sortCallees: "sort_callees",
  find: "find", total: "total",
};

const oneOf: Partial<Record<keyof State, string[]>> = {
  view: ["flame", "top", "tree", "callers"],
  color: ["kind", "module", "diff"],
  scale: ["share", "time"],
};

export const isTime = (key: string) => key === "from" || key === "to" || key === "beforeFrom" || key === "beforeTo";

export function iso(ms: number): string {
  return new Date(ms).toISOString().replace(".000", "");
}

export function parseState(search: string): State {
  const params = new URLSearchParams(search);
  const state: State = { ...initial };
  for (const key of Object.keys(names) as (keyof State)[]) {
    const text = params.get(names[key]);
    if (text === null) continue;
    const first = initial[key];
    let value: unknown = text;
    if (isTime(key)) value = Date.parse(text) || 0;
    else if (typeof first === "boolean") value = text === "true";
    else if (key === "zoom") value = params.getAll("zoom");
    else if (oneOf[key] && !oneOf[key].includes(text)) continue;
    (state as unknown as Record<string, unknown>)[key] = value;
  }
  if (!rangeSeconds(state.range) && !fixedRange(state.range)) state.range = initial.range;
  if (!(state.from < state.to)) state.from = state.to = 0;
  if (!(state.beforeFrom < state.beforeTo)) state.beforeFrom = state.beforeTo = 0;
  return state;
}

export function formatState(state: State): string {
  const params = new URLSearchParams();
  for (const key of Object.keys(names) as (keyof State)[]) {
    const value = state[key];
    if (Array.isArray(value)) value.forEach((v) => params.append(names[key], v));
    else if (value !== initial[key]) params.set(names[key], isTime(key) ? iso(value as number) : String(value));
  }
  const text = params.toString();
  return text === "" ? "" : "?" + text;
}

export const ranges: Record<string, number> = { now: 15 * 60, "15m": 15 * 60, "1h": 3600, "24h": 86400 };

// rangeSeconds is how far a range that moves with the time goes back; 0 for one that does not.
export function rangeSeconds(range: string): number {
  return Object.hasOwn(ranges, range) ? ranges[range] : 0;
}

export function fixedRange(range: string): [number, number] | null {
  const [from, to] = range.split("/").map((t) => Date.parse(t));
  return from < to ? [from, to] : null;
}

// whole is the time that the page shows first: now, or all that files hold, for pilotlight web, and the difference where there are two.
export function whole(files?: { from: string; to: string }[]): Partial<State> {
  if (!files?.length) return { range: initial.range, from: 0, to: 0 };
  const [before, after] = [files[0], files[files.length - 1]];
  const time = { range: `${after.from}/${after.to}`, from: 0, to: 0 };
  if (files.length === 1) return time;
  return { ...time, compare: true, color: "diff", beforeFrom: Date.parse(before.from), beforeTo: Date.parse(before.to) };
}

// stripSpan is what the strip shows.
export function stripSpan(state: State, now = Date.now()): [number, number] {
  return fixedRange(state.range) ?? [now - rangeSeconds(state.range) * 1000, now];
}

export const selected = (state: State) => state.to > 0;
// isLive says that the last minute is shown, as it goes on.
export const isLive = (state: State) => state.range === "now" && !selected(state);
// ofSpans says that what is shown is about traces or spans, which are known of the last minute and of files alone.
export function ofSpans(state: State): boolean {
  if (spanLabels.includes(state.by)) return true;
  try {
    return parseFilter(state.filter).some((c) => spanLabels.includes(c.label));
  } catch {
    return false; // the agent says what is wrong with it
  }
}
// moves says that what is shown changes with the time.
export const moves = (state: State) => !selected(state) && rangeSeconds(state.range) > 0;

let current = parseState(location.search);
const listeners = new Set<() => void>();

export const state = () => current;

function show(next: State): void {
  current = next;
  for (const listener of listeners) listener();
}

// change goes to another view. What is typed or dragged along replaces the entry in the history. Where the graph was moved to ends with another zoom.
export function change(patch: Partial<State>, how: "push" | "replace" = "push"): void {
  const next = { ...current, ...(reshapes.some((key) => key in patch && patch[key] !== current[key]) && unmoved), ...patch };
  const address = location.pathname + formatState(next);
  if (address !== location.pathname + location.search) history[how === "push" ? "pushState" : "replaceState"](null, "", address);
  show(next);
}

addEventListener("popstate", () => show(parseState(location.search)));

export function toggleCompare(s: State): void {
  change(s.compare
    ? { compare: false, beforeFrom: 0, beforeTo: 0, color: s.color === "diff" ? "kind" : s.color, ...unsorted }
    : { compare: true, color: "diff", ...unsorted });
}

// freeze makes a range that moves with the time one that stays, so that what is selected in it stays visible.
export function freeze(): Partial<State> {
  if (rangeSeconds(current.range) === 0) return {};
  const [from, to] = stripSpan(current);
  return { range: `${iso(from)}/${iso(to)}` };
}

export function useAppState(): State {
  const [value, set] = useState(current);
  useEffect(() => {
    const listener = () => set(current);
    listeners.add(listener);
    listener();
    return () => void listeners.delete(listener);
  }, []);
  return value;
}

// shift moves a time within others, to whole seconds; both ends stop where one comes to an end of these, or it would become shorter.
export function shift([from, to]: [number, number], by: number, [first, last]: [number, number]): [number, number] {
  const low = Math.floor(first / 1000) * 1000, high = Math.ceil(last / 1000) * 1000;
  const d = by < 0 ? Math.max(by, Math.min(0, low - from)) : Math.min(by, Math.max(0, high - to));
  return [from + d, to + d];
}
