// How far the picture can be trusted: how many stacks are whole, how many frames have a name, and what was lost why.

import { useEffect, useState } from "preact/hooks";
import { ask, type Found, type Reason } from "./api.ts";
import { count, percent } from "./format.ts";
import { Menu } from "./parts.tsx";

export function TrustBadge({ found }: { found: Found | undefined }) {
  if (!found || found.total.samples === 0) return null;
  const lost = Object.values(found.lost).reduce((a, b) => a + b, 0);
  const trust = found.trust;
  const whole = trust && trust.stacks > 0 ? trust.whole / trust.stacks : 1;
  const named = trust && trust.frames > 0 ? trust.named / trust.frames : 1;
  const share = lost / Math.max(1, lost + found.total.samples);
  const grade = share > 0.05 || whole < 0.8 || named < 0.8 ? "bad" : share > 0.005 || whole < 0.95 || named < 0.95 ? "fair" : "good";
  const words = { good: "Good", fair: "Fair", bad: "Poor" }[grade];
  return (
    <Menu label="How far to trust this" test="trust" wide button={
      <span class={`trust ${grade}`}>
        <i aria-hidden="true" /><b class="sr">{words} data:</b>
        {trust ? <><span>{percent(trust.whole, trust.stacks)} whole</span><span>{percent(trust.named, trust.frames)} named</span></> : null}
        <span>{lost === 0 ? "none lost" : `${count(lost)} lost`}</span>
      </span>
    }>
      <Details found={found} lost={lost} />
    </Menu>
  );
}

function Details({ found, lost }: { found: Found; lost: number }) {
  const [reasons, setReasons] = useState<Reason[] | null>(null);
  useEffect(() => {
    const control = new AbortController();
    ask<{ reasons: Reason[] }>("/api/v1/reasons", 0, control.signal).then((a) => setReasons(a.reasons), () => setReasons([]));
    return () => control.abort();
  }, []);
  const trust = found.trust;
  const counts = new Map(Object.entries(found.lost));
  for (const [reason, samples] of Object.entries(trust?.reasons ?? {})) counts.set(reason, samples);
  const sorted = [...counts].filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  return (
    <div class="trust-details">
      <h2>How far to trust this</h2>
      <dl class="figures">
        <div><dt>Samples</dt><dd>{count(found.total.samples)}</dd></div>
        {trust && <div><dt>Whole stacks</dt><dd>{percent(trust.whole, trust.stacks)}</dd></div>}
        {trust && <div><dt>Named frames</dt><dd>{percent(trust.named, trust.frames)}</dd></div>}
        <div><dt>Lost samples</dt><dd>{count(lost)}</dd></div>
      </dl>
      <p class="hint">A whole stack begins where a program or a thread begins. A share of p % of n samples is good to ± 196 √(p/100 · (1 − p/100) / n) % in 95 of 100 cases.</p>
      {sorted.length === 0
        ? <p>Nothing was lost, cut or left without a name.</p>
        : (
          <ul class="reasons">
            {sorted.map(([name, n]) => {
              const r = reasons?.find((x) => x.reason === name);
              return (
                <li key={name}>
                  <b>{r?.title ?? name.replaceAll("_", " ")}</b> <span class="hint">{count(n)} samples, {percent(n, found.total.samples + lost)}</span>
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
