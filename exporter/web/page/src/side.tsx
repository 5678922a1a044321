// The list beside the graph: who takes CPU in the time that is shown, with a line of how much over all that the strip shows.

import { useMemo } from "preact/hooks";
import type { Answer, LabelsAnswer, Line, ProcessesAnswer, SeriesAnswer } from "./api.ts";
import { printable } from "./flame/text.ts";
import { rate, rateUnit } from "./format.ts";
import { addCondition, Busy, conditions, labelText, Problem, removeCondition, useSteady } from "./parts.tsx";
import { change, type State } from "./state.ts";

const lists = ["pid", "comm", "container_id"];
const plural: Record<string, string> = { pid: "Processes", comm: "Programs", container_id: "Containers" };

interface Entry {
  label: string; // what is filtered by
  value: string;
  name: string;
  small: string;
  detail: string;
  weight: number;
}

function entriesOf(list: string, processes: ProcessesAnswer | undefined, labels: LabelsAnswer | undefined): Entry[] {
  if (list === "pid") {
    const byPid = new Map<number, Entry>(); // one that became another program is several rows, the heaviest first
    for (const p of processes?.processes ?? []) {
      const entry = byPid.get(p.pid);
      if (entry) entry.weight += p.weight.value;
      else {
        byPid.set(p.pid, {
          label: "pid", value: String(p.pid), name: p.comm, small: String(p.pid), weight: p.weight.value,
          detail: [p.exe, p.container_id && `container ${p.container_id}`, p.cgroup].filter(Boolean).map(printable).join("\n"),
        });
      }
    }
    return withCrowds([...byPid.values()]);
  }
  if (labels?.by !== list) return [];
  return labels.values.map((v) => ({
    label: list, value: v.label, name: list === "container_id" ? v.label.slice(0, 12) || "no container" : v.label || "(none)", small: "", detail: printable(v.label), weight: v.weight.value,
  }));
}

// withCrowds makes one entry of the many small processes of one program, such as those of a build.
function withCrowds(entries: Entry[]): Entry[] {
  const small = entries.reduce((sum, e) => sum + e.weight, 0) / 50;
  const crowds = new Map<string, Entry[]>();
  for (const e of entries) if (e.weight < small) crowds.set(e.name, [...(crowds.get(e.name) ?? []), e]);
  const out = entries.filter((e) => e.weight >= small || crowds.get(e.name)!.length < 3);
  for (const [name, crowd] of crowds) {
    if (crowd.length < 3) continue;
    out.push({ label: "comm", value: name, name, small: `×${crowd.length}`, detail: `${crowd.length} processes that take little each\n${crowd[0].detail}`, weight: crowd.reduce((sum, e) => sum + e.weight, 0) });
  }
  return out.sort((a, b) => b.weight - a.weight);
}

export function Side({ s, series, processes, labels, seconds }: {
  s: State; series: Answer<SeriesAnswer>; processes: Answer<ProcessesAnswer>; labels: Answer<LabelsAnswer>; seconds: number;
}) {
  const answer = s.list === "pid" ? processes : labels;
  const entries = useMemo(() => entriesOf(s.list, processes.data, labels.data), [s.list, processes.data, labels.data]);
  const lines = useMemo(() => new Map((series.data?.lines ?? []).filter((l) => !l.others).map((l) => [l.label, l])), [series.data]);
  const unit = series.data?.unit ?? "nanoseconds";
  const active = conditions(s);
  const words = s.findList.toLowerCase();
  const found = entries.filter((e) => `${e.value} ${e.name}`.toLowerCase().includes(words));
  const steady = useSteady(found, (e) => e.label + e.value, s.list + words);
  const shown = steady.rows.slice(0, 200);
  return (
    <aside class="side panel" aria-label="What runs">
      <div class="tabs" role="group" aria-label="List">
        {lists.map((l) => (
          <button key={l} type="button" aria-pressed={s.list === l} onClick={() => change({ list: l, findList: "" }, "replace")}>{plural[l]}</button>
        ))}
      </div>
      <input type="search" class="find" placeholder={`Find a ${labelText(s.list)}`} aria-label={`Find a ${labelText(s.list)}`}
        data-test="find-list" value={s.findList} onInput={(e) => change({ findList: e.currentTarget.value }, s.findList === "" ? "push" : "replace")} />
      <div class="head" aria-hidden="true"><span>{found.length}</span><span>{rateUnit(unit)}</span></div>
      <ol class="entries" data-test="processes" {...steady.holding}>
        {shown.map((e) => {
          const on = active.find((c) => c.label === e.label && c.op === "=" && c.value === e.value);
          return (
            <li key={e.label + e.value} data-pid={e.label === "pid" ? e.value : undefined}>
              <button type="button" aria-pressed={on !== undefined} title={e.detail} onClick={() => (on ? removeCondition(on) : addCondition(e.label, e.value))}>
                <span class="name"><span>{printable(e.name)}</span>{e.small && <small>{e.small}</small>}</span>
                <Spark line={e.label === s.list ? lines.get(e.value) : undefined} />
                <span class="value">{rate(e.weight, seconds, unit)}</span>
              </button>
            </li>
          );
        })}
      </ol>
      {found.length > shown.length && <p class="hint">and {found.length - shown.length} that take less</p>}
      {answer.data && found.length === 0 && <p class="hint">{entries.length === 0 ? "Nothing was sampled in this time." : "Nothing matches."}</p>}
      <Busy answer={answer} />
      {answer.error && answer.error.status !== 400 && <Problem error={answer.error} compact />}
    </aside>
  );
}

function Spark({ line }: { line: Line | undefined }) {
  const path = useMemo(() => (line ? outline(line.values ?? line.samples) : ""), [line]);
  if (path === "") return <span />;
  return (
    <svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,20 ${path} 100,20`} />
      <polyline points={path} />
    </svg>
  );
}

function outline(values: number[]): string {
  const per = Math.max(1, Math.ceil(values.length / 60));
  const sums: number[] = [];
  for (let i = 0; i < values.length; i += per) {
    const part = values.slice(i, i + per);
    sums.push(part.reduce((a, b) => a + b, 0) / part.length);
  }
  const most = Math.max(...sums, 1);
  return sums.map((v, i) => `${((i * 100) / Math.max(1, sums.length - 1)).toFixed(1)},${(19 - (18 * v) / most).toFixed(1)}`).join(" ");
}
