// How far the picture can be trusted: how many stacks are whole, how many frames have a name, and what was lost why.

import { useEffect, useState } from "preact/hooks";
import { ask, ranks, type DiffAnswer, type DiffTreeAnswer, type Found, type Reason, type Trust } from "./api.ts";
import { printable } from "./flame/text.ts";
import { count, percent } from "./format.ts";
import { Menu } from "./parts.tsx";

// Part is what is known of one time: a comparison has two.
interface Part {
  name: string;
  samples: number;
  lost: Record<string, number>;
  trust?: Trust;
}

const partOf = (name: string, f: Found): Part => ({ name, samples: f.total.samples, lost: f.lost, trust: f.trust });

export function partsOf(found: Found | undefined, before: Found | undefined): Part[] {
  if (!found) return [];
  return before ? [partOf("Before", before), partOf("After", found)] : [partOf("", found)];
}

export function partsOfDifference(d: DiffAnswer | DiffTreeAnswer | undefined): Part[] {
  if (!d) return [];
  return [
    { name: "Before", samples: d.before.samples, lost: d.before_lost, trust: d.before_trust },
    { name: "After", samples: d.after.samples, lost: d.lost, trust: d.trust },
  ];
}

const lostOf = (p: Part) => Object.values(p.lost).reduce((a, b) => a + b, 0);
const part = (n: number, of: number) => (of > 0 ? n / of : 1);
const told = (p: Part) => p.trust && p.trust.whole !== null;
const wholeOf = (p: Part) => (p.trust && p.trust.whole !== null ? part(p.trust.whole, p.trust.stacks) : 1);
const namedOf = (p: Part) => (p.trust ? part(p.trust.named, p.trust.frames) : 1);

// TrustBadge says of two times what is the worse of both: a comparison is as good as that.
export function TrustBadge({ parts }: { parts: Part[] }) {
  if (!parts.some((p) => p.samples > 0)) return null;
  const lost = parts.reduce((sum, p) => sum + lostOf(p), 0);
  const whole = Math.min(...parts.map(wholeOf));
  const named = Math.min(...parts.map(namedOf));
  const share = Math.max(...parts.map((p) => lostOf(p) / Math.max(1, lostOf(p) + p.samples)));
  const grade = share > 0.05 || whole < 0.8 || named < 0.8 ? "bad" : share > 0.005 || whole < 0.95 || named < 0.95 ? "fair" : "good";
  const words = parts.every(told) || grade !== "good" ? { good: "Good", fair: "Fair", bad: "Poor" }[grade] : "";
  return (
    <Menu label="How far to trust this" test="trust" wide button={
      <span class={`trust ${words && grade}`}>
        <i aria-hidden="true" />{words && <b class="sr">{words} data:</b>}
        {parts.some(told) && <span>{percent(whole, 1)} whole</span>}
        {parts.some((p) => p.trust) && <span>{percent(named, 1)} named</span>}
        <span>{lost === 0 ? "none lost" : `${count(lost)} lost`}</span>
      </span>
    }>
      <Details parts={parts} />
    </Menu>
  );
}

function Details({ parts }: { parts: Part[] }) {
  const [reasons, setReasons] = useState<Reason[] | null>(null);
  useEffect(() => {
    const control = new AbortController();
    ask<{ reasons: Reason[] }>("/api/v1/reasons", ranks.status, control.signal).then((a) => setReasons(a.reasons), () => setReasons([]));
    return () => control.abort();
  }, []);
  const counts = new Map<string, number[]>();
  parts.forEach((p, i) => {
    for (const [reason, n] of [...Object.entries(p.lost), ...Object.entries(p.trust?.reasons ?? {})]) {
      const of = counts.get(reason) ?? parts.map(() => 0);
      of[i] = n;
      counts.set(reason, of);
    }
  });
  const sum = (n: number[]) => n.reduce((a, b) => a + b, 0);
  const sorted = [...counts].filter(([, n]) => sum(n) > 0).sort((a, b) => sum(b[1]) - sum(a[1]));
  return (
    <div class="trust-details">
      <h2>How far to trust this</h2>
      {parts.map((p) => (
        <section key={p.name}>
          {p.name && <h3>{p.name}</h3>}
          <dl class="figures">
            <div><dt>Samples</dt><dd>{count(p.samples)}</dd></div>
            {p.trust && <div><dt>Whole stacks</dt><dd>{told(p) ? percent(wholeOf(p), 1) : "not told"}</dd></div>}
            {p.trust && <div><dt>Named frames</dt><dd>{percent(namedOf(p), 1)}</dd></div>}
            <div><dt>Lost samples</dt><dd>{count(lostOf(p))}</dd></div>
          </dl>
        </section>
      ))}
      <p class="hint">A whole stack begins where a program or a thread begins. A share of p % of n samples is good to ± 196 √(p/100 · (1 − p/100) / n) % in 95 of 100 cases.</p>
      {parts.some((p) => p.trust && !told(p)) && <p class="hint">Files of other programs do not tell which stacks are whole.</p>}
      {sorted.length === 0
        ? <p>{parts.every(told) ? "Nothing was lost, cut or left without a name." : "Nothing is said to be lost, cut or without a name."}</p>
        : (
          <ul class="reasons">
            {sorted.map(([name, n]) => {
              const r = reasons?.find((x) => x.reason === name);
              const told = n.map((k, i) => `${count(k)} samples, ${percent(k, parts[i].samples + lostOf(parts[i]))}${parts[i].name && ` ${parts[i].name.toLowerCase()}`}`);
              return (
                <li key={name}>
                  <b>{r?.title ?? printable(name.replaceAll("_", " "))}</b> <span class="hint">{told.join("; ")}</span>
                  {r && <p>{r.meaning}</p>}
                  {r && <p class="remedy">{r.remedy}</p>}
                </li>
              );
            })}
          </ul>
        )}
    </div>
  );
}
