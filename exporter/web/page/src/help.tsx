// The keys, and the glossary.

import { useState } from "preact/hooks";
import { KEYS } from "./flame/view.ts";
import { glossary } from "./glossary.ts";
import { Dialog } from "./parts.tsx";

const keys: [string, [string, string][]][] = [
  ["Anywhere", [
    ["?", "this help"],
    ["/", "search functions"],
    ["F", "the query box"],
    ["1 2 3 4", "flame graph, top, tree, callers"],
    ["N", "now, live"],
    ["P", "hold still, or go on"],
    ["[ ]", "an equally long time earlier, later"],
    ["C", "compare with another time"],
    ["H", "heatmap of parts of a second"],
    ["I", "invert: the innermost functions first"],
    ["R", "collapse recursion"],
    ["E", "export"],
    ["T", "light or dark"],
    ["Esc", "close, unzoom, clear the selection"],
  ]],
  ["In the time strip", [
    ["drag", "select a range; a second one elsewhere compares with it, one that takes some of it selects anew"],
    ["Shift drag", "select the range to compare with; while comparing, the other one"],
    ["B", "while comparing: choose the time before, or after"],
    ["← →", "move what is chosen"],
    ["↑ ↓", "in the heatmap: move it by cells"],
    ["Shift ← →", "change its length; with ↑ ↓ by cells"],
  ]],
  ["In the flame graph", KEYS],
  ["In the search", [
    ["text", "a part of a function's name"],
    ["/text/", "a regular expression, without groups"],
    ["Enter", "next match"],
    ["Shift Enter", "previous match"],
  ]],
];

export function Help({ close }: { close: () => void }) {
  const [find, setFind] = useState("");
  const words = find.toLowerCase();
  return (
    <Dialog title="Keys and words" test="help" close={close}>
      <div class="keys">
        {keys.map(([title, list]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {list.map(([k, text]) => [<dt key={k}>{k.split(" ").map((x) => (/^drag$/.test(x) ? ` ${x} ` : <kbd key={x}>{x}</kbd>))}</dt>, <dd key={text}>{text}</dd>])}
            </dl>
          </section>
        ))}
      </div>
      <h3>What common frames are</h3>
      <input type="search" placeholder="Find a frame" aria-label="Find a frame" value={find} onInput={(e) => setFind(e.currentTarget.value)} />
      <dl class="glossary">
        {glossary.filter(([names, text]) => `${names.join(" ")} ${text}`.toLowerCase().includes(words)).map(([names, text]) => (
          <div key={names[0]}><dt>{names.map((n) => <code key={n}>{n}</code>)}</dt><dd>{text}</dd></div>
        ))}
      </dl>
    </Dialog>
  );
}
