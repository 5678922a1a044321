// The time strip: CPU over time stacked by a label, or a heatmap of parts of a second. A range of it is selected by dragging, or with arrow keys.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { address, ranks, stripParams, useQuery, type Answer, type Line, type SeriesAnswer } from "./api.ts";
import { addCondition, Busy, Fold, Problem, labelText, shown } from "./parts.tsx";
import { colorReader } from "./flame/paint.ts";
import { count, duration, local, rate, rateUnit, ticks, time } from "./format.ts";
import { change, freeze, fixedRange, iso, isLive, rangeSeconds, ranges, selected, shift, stripSpan, toggleCompare, unsorted, type State } from "./state.ts";

const axisWidth = 46;
const endSpace = 16;
const top = 18; // for the unit, above the number of a tick at the very top
const plotHeight = 96;
const axisHeight = 24;

// Lines beyond the eighth share the colour of others: no two that have one of their own look the same.
const coloured = 8;
const seriesName = (index: number, line: Line) => `--series-${line.others || index >= coloured ? "others" : index}`;
const colorOf = (index: number, line: Line) => `var(${seriesName(index, line)})`;

// Side is what a drag, or the arrow keys, choose while two times are compared. Shift makes it the other one. Before that a first drag selects, and a second
// one chooses what that is compared with, unless it takes some of what is selected: then it selects anew.
type Side = "before" | "after";

export function Strip({ s, small, series, list, history }: { s: State; small: boolean; series: Answer<SeriesAnswer>; list: string[]; history: boolean }) {
  const [width, setWidth] = useState(0);
  const [side, setSide] = useState<Side>("before");
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const observer = new ResizeObserver((entries) => setWidth(Math.floor(entries[0].contentRect.width)));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const heat = useHeat(s, width - axisWidth - endSpace, history);
  const answer = s.heat ? heat.answer : series;
  const data = answer.data;
  const span: [number, number] = data ? [Date.parse(data.start), Date.parse(data.start) + data.step * data.steps * 1000] : stripSpan(s);
  const plot = { left: axisWidth, width: Math.max(1, width - axisWidth - endSpace) };
  return (
    <section class="strip panel" aria-label="Time">
      <div class="bar">
        <Ranges s={s} />
        <span class="spring" />
        <Fold small={small} title="Stack, heatmap, compare" test="fold-strip">
          {!s.heat && (
            <label class="field">
              Stacked by{" "}
              <select value={s.stack} onChange={(e) => change({ stack: e.currentTarget.value })}>
                {list.map((l) => <option key={l} value={l}>{labelText(l)}</option>)}
              </select>
            </label>
          )}
          <button type="button" class="toggle" aria-pressed={s.heat} data-test="heatmap" title="Parts of a second (H)" onClick={() => change({ heat: !s.heat })}>Heatmap</button>
          <CompareButton s={s} />
        </Fold>
      </div>
      <div class="strip-plot" ref={box} data-test="strip" style={{ height: `${top + plotHeight + axisHeight}px` }}>
        {width > 0 && data && (s.heat
          ? <Heat data={data} column={heat.column} width={width} />
          : <Stack data={data} width={width} live={rangeSeconds(s.range) > 0} />)}
        {width > 0 && <Brush s={s} side={s.compare ? side : "after"} setSide={setSide} span={span} plot={plot} heat={s.heat ? heat.column : 0} data={data} />}
      </div>
      <Busy answer={answer} />
      {answer.error && answer.error.status !== 400 && <Problem error={answer.error} compact />}
      {!s.heat && <Legend lines={data?.lines ?? []} label={s.stack} />}
      {s.heat && <p class="hint">Each column is {duration(heat.column * 1000)}, each cell {duration(heat.column * 20)}; the stronger its colour, the more was running. Drag from cell to cell.</p>}
      <Selection s={s} side={side} setSide={setSide} />
    </section>
  );
}

function Ranges({ s }: { s: State }) {
  const [open, setOpen] = useState(false);
  const names: Record<string, string> = { now: "Now", "15m": "15 min", "1h": "1 h", "24h": "24 h" };
  const [from, to] = stripSpan(s);
  const [draft, setDraft] = useState<[string, string]>(["", ""]);
  return (
    <>
      <div class="group" role="group" aria-label="Range">
        {Object.keys(ranges).map((r) => (
          <button key={r} type="button" data-test={`range-${r}`} aria-pressed={s.range === r && !selected(s)}
            onClick={() => change({ range: r, from: 0, to: 0, beforeFrom: 0, beforeTo: 0 })}>{names[r]}</button>
        ))}
        <button type="button" data-test="range-custom" aria-expanded={open} aria-pressed={fixedRange(s.range) !== null && !selected(s)}
          onClick={() => { setDraft([local(from), local(to)]); setOpen(!open); }}>Custom</button>
      </div>
      {open && (
        <form class="custom" onSubmit={(e) => {
          e.preventDefault();
          const [a, b] = draft.map((d) => Date.parse(d));
          if (a < b) {
            change({ range: `${iso(a)}/${iso(b)}`, from: 0, to: 0, beforeFrom: 0, beforeTo: 0 });
            setOpen(false);
          }
        }}>
          <input type="datetime-local" step="1" required aria-label="From" value={draft[0]} onInput={(e) => setDraft([e.currentTarget.value, draft[1]])} />
          <span aria-hidden="true">–</span>
          <input type="datetime-local" step="1" required aria-label="To" value={draft[1]} min={draft[0]} onInput={(e) => setDraft([draft[0], e.currentTarget.value])} />
          <button type="submit" class="primary">Show</button>
        </form>
      )}
    </>
  );
}

function CompareButton({ s }: { s: State }) {
  return (
    <button type="button" class="toggle compare" data-test="compare" aria-pressed={s.compare} title="Compare with another time (C)" onClick={() => toggleCompare(s)}>
      Compare
    </button>
  );
}

// Selection says in words what is selected, and what with.
function Selection({ s, side, setSide }: { s: State; side: Side; setSide: (side: Side) => void }) {
  if (!selected(s) && !s.compare) return null;
  const range = (from: number, to: number) => {
    const parts = from % 1000 !== 0 || to % 1000 !== 0;
    return `${time(from, parts)} – ${time(to, parts)} (${duration(to - from)})`;
  };
  return (
    <p class="selection" role="status">
      {selected(s) && (
        <span class="tag after">
          {s.compare ? "After: " : ""}{range(s.from, s.to)}
          <button type="button" aria-label="Clear the selection" onClick={() => change({ from: 0, to: 0 })}>×</button>
        </span>
      )}
      {!s.compare && <span class="hint">Drag again, elsewhere, to compare; Esc to clear</span>}
      {s.compare && !selected(s) && <span class="tag after">After: {isLive(s) ? "the last minute" : "the whole range"}</span>}
      {s.compare && (
        <span class="tag before">
          Before: {s.beforeTo > 0 ? range(s.beforeFrom, s.beforeTo) : "as long, just before"}
          {s.beforeTo > 0 && <button type="button" aria-label="Compare with the time just before" onClick={() => change({ beforeFrom: 0, beforeTo: 0 })}>×</button>}
        </span>
      )}
      {s.compare && selected(s) && s.beforeTo > 0 && (
        <button type="button" class="link" onClick={() => change({ from: s.beforeFrom, to: s.beforeTo, beforeFrom: s.from, beforeTo: s.to })}>Swap</button>
      )}
      {s.compare && (
        <label class="field">
          by{" "}
          <select value={s.scale} onChange={(e) => change({ scale: e.currentTarget.value as State["scale"] })}>
            <option value="share">share of all samples</option>
            <option value="time">what a second took</option>
          </select>
        </label>
      )}
      {s.compare && (
        <span class="field">
          Drag or ← → to choose{" "}
          <span class="group" role="group" aria-label="What a drag chooses">
            {(["before", "after"] as const).map((name) => (
              <button key={name} type="button" data-test={`choose-${name}`} aria-pressed={side === name} onClick={() => setSide(name)}>{name}</button>
            ))}
          </span>
        </span>
      )}
    </p>
  );
}

function Legend({ lines, label }: { lines: Line[]; label: string }) {
  return (
    <ul class="legend" aria-label={`Lines by ${labelText(label)}`}>
      {lines.slice(0, coloured).map((l, i) => (
        <li key={l.others ? "\0" : l.label}>
          <button type="button" disabled={l.others} title={l.others ? undefined : "Show this alone"} onClick={() => addCondition(label, l.label)}>
            <i style={{ background: colorOf(i, l) }} aria-hidden="true" />{l.others ? "others" : shown(l.label)}
          </button>
        </li>
      ))}
      {lines.length > coloured && <li class="hint"><i style={{ background: "var(--series-others)" }} aria-hidden="true" />and {lines.length - coloured} more</li>}
    </ul>
  );
}

// Stack draws lines one upon the other.
function Stack({ data, width, live }: { data: SeriesAnswer; width: number; live: boolean }) {
  const host = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const start = Date.parse(data.start) / 1000;
    const xs = Array.from({ length: data.steps + 1 }, (_, i) => start + i * data.step);
    // Drawn over one another, the sum of all first.
    const sums: (number | null)[][] = [];
    let below: number[] = new Array(data.steps).fill(0);
    for (const line of data.lines) {
      const values = line.values ?? line.samples;
      below = below.map((b, i) => b + values[i]);
      sums.unshift(below.map((v) => (data.unit === "nanoseconds" ? v / 1e9 : v) / data.step));
    }
    // The end of a range that moves is not all in the history yet: what is there only in part would look like a fall.
    const last = sums[0]?.findLastIndex((v) => v !== null && v > 0) ?? 0;
    for (const line of sums) {
      if (live && last >= data.steps - 8) line.fill(null, last);
      line.push(line[line.length - 1]);
    }
    const n = data.lines.length;
    const cssColor = colorReader(host.current!);
    const color = (i: number) => cssColor(seriesName(i, data.lines[i]));
    const axis = { stroke: cssColor("--dim"), grid: { stroke: cssColor("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const plot = new uPlot({
      width, height: top + plotHeight + axisHeight,
      padding: [top, endSpace, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: true, range: [xs[0], xs[xs.length - 1]] }, y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [
        { ...axis, size: axisHeight, gap: 4, values: (_u, splits) => ticks(splits) },
        { ...axis, size: axisWidth, gap: 6, space: 28, values: (_u, splits) => splits.map((v) => (v === 0 ? "" : +v.toPrecision(3) + "")) },
      ],
      series: [{}, ...sums.map((_, i) => ({ fill: color(n - 1 - i), width: 0, points: { show: false }, paths: uPlot.paths.stepped!({ align: 1 }) }))],
    }, [xs, ...sums] as uPlot.AlignedData, host.current!);
    return () => plot.destroy();
  }, [data, width, theme, live]);
  return (
    <>
      <div ref={host} aria-hidden="true" />
      <span class="unit">{rateUnit(data.unit)}</span>
    </>
  );
}

// useTheme changes when colours do.
export function useTheme(): string {
  const read = () => document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const [theme, set] = useState(read);
  useEffect(() => {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const listener = () => set(read());
    media.addEventListener("change", listener);
    addEventListener("pilotlight-theme", listener);
    return () => {
      media.removeEventListener("change", listener);
      removeEventListener("pilotlight-theme", listener);
    };
  }, []);
  return theme;
}

const rows = 50;

// useHeat asks for the heatmap: columns at least 3 pixels wide, of fifty cells each.
function useHeat(s: State, width: number, history: boolean): { answer: Answer<SeriesAnswer>; column: number } {
  const [from, to] = history ? stripSpan(s) : [0, 60000];
  const seconds = (to - from) / 1000;
  const column = [1, 2, 5, 10, 15, 30, 60, 120, 300].find((c) => (seconds / c) * 3 <= width) ?? 600;
  const url = s.heat && width > 0
    ? address("/api/v1/heatmap", { ...(history ? stripParams(s) : { live: "true" }), type: s.type, filter: s.filter, focus: s.focus, ignore: s.ignore, step: `${(column * 1000) / rows}ms` })
    : null;
  return { answer: useQuery<SeriesAnswer>(url, ranks.strip, rangeSeconds(s.range) ? 20000 : 0), column };
}

function Heat({ data, column, width }: { data: SeriesAnswer; column: number; width: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const c = canvas.current!;
    const ratio = devicePixelRatio;
    const w = width - axisWidth - endSpace;
    c.width = w * ratio;
    c.height = plotHeight * ratio;
    const g = c.getContext("2d")!;
    const perColumn = Math.round(column / data.step);
    const columns = Math.ceil(data.steps / perColumn);
    const sums = new Array<number>(data.steps).fill(0);
    for (const line of data.lines) line.samples.forEach((v, i) => (sums[i] += v));
    const busy = sums.filter((v) => v > 0).sort((a, b) => b - a);
    const most = busy[busy.length < 20 ? 0 : 19] ?? 1; // a few may be far above the others
    g.fillStyle = colorReader(c)("--heat");
    const cw = c.width / columns;
    const ch = c.height / perColumn;
    sums.forEach((v, i) => {
      if (v === 0) return;
      g.globalAlpha = 0.12 + 0.88 * Math.min(1, Math.sqrt(v / most));
      const at = Math.floor(i / perColumn), x = Math.floor(at * cw);
      const y = c.height - Math.ceil(((i % perColumn) + 1) * ch); // a second begins at the bottom
      g.fillRect(x, y, Math.max(1, Math.floor((at + 1) * cw) - x - (cw > 24 ? 1 : 0)), Math.max(1, Math.ceil(ch)));
    });
  }, [data, column, width, theme]);
  const [from, to] = [Date.parse(data.start), Date.parse(data.start) + data.step * data.steps * 1000];
  return (
    <>
      <canvas ref={canvas} aria-hidden="true" class="heat" style={{ left: `${axisWidth}px`, width: `${width - axisWidth - endSpace}px`, height: `${plotHeight}px` }} />
      <span class="heat-end from" style={{ left: `${axisWidth}px` }}>{time(from)}</span>
      <span class="heat-end to">{time(to)}</span>
      <span class="unit">{duration(column * 1000)}</span>
    </>
  );
}

// Brush takes the drags, shows what is selected, and tells what is under the pointer.
// Begun is where a drag began, and what it chooses; second is one that may choose the time before, by where it ends.
interface Begun { time: number; x: number; y: number; before: boolean; second: boolean; span: [number, number] }

function Brush({ s, side, setSide, span, plot, heat, data }: {
  s: State;
  side: Side;
  setSide: (side: Side) => void;
  span: [number, number];
  plot: { left: number; width: number };
  heat: number; // seconds of a column; 0: no heatmap
  data?: SeriesAnswer;
}) {
  const [drag, setDrag] = useState<{ from: number; to: number; before: boolean } | null>(null);
  const [hover, setHover] = useState<{ at: number; x: number } | null>(null);
  const start = useRef<Begun | null>(null);

  const at = (e: PointerEvent, sp: [number, number]) => {
    const box = (e.currentTarget as HTMLElement).getBoundingClientRect();
    const x = Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
    if (heat === 0) return sp[0] + x * (sp[1] - sp[0]);
    const columns = Math.ceil((sp[1] - sp[0]) / 1000 / heat);
    const y = Math.min(0.999, Math.max(0, (box.bottom - e.clientY) / box.height));
    return sp[0] + (Math.min(columns - 1, Math.floor(x * columns)) + Math.floor(y * rows) / rows) * heat * 1000;
  };
  // A drag up or down selects within a column of the heatmap. The last cell is in the range as the first is.
  const moved = (e: PointerEvent, b: { x: number; y: number }) => Math.abs(e.clientX - b.x) > 3 || (heat > 0 && Math.abs(e.clientY - b.y) > 3);
  const between = (a: number, b: number) => ({ from: Math.min(a, b), to: Math.max(a, b) + (heat * 1000) / rows });
  const choose = (from: number, to: number, before: boolean, how?: "replace") => {
    const round = heat ? 10 : 1000;
    [from, to] = [Math.floor(from / round + 1e-6) * round, Math.ceil(to / round - 1e-6) * round]; // the ends of cells may be a hair off
    change({
      ...freeze(),
      ...(before && isLive(s) ? { from: span[1] - 60000, to: span[1] } : {}), // what is compared is still the last minute
      ...(before ? { beforeFrom: from, beforeTo: to, compare: true, color: "diff", ...unsorted } : { from, to }),
    }, how);
  };
  // In the heatmap a range begins and ends within a column: it is a part of the first, whole columns, and a part of the last.
  const cells = (from: number, to: number) => {
    const size = heat * 1000, columns = Math.ceil((span[1] - span[0]) / size);
    [from, to] = [Math.max(0, (from - span[0]) / size), Math.min(columns, (to - span[0]) / size)];
    const [first, last] = [Math.floor(from), Math.max(Math.floor(from), Math.ceil(to) - 1)];
    const box = (column: number, n: number, bottom: number, top: number) => ({
      left: `${(100 * column) / columns}%`, width: `${(100 * n) / columns}%`, bottom: `${100 * bottom}%`, top: `${100 * (1 - top)}%`,
    });
    if (to <= from) return [];
    if (first === last) return [box(first, 1, from - first, to - first)];
    return [box(first, 1, from - first, 1), ...(last > first + 1 ? [box(first + 1, last - first - 1, 0, 1)] : []), box(last, 1, 0, to - last)];
  };
  const place = (from: number, to: number): Record<string, string> => {
    const left = Math.max(0, (from - span[0]) / (span[1] - span[0]));
    const right = Math.min(1, (to - span[0]) / (span[1] - span[0]));
    return right > left ? { left: `${100 * left}%`, width: `${100 * (right - left)}%` } : { display: "none" };
  };
  const grip = 4; // pixels beside the ends of what is selected, which still belong to it
  const inside = (e: PointerEvent) => {
    const within = (grip * (span[1] - span[0])) / plot.width, t = at(e, span);
    return t > s.from - within && t < s.to + within;
  };
  const inSight = selected(s) && s.from < span[1] && s.to > span[0];
  // A second drag compares, unless it takes some of what is selected: times that are compared do not overlap.
  const dragged = (b: Begun, t: number) => {
    const { from, to } = between(b.time, t);
    return { from, to, before: b.before || (b.second && (to <= s.from || from >= s.to)) };
  };
  const boxes = heat ? cells : (from: number, to: number) => [place(from, to)];
  const after: [number, number] | null = selected(s) ? [s.from, s.to] : isLive(s) ? [span[1] - 60000, span[1]] : null;
  const before: [number, number] | null = !s.compare ? null : s.beforeTo > 0 ? [s.beforeFrom, s.beforeTo]
    : after ? [2 * after[0] - after[1], after[0]] : null;

  const key = (e: KeyboardEvent) => {
    // Whole seconds, or rounding would make it longer. In the heatmap: columns, and up and down the cells of one.
    const column = heat ? heat * 1000 : Math.max(1000, Math.round((span[1] - span[0]) / 60000) * 1000);
    const upright = heat > 0 && (e.key === "ArrowUp" || e.key === "ArrowDown");
    const step = upright ? column / rows : column;
    const direction = e.key === "ArrowLeft" || (upright && e.key === "ArrowDown") ? -1 : e.key === "ArrowRight" || upright ? 1 : 0;
    if (e.key === "Escape" && (selected(s) || s.beforeTo > 0)) {
      e.preventDefault();
      e.stopPropagation();
      change({ from: 0, to: 0, beforeFrom: 0, beforeTo: 0 });
    }
    if (e.key === "b" && s.compare) setSide(side === "before" ? "after" : "before");
    if (direction === 0 || e.ctrlKey || e.altKey || e.metaKey) return;
    e.preventDefault();
    e.stopPropagation();
    // What is moved was chosen before, or else is chosen now, where it stands: Back goes back to where that began, not key by key.
    const chosen = side === "before" ? s.beforeTo > 0 : selected(s);
    let [from, to] = (side === "before" ? before : chosen && after) || [span[1] - (heat ? column : 4 * step), span[1]];
    if (e.shiftKey) to = Math.max(from + step, to + direction * step);
    else if (chosen || side === "before") [from, to] = shift([from, to], direction * step, [span[0], span[1] + step]);
    choose(from, Math.min(to, span[1] + step), side === "before", chosen ? "replace" : undefined);
  };

  return (
    <div class={`brush${heat ? " on-heat" : ""}`} style={{ left: `${plot.left}px`, width: `${plot.width}px`, height: `${plotHeight}px` }}
      tabIndex={0} role="application" aria-label={`Time strip. Left and right move ${s.compare ? `the time ${side}` : "the selection"}, with shift they change its length.${heat ? " Up and down do so by cells of the heatmap." : ""} Escape clears it.`}
      onKeyDown={key}
      onPointerDown={(e) => {
        if (e.button !== 0) return;
        e.currentTarget.setPointerCapture(e.pointerId);
        start.current = { time: at(e, span), x: e.clientX, y: e.clientY, before: s.compare ? (side === "before") !== e.shiftKey : e.shiftKey, second: !s.compare && !e.shiftKey && inSight && !inside(e), span };
      }}
      onPointerMove={(e) => {
        const b = start.current;
        const t = at(e, b?.span ?? span);
        if (b && moved(e, b)) setDrag(dragged(b, t));
        setHover({ at: t, x: e.clientX - e.currentTarget.getBoundingClientRect().left });
      }}
      onPointerLeave={() => setHover(null)}
      onPointerCancel={() => { start.current = null; setDrag(null); }}
      onPointerUp={(e) => {
        const b = start.current;
        start.current = null;
        setDrag(null);
        if (!b) return;
        const t = at(e, b.span);
        if (!moved(e, b)) return;
        const { from, to, before } = dragged(b, t);
        choose(from, to, before);
      }}>
      {after && <Range name="after" boxes={boxes(...after)} />}
      {before && <Range name="before" boxes={boxes(...before)} />}
      {drag && <Range name={`drag ${drag.before ? "before" : "after"}`} boxes={boxes(drag.from, drag.to)} />}
      {hover && data && <Hover data={data} at={hover.at} x={hover.x} width={plot.width} drag={drag} heat={heat > 0} />}
    </div>
  );
}

function Range({ name, boxes }: { name: string; boxes: Record<string, string>[] }) {
  return <>{boxes.map((style, i) => <div key={i} class={`range ${name}`} style={style} />)}</>;
}

function Hover({ data, at, x, width, drag, heat }: {
  data: SeriesAnswer; at: number; x: number; width: number; drag: { from: number; to: number } | null; heat: boolean;
}) {
  const i = Math.floor((at - Date.parse(data.start)) / 1000 / data.step + 1e-6); // a cell begins at what may be a hair below its own number
  if (i < 0 || i >= data.steps) return null;
  const values = data.lines
    .map((l, index) => ({ line: l, index, value: (l.values ?? l.samples)[i] }))
    .filter((v) => v.value > 0)
    .sort((a, b) => b.value - a.value)
    .slice(0, 6);
  const taken = heat ? data.lines.reduce((sum, l) => sum + l.samples[i], 0) : 0;
  return (
    <div class={`hover ${x > width / 2 ? "left" : "right"}`} style={x > width / 2 ? { right: `${width - x + 12}px` } : { left: `${x + 12}px` }}>
      <b>{drag ? `${time(drag.from, heat)} – ${time(drag.to, heat)} (${duration(drag.to - drag.from)})` : time(at, heat)}</b>
      {heat && !drag && <div>{count(taken)} {taken === 1 ? "sample" : "samples"} in {duration(data.step * 1000)}</div>}
      {!heat && values.map((v) => (
        <div key={v.index}><i style={{ background: colorOf(v.index, v.line) }} /><span>{v.line.others ? "others" : shown(v.line.label)}</span> <span>{rate(v.value, data.step, data.unit)}</span></div>
      ))}
    </div>
  );
}
