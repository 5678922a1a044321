// Leaving with what is shown: files, links, and the commands that give the same.

import { address, beforeParams, beforeTimes, stackParams, timeParams, type Params } from "./api.ts";
import { Fragment } from "preact";
import { Copy, Menu } from "./parts.tsx";
import { shell } from "./query.ts";
import { formatState, iso, stripSpan, selected, isLive, ofSpans, rangeSeconds, type State } from "./state.ts";

function flags(params: Params): string {
  return Object.entries(params).filter(([, v]) => v !== undefined && v !== "").map(([k, v]) => ` --${k.replaceAll("_", "-")} ${shell(String(v))}`).join("");
}

function commands(s: State): { pprof: string; pilotlight: string } {
  const time = timeParams(s, true);
  const stack = stackParams(s);
  const url = location.origin + address("/api/v1/profile", { ...time, ...stack });
  const pprof = `go tool pprof -http=: ${shell(url)}`;
  if (!s.compare) {
    return {
      pprof,
      pilotlight: s.view === "callers" && s.function
        ? `pilotlight query${flags({ ...time, ...stack, format: "callers", function: s.function })}`
        : `pilotlight query${flags({ ...time, ...stack, format: s.view === "top" ? "top" : "tree" })}`,
    };
  }
  const past = beforeTimes(s, true);
  const before = location.origin + address("/api/v1/profile", { ...past, ...stack });
  const { by: _, ...narrowed } = stack;
  return {
    pprof: `go tool pprof -http=: -diff_base ${shell(before)} ${shell(url)}`,
    pilotlight: `pilotlight diff${flags({ by: s.scale === "time" ? "time" : "", ...narrowed })} ${past.from}..${past.to} ${time.from}..${time.to}`,
  };
}

// pinned is the address of this view with times that stay; of spans, which the history does not keep, as it is.
function pinned(s: State): string {
  if (selected(s) || rangeSeconds(s.range) === 0 || ofSpans(s)) return location.origin + location.pathname + formatState(s);
  const [from, to] = stripSpan(s).map((t) => Math.floor(t / 1000) * 1000);
  const patch: Partial<State> = { range: `${iso(from)}/${iso(to)}` };
  if (isLive(s)) Object.assign(patch, { from: to - 60000, to });
  return location.origin + location.pathname + formatState({ ...s, ...patch });
}

export function Leave({ s, files }: { s: State; files: boolean }) {
  const params = { ...timeParams(s), ...stackParams(s) };
  const times: [name: string, times: Params][] = s.compare ? [["before", beforeTimes(s)], ["after", timeParams(s)]] : [["", timeParams(s)]];
  const c = commands(s);
  const compared = s.compare ? address("/api/v1/diff", { ...params, ...beforeParams(s), scale: s.scale, limit: 100000 }) : "";
  return (
    <Menu label="Take it along" test="leave" button="Export" wide>
      <h2>Take it along</h2>
      <div class="downloads">
        {times.map(([name, times]) => {
          const file = (format: string) => address("/api/v1/profile", { ...times, ...stackParams(s), format });
          const [test, title] = [name && `-${name}`, name && `, ${name}`];
          const speedscope = "/speedscope/#profileURL=" + encodeURIComponent(file("speedscope"));
          return (
            <Fragment key={name}>
              <a download={`profile${test}.pb.gz`} href={file("pprof")} data-test={`download-pprof${test}`}><b>pprof{title}</b><small>for go tool pprof and others</small></a>
              <a download={`profile${test}.folded`} href={file("folded")} data-test={`download-folded${test}`}><b>Folded text{title}</b><small>a line for each stack</small></a>
              <a download={`profile${test}.html`} href={file("html")} data-test={`download-html${test}`}><b>HTML{title}</b><small>one file that opens anywhere, offline</small></a>
              <a href={speedscope} target="_blank" rel="noopener" data-test={`open-speedscope${test}`}><b>Open in speedscope{title}</b><small>in order of weight</small></a>
            </Fragment>
          );
        })}
        {compared && <a download="diff.json" href={compared}><b>Differences</b><small>JSON, with p and Q</small></a>}
      </div>
      <h3>A link to this view</h3>
      <p class="command"><code>{pinned(s)}</code><Copy text={() => pinned(s)} label="Copy a link to this view" test="copy-link" /></p>
      <h3>The same in a shell</h3>
      <p class="command"><code>{c.pprof}</code><Copy text={() => c.pprof} label="Copy the pprof command" /></p>
      {!files && !ofSpans(s) && <p class="command"><code>{c.pilotlight}</code><Copy text={() => c.pilotlight} label="Copy the pilotlight command" /></p>}
    </Menu>
  );
}
