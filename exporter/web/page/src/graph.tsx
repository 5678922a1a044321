// The flame graph and what works on it: colours, order, search, and leaving with a picture.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { address, ranks, useQuery, type CallersAnswer, type DiffTreeAnswer, type Params, type TreeAnswer } from "./api.ts";
import { percent } from "./format.ts";
import { FlameGraph } from "./flame/view.ts";
import { explain } from "./glossary.ts";
import { Fold, Menu } from "./parts.tsx";
import { exactly } from "./query.ts";
import { change, isLive, selected, stripSpan, type Color, type State } from "./state.ts";

const quarter = 15 * 60_000; // milliseconds of the history

let searchWanted = false;

// focusSearch puts the cursor into the search, where the graph is not shown yet: once it is.
export function focusSearch(): void {
  const input = document.querySelector<HTMLElement>("[data-test=search]");
  searchWanted = input === null;
  input?.focus();
}

// usePlaces tells the graph where a function stands that it asks for, when that has stayed the same for some milliseconds.
function usePlaces(of: Params, graph: { current: FlameGraph | null }, unit: string, patience: number, cheap = true): (name: string) => void {
  const [name, setName] = useState("");
  const timer = useRef(0);
  const url = name === "" || !cheap ? null : address("/api/v1/callers", { ...of, by: "", function: name, limit: 20 });
  const { data, url: answered } = useQuery<CallersAnswer>(url, ranks.places);
  useEffect(() => {
    if (data && answered === url) graph.current?.setPlaces(name, data.places);
  }, [data, answered, url, unit]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (name) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setName(name), patience);
  };
}

export function Graph({ s, small, tree, unit, of, keep }: {
  s: State; small: boolean; tree: TreeAnswer | DiffTreeAnswer; unit: string;
  of: Params; // what the tree is of, of a comparison the time after
  keep: string; // as long as it is the same, a new tree is an update of what is shown
}) {
  const host = useRef<HTMLDivElement>(null);
  const graph = useRef<FlameGraph | null>(null);
  const kept = useRef("");
  const shown = useRef<object | null>(null);
  useEffect(() => {
    if (searchWanted) focusSearch();
  }, []);
  const [found, setFound] = useState<{ matches: number; share: number; problem?: string } | null>(null);

  // These run before the frame that has the answer is drawn: the reader sees the graph with it, not one frame later.
  useLayoutEffect(() => {
    const g = new FlameGraph(host.current!, {
      unit,
      onDetails: detail,
      onHover: hover,
      explain,
      onSelect: (path) => change({ zoom: path }),
      onMove: (part, row) => change({ part, row }, "replace"),
      onCommand: (command, name) => {
        if (command === "sandwich") change({ sandwich: name, zoom: [] });
        else change({ [command]: exactly(name), zoom: [] });
      },
    });
    graph.current = g;
    kept.current = "";
    shown.current = null;
    return () => {
      graph.current = null;
      g.destroy();
    };
  }, [unit]);

  // The tree does not say where functions stand: that is asked for those that the details and the tooltip are about, once they stay with them.
  useLayoutEffect(() => graph.current!.forgetPlaces(), [JSON.stringify(of)]); // before an answer to the new question can be there
  const detail = usePlaces(of, graph, unit, 250);
  const [from, to] = selected(s) ? [s.from, s.to] : stripSpan(s);
  const hover = usePlaces(of, graph, unit, 500, isLive(s) || to - from <= quarter); // of a day it would take the agent a second

  // What is shown of the tree, in the order in which one follows from the other: all but the colour forget the zoom, so it comes last.
  useLayoutEffect(() => {
    const g = graph.current!;
    g.setColor(s.color);
    g.setInverted(s.invert);
    g.setCollapse(s.collapse);
    g.setSandwich(s.sandwich);
    if (shown.current !== tree) {
      g.setData(tree, kept.current === keep);
      shown.current = tree;
      kept.current = keep;
    }
    if (g.path.join("\0") !== s.zoom.join("\0")) {
      if (s.zoom.length > 0) g.zoomTo(s.zoom);
      else g.reset();
    }
    g.moveTo(s.part, s.row);
  }, [tree, keep, unit, s.color, s.invert, s.collapse, s.sandwich, s.zoom.join("\0"), s.part, s.row]);
  useEffect(() => {
    const result = graph.current!.search(s.search);
    setFound(s.search ? result : null);
  }, [tree, keep, unit, s.invert, s.collapse, s.sandwich, s.search]);

  const save = async (kind: "png" | "svg") => {
    const g = graph.current!;
    const blob = kind === "png" ? await g.exportPNG() : new Blob([g.exportSVG()], { type: "image/svg+xml" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `flame.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  return (
    <div class="view graph">
      <div class="bar">
        <input type="search" data-test="search" placeholder="Search functions" aria-label="Search functions, by a part of the name or a /regular expression/" value={s.search}
          onInput={(e) => change({ search: e.currentTarget.value }, "replace")}
          onKeyDown={(e) => {
            if (e.key !== "Enter") return;
            if (e.shiftKey) graph.current?.previous();
            else graph.current?.next();
          }} />
        {found && (
          <>
            <span class="hint" role="status" data-test="search-result">{found.problem ?? `${found.matches} found, ${percent(found.share, 1)}`}</span>
            <div class="group" role="group" aria-label="Matches">
              <button type="button" aria-label="Previous match" title="Shift+Enter" onClick={() => graph.current?.previous()}>↑</button>
              <button type="button" aria-label="Next match" title="Enter" onClick={() => graph.current?.next()}>↓</button>
            </div>
          </>
        )}
        <span class="spring" />
        <Fold small={small} title="Colour, order, picture" test="fold-graph">
          <label class="field">
            Colour{" "}
            <select value={s.color} onChange={(e) => change({ color: e.currentTarget.value as Color })}>
              <option value="kind">by kind</option>
              <option value="module">by module</option>
              {s.compare && <option value="diff">by difference</option>}
            </select>
          </label>
          <button type="button" class="toggle" aria-pressed={s.invert} title="The innermost functions first (I)" onClick={() => change({ invert: !s.invert, zoom: [] })}>Invert</button>
          <button type="button" class="toggle" aria-pressed={s.collapse} title="A function that calls itself once, not on and on (R)" onClick={() => change({ collapse: !s.collapse, zoom: [] })}>Collapse recursion</button>
          {(s.zoom.length > 0 || s.part) && <button type="button" onClick={() => change({ zoom: [] })}>Reset zoom</button>}
          <Menu label="Save the picture" button="Picture">
            <button type="button" class="item" onClick={() => void save("png")}>PNG</button>
            <button type="button" class="item" onClick={() => void save("svg")}>SVG</button>
          </Menu>
        </Fold>
      </div>
      <div class="flame" ref={host} data-test="flame-host" />
      {tree.omitted > 0 && <p class="hint">{tree.omitted.toLocaleString("en")} lighter frames are counted in those above them. Focus or a filter shows them.</p>}
    </div>
  );
}
