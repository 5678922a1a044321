// What narrows the view: the query box, chips of the conditions in force, and the values of a label to choose from.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, LabelsAnswer } from "./api.ts";
import { printable } from "./flame/text.ts";
import { count, percent } from "./format.ts";
import { addCondition, conditions, labelText, Menu, removeCondition, shown } from "./parts.tsx";
import { formatQuery, parseQuery, QueryError, type Query } from "./query.ts";
import { change, fixedRange, iso, type State } from "./state.ts";

const parts = ["type", "filter", "by", "focus", "ignore", "hide"] as const;

function queryOf(s: State): string {
  const query: Query = {};
  for (const name of parts) if (s[name]) query[name] = s[name];
  return formatQuery(query);
}

// QueryBox takes the whole query as text.
export function QueryBox({ s }: { s: State }) {
  const shown = queryOf(s);
  const [text, setText] = useState(shown);
  const [error, setError] = useState("");
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    setText(shown);
    setError("");
  }, [shown]);
  const submit = (e: Event) => {
    e.preventDefault();
    try {
      const q = parseQuery(text);
      const patch: Partial<State> = { type: "", filter: "", by: "", focus: "", ignore: "", hide: "", zoom: [] };
      for (const name of parts) if (q[name]) patch[name] = q[name];
      if (q.function) Object.assign(patch, { function: q.function, view: "callers" });
      if (q.from || q.to) patch.range = span(q.from, q.to);
      change(patch);
      setError("");
    } catch (e) {
      if (!(e instanceof QueryError)) throw e;
      setError(e.message);
      input.current!.setSelectionRange(e.offset, text.length);
    }
  };
  return (
    <form class="query" role="search" onSubmit={submit}>
      <input ref={input} data-test="query" spellcheck={false} autocomplete="off" autocapitalize="off" aria-label="Query" aria-invalid={error !== ""} aria-describedby="query-error"
        placeholder='filter=comm=~"redis.*" by=thread focus=^malloc' value={text} onInput={(e) => setText(e.currentTarget.value)}
        onKeyDown={(e) => { if (e.key === "Escape") { setText(shown); setError(""); input.current!.blur(); } }} />
      {text !== shown && !error && <kbd aria-hidden="true">Enter</kbd>}
      <p id="query-error" class="error" role="alert">{error}</p>
    </form>
  );
}

// span reads times as the language has them: absolute, Unix seconds, now, or back from now.
function span(from = "-15m", to = "now"): string {
  const now = Date.now();
  const at = (text: string): number => {
    if (text === "now") return now;
    const back = /^-((?:\d+(?:\.\d+)?(?:ms|d|h|m|s))+)$/.exec(text);
    if (back) {
      const units: Record<string, number> = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 };
      return now - [...back[1].matchAll(/(\d+(?:\.\d+)?)(ms|d|h|m|s)/g)].reduce((sum, [, n, u]) => sum + Number(n) * units[u], 0);
    }
    const t = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
    if (Number.isNaN(t)) throw new QueryError(0, `${text} is no time: give RFC 3339, Unix seconds, now, or -15m`);
    return t;
  };
  const range = `${iso(at(from))}/${iso(at(to))}`;
  if (!fixedRange(range)) throw new QueryError(0, "from is not before to");
  return range;
}

// offered are labels to choose from, with that which is chosen although it is none of them: the agent says what is wrong with it.
const offered = (labels: string[], chosen: string) => (chosen === "" || labels.includes(chosen) ? labels : [...labels, chosen]);

export function Chips({ s, labels, facet, facets }: { s: State; labels: string[]; facet: string; facets: Answer<LabelsAnswer> }) {
  const active = conditions(s);
  const stacks = [["focus", s.focus], ["ignore", s.ignore], ["hide", s.hide]] as const;
  const values = facets.data && facets.data.by === facet ? facets.data.values : [];
  const total = values.reduce((sum, v) => sum + v.weight.samples, 0);
  const chosen = new Set(active.filter((c) => c.label === facet && c.op === "=").map((c) => c.value));
  return (
    <div class="chips" data-test="filters">
      {active.map((c) => (
        <span key={c.label + c.op + c.value} class="chip on" data-label={c.label} data-value={c.value}>
          {labelText(c.label)} {c.op === "=" ? "is" : c.op === "!=" ? "is not" : c.op === "=~" ? "matches" : "does not match"} <b>{shown(c.value)}</b>
          <button type="button" aria-label={`Remove the condition on ${labelText(c.label)} ${shown(c.value)}`} onClick={() => removeCondition(c)}>×</button>
        </span>
      ))}
      {stacks.map(([name, value]) => value && (
        <span key={name} class="chip on">
          {name} <b>{printable(value)}</b>
          <button type="button" aria-label={`Remove ${name} ${printable(value)}`} onClick={() => change({ [name]: "", zoom: [] })}>×</button>
        </span>
      ))}
      <label class="field">
        <span class="sr">Filter by</span>
        <select value={facet} data-test="chips" onChange={(e) => change({ chips: e.currentTarget.value })}>
          {labels.map((l) => <option key={l} value={l}>{labelText(l)}</option>)}
        </select>
      </label>
      {values.filter((v) => !chosen.has(v.label)).slice(0, 6).map((v) => (
        <button key={v.label} type="button" class="chip" data-label={facet} data-value={v.label} title={`${count(v.weight.samples)} samples`} onClick={() => addCondition(facet, v.label)}>
          {shown(v.label)} <small>{percent(v.weight.samples, total)}</small>
        </button>
      ))}
      {values.length > 6 && (
        <Menu label={`All values of ${labelText(facet)}`} button={<>{facets.data!.count - 6} more</>}>
          <ul class="choices">
            {values.slice(6).map((v) => (
              <li key={v.label}>
                <button type="button" data-label={facet} data-value={v.label} onClick={() => addCondition(facet, v.label)}><span>{shown(v.label)}</span><small>{count(v.weight.samples)}</small></button>
                <button type="button" aria-label={`Leave out ${shown(v.label)}`} title="Leave out" onClick={() => addCondition(facet, v.label, "!=")}>−</button>
              </li>
            ))}
          </ul>
        </Menu>
      )}
      <span class="spring" />
      <label class="field">
        Group by{" "}
        <select data-test="group-by" value={s.by} onChange={(e) => change({ by: e.currentTarget.value, zoom: [] })}>
          <option value="">nothing</option>
          {offered(labels, s.by).map((l) => <option key={l} value={l}>{labelText(l)}</option>)}
        </select>
      </label>
    </div>
  );
}
