// Small parts that several others are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, Failure } from "./api.ts";
import { printable } from "./flame/text.ts";
import { formatFilter, parseFilter, type Condition } from "./query.ts";
import { change, selected, state, toggleCompare, type State } from "./state.ts";

const labelNames: Record<string, string> = {
  comm: "program", pid: "process", tid: "thread id", thread: "thread", exe: "executable", cgroup: "cgroup", container_id: "container",
  service: "service", pod_uid: "pod", unit: "systemd unit", trace_id: "trace", span_id: "span",
};

export const labelText = (label: string) => labelNames[label] ?? label;

// shown is the value of a label as it is written: a process chooses it, and must not turn the text around it.
export const shown = (value: string) => printable(value) || "(none)";

// conditions of the filter in force; none where it was typed into the address and is wrong: the agent says so.
export function conditions(s: State): Condition[] {
  try {
    return parseFilter(s.filter);
  } catch {
    return [];
  }
}

export function addCondition(label: string, value: string, op: Condition["op"] = "="): void {
  const s = state();
  const rest = conditions(s).filter((c) => !(c.label === label && (op === "=" || (c.op === op && c.value === value))));
  change({ filter: formatFilter([...rest, { label, op, value }]), zoom: [] });
}

export function removeCondition(c: Condition): void {
  const rest = conditions(state()).filter((d) => d.label !== c.label || d.op !== c.op || d.value !== c.value);
  change({ filter: formatFilter(rest), zoom: [] });
}

const patience = 20; // seconds, after which the agent ends a query; it may wait for its turn for five before

// Busy shows that an answer is waited for, and for how long where it takes long.
export function Busy({ answer }: { answer: Pick<Answer<unknown>, "busy" | "since"> }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    setSeconds(0);
    if (!answer.busy || !answer.since) return;
    const timer = setInterval(() => setSeconds((Date.now() - answer.since) / 1000), 250);
    return () => clearInterval(timer);
  }, [answer.busy, answer.since]);
  if (!answer.busy) return null;
  return (
    <>
      <div class="progress" aria-hidden="true" />
      {seconds > 1 && (
        <p class="slow">
          <progress max={patience} value={Math.min(seconds, patience)} aria-label="Time that the query has taken" />{" "}
          <span role="status">Reading the history{seconds > 8 ? ". A shorter range or a filter is faster." : ""}</span>{" "}
          {Math.floor(seconds)} s of {patience} s at most
        </p>
      )}
    </>
  );
}

// Problem says what went wrong and what to do.
export function Problem({ error, compact }: { error: Failure; compact?: boolean }) {
  const advice: Record<number, string> = {
    0: "The page goes on trying.",
    400: "Change the query above.",
    404: "Now works without a history.",
    429: "Others ask this agent too: the page goes on trying.",
    503: "The page tries again, ever more seldom. A shorter range or a filter is faster.",
  };
  return (
    <div class={`problem${compact ? " compact" : ""}`} role="alert">
      <b>{error.status === 0 ? "No answer" : error.status === 400 ? "This cannot be asked" : error.status === 404 ? "No history" : "No answer"}</b>
      <p>{error.message}</p>
      {!compact && <p class="hint">{advice[error.status] ?? ""}</p>}
      {!compact && error.status === 400 && <button type="button" onClick={() => change({ filter: "", focus: "", ignore: "", hide: "", zoom: [] })}>Clear the filters</button>}
    </div>
  );
}

// Empty says why nothing is shown, and what to do.
export function Empty({ s, sampling, whole }: { s: State; sampling: boolean; whole?: Partial<State> }) {
  const narrowed = s.filter || s.focus || s.ignore || s.hide;
  return (
    <div class="empty">
      <b>No samples here</b>
      <p>
        {narrowed ? "Nothing in this time matches the filters." : sampling ? "Nothing was sampled in this time; what is idle takes no samples." : "Sampling has ended: choose a time before that."}
      </p>
      <p>
        {narrowed && <button type="button" onClick={() => change({ filter: "", focus: "", ignore: "", hide: "", zoom: [] })}>Clear the filters</button>}
        {whole ? (s.range !== whole.range || selected(s)) && <button type="button" onClick={() => change(whole)}>Show all of the file</button>
          : s.range !== "1h" && <button type="button" onClick={() => change({ range: "1h", from: 0, to: 0 })}>Show the last hour</button>}
      </p>
    </div>
  );
}

// NothingBefore says that a comparison has nothing to compare with, and what to do: all of it would look as if it may be chance.
export function NothingBefore({ s }: { s: State }) {
  const narrowed = s.filter || s.focus || s.ignore;
  return (
    <div class="empty" data-test="nothing-before">
      <b>There is nothing to compare with</b>
      <p>No samples {narrowed && "that match the filters "}were taken in the time {s.beforeTo > 0 ? "that was chosen for before" : "just before: the history may not go back that far"}.</p>
      <p>Drag on the strip to choose another time for before, or a shorter one for after.</p>
      <p>
        {s.beforeTo > 0 && <button type="button" onClick={() => change({ beforeFrom: 0, beforeTo: 0 })}>Compare with the time just before</button>}
        <button type="button" onClick={() => toggleCompare(s)}>Do not compare</button>
      </p>
    </div>
  );
}

// useSmall says whether the screen is a small one, as the styles do.
export function useSmall(): boolean {
  const [media] = useState(() => matchMedia("(max-width: 40rem)"));
  const [small, set] = useState(media.matches);
  useEffect(() => {
    const listener = () => set(media.matches);
    media.addEventListener("change", listener);
    return () => media.removeEventListener("change", listener);
  }, []);
  return small;
}

// Fold hides what is not looked at first behind its heading, on a small screen; on others it is just there.
export function Fold({ small, title, test, children }: { small: boolean; title: string; test: string; children: ComponentChildren }) {
  if (!small) return <>{children}</>;
  return <details class="fold" data-test={test}><summary>{title}</summary>{children}</details>;
}

// useHolding tells whether the mouse is on something, or a key's focus: nobody is to click on what another thing just took the place of.
function useHolding() {
  const by = useRef({ mouse: false, focus: false });
  const [, redraw] = useState(0);
  const hold = (who: "mouse" | "focus", on: boolean) => {
    by.current[who] = on;
    if (!on) redraw((n) => n + 1);
  };
  return {
    held: by.current.mouse || by.current.focus,
    holding: {
      onPointerEnter: (e: PointerEvent) => hold("mouse", e.pointerType === "mouse"),
      onPointerLeave: () => hold("mouse", false),
      onFocusIn: (e: FocusEvent) => hold("focus", (e.target as HTMLElement).matches(":focus-visible")),
      onFocusOut: () => hold("focus", false),
    },
  };
}

// useSteady keeps rows in their places while they are held. New rows come last meanwhile. What the reader orders otherwise, by order, is shown at once.
export function useSteady<T>(rows: T[], key: (row: T) => string, order: string) {
  const { held, holding } = useHolding();
  const last = useRef<{ order: string; ranks: Map<string, number> }>({ order: "", ranks: new Map() });
  let out = rows;
  if (held && last.current.order === order) {
    const rank = (row: T) => last.current.ranks.get(key(row)) ?? Infinity;
    out = [...rows].sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
  }
  last.current = { order, ranks: new Map(out.map((row, i) => [key(row), i])) };
  return { rows: out, holding };
}

// useHeld keeps a value while it is held, for what no order of rows can keep in place. What the reader asks for otherwise, by question, is shown at once.
export function useHeld<T>(value: T, question: string) {
  const { held, holding } = useHolding();
  const last = useRef({ question, value });
  if (!held || last.current.question !== question) last.current = { question, value };
  return { value: last.current.value, late: last.current.value !== value, holding };
}

// Copy puts a text on the clipboard, and says so.
export function Copy({ text, label, children, test }: { text: () => string; label: string; children?: ComponentChildren; test?: string }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setDone("Copied");
    } catch {
      setDone("The browser allows no copying here"); // no secure context: a plain-HTTP address beyond loopback
    }
    setTimeout(() => setDone(""), 2000);
  };
  return (
    <button type="button" class="copy" data-test={test} aria-label={done ? undefined : label} title={label} onClick={copy}>
      <span role="status">{done}</span>{!done && (children ?? "Copy")}
    </button>
  );
}

// Menu opens below its button, and closes by Escape, or when something else is clicked.
export function Menu({ label, test, children, button, wide }: {
  label: string; test?: string; button: ComponentChildren; children: ComponentChildren; wide?: boolean;
}) {
  const [open, setOpen] = useState(false);
  const host = useRef<HTMLDivElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    const outside = (e: Event) => {
      if (!host.current!.contains(e.target as globalThis.Node)) setOpen(false);
    };
    const escape = (e: KeyboardEvent) => {
      if (e.key !== "Escape") return;
      e.stopPropagation();
      setOpen(false);
      opener.current!.focus();
    };
    const el = host.current!;
    document.addEventListener("pointerdown", outside);
    el.addEventListener("keydown", escape);
    return () => {
      document.removeEventListener("pointerdown", outside);
      el.removeEventListener("keydown", escape);
    };
  }, [open]);
  return (
    <div class="menu" ref={host}>
      <button type="button" ref={opener} aria-expanded={open} title={label} data-test={test} onClick={() => setOpen(!open)}>{button}</button>
      {open && <div class={`sheet${wide ? " wide" : ""}`} role="region" aria-label={label} data-test={test && test + "-panel"}>{children}</div>}
    </div>
  );
}

// Dialog is modal: the browser holds the focus in it and closes it by Escape.
export function Dialog({ title, test, close, children }: { title: string; test: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current!.showModal();
  }, []);
  return (
    <dialog ref={dialog} data-test={test} aria-labelledby={`${test}-title`} onClose={close}
      onClick={(e) => { if (e.target === dialog.current) dialog.current!.close(); }}>
      <div class="dialog">
        <div class="bar">
          <h2 id={`${test}-title`}>{title}</h2>
          <span class="spring" />
          <button type="button" aria-label="Close" onClick={() => dialog.current!.close()}>×</button>
        </div>
        {children}
      </div>
    </dialog>
  );
}
