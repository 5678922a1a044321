// The query language of the agent, as package query in Go has it:
//
//	filter=comm=~"redis.*",container_id!="" by=comm focus=^malloc$
//
// The agent has the last word on what a query means; this is what the page needs to show one and to take one apart.

import { unprintable } from "./flame/text.ts";

export const labels = ["comm", "pid", "tid", "thread", "exe", "cgroup", "container_id", "service", "pod_uid", "unit"];

// spanLabels can be named too where profiles are in memory: the last minute, and files. The history does not keep them.
export const spanLabels = ["trace_id", "span_id"];

export type Op = "=" | "!=" | "=~" | "!~";
const ops: Op[] = ["!=", "=~", "!~", "="];

export interface Condition {
  label: string;
  op: Op;
  value: string;
}

// Names of the language that the query box takes beside the times, which the strip shows.
export const names = ["from", "to", "type", "filter", "by", "focus", "ignore", "hide", "function"] as const;
export type Name = (typeof names)[number];
export type Query = Partial<Record<Name, string>>;

export class QueryError extends Error {
  readonly offset: number;

  constructor(offset: number, message: string) {
    super(`at ${offset + 1}: ${message}`);
    this.offset = offset;
  }
}

class Scanner {
  at = 0;
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  get end(): boolean {
    return this.at >= this.text.length;
  }

  spaces(): void {
    while (!this.end && " \t\r\n".includes(this.text[this.at])) this.at++;
  }

  word(): string {
    const found = /^[A-Za-z_]*/.exec(this.text.slice(this.at))![0];
    this.at += found.length;
    return found;
  }

  take(token: string): boolean {
    if (!this.text.startsWith(token, this.at)) return false;
    this.at += token.length;
    return true;
  }

  // value reads "quoted", `raw`, or a run up to one of the characters in stops.
  value(stops: string): string {
    if (this.take('"')) return this.quoted();
    if (this.take("`")) {
      const end = this.text.indexOf("`", this.at);
      if (end < 0) throw this.expected("` at the end of the value");
      const raw = this.text.slice(this.at, end);
      this.at = end + 1;
      return raw;
    }
    const start = this.at;
    while (!this.end && !stops.includes(this.text[this.at])) this.at++;
    const value = this.text.slice(start, this.at);
    const quote = value.search(/["`]/);
    if (quote >= 0) throw new QueryError(start + quote, "a quote in the middle of a value: put quotes around the whole of it");
    if (value === "") throw this.expected('a value, "" for an empty one');
    return value;
  }

  private quoted(): string {
    let value = "";
    while (!this.end) {
      const c = this.text[this.at++];
      if (c === '"') return value;
      if (c !== "\\") {
        value += c;
        continue;
      }
      const escape = /^(?:["\\]|[abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})/.exec(this.text.slice(this.at))?.[0];
      if (!escape) throw new QueryError(this.at - 1, '\\ begins an escape such as \\n, \\", \\\\ or \\xff: write \\\\ for itself, or put the value in ` `');
      this.at += escape.length;
      const named: Record<string, string> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v", '"': '"', "\\": "\\" };
      value += named[escape] ?? String.fromCharCode(parseInt(escape.slice(1), 16));
    }
    throw this.expected('" at the end of the value');
  }

  conditions(): Condition[] {
    const found: Condition[] = [];
    for (;;) {
      this.spaces();
      const start = this.at;
      const label = this.word();
      if (!labels.includes(label) && !spanLabels.includes(label)) throw new QueryError(start, `expected a label: ${[...labels, ...spanLabels].join(", ")}`);
      this.spaces();
      const op = ops.find((o) => this.take(o));
      if (!op) throw this.expected("=, !=, =~ or !~");
      this.spaces();
      found.push({ label, op, value: this.value(", \t\r\n") });
      const before = this.at;
      this.spaces();
      if (!this.take(",")) {
        this.at = before;
        return found;
      }
    }
  }

  expected(what: string): QueryError {
    return new QueryError(this.at, `expected ${what}, found ${this.end ? "the end" : this.text.slice(this.at, this.at + 20)}`);
  }
}

export function parseFilter(text: string): Condition[] {
  const s = new Scanner(text);
  s.spaces();
  if (s.end) return [];
  const found = s.conditions();
  s.spaces();
  if (!s.end) throw s.expected("a comma and a further condition, or the end");
  return found;
}

// quote writes a value so that it is read as it is.
function quote(value: string): string {
  const named: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  const escaped = (c: string) => named[c] ?? "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0");
  return '"' + value.replace(/["\\]/g, "\\$&").replace(unprintable, escaped) + '"';
}

// shell quotes a word for a POSIX shell. Characters that are unprintable are given by their bytes, in octal, which ends after three
// digits in every shell that has $'...': a terminal without bracketed paste would take them as keys.
export function shell(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  if (word.search(unprintable) < 0) return `'${word.replaceAll("'", `'\\''`)}'`;
  const octal = (c: string) => Array.from(new TextEncoder().encode(c), (b) => "\\" + b.toString(8).padStart(3, "0")).join("");
  return `$'${word.replace(/['\\]/g, "\\$&").replace(unprintable, octal)}'`;
}

export function formatFilter(conditions: Condition[]): string {
  return conditions.map((c) => c.label + c.op + quote(c.value)).join(",");
}

export function parseQuery(text: string): Query {
  const query: Query = {};
  const s = new Scanner(text);
  for (s.spaces(); !s.end; s.spaces()) {
    const start = s.at;
    const name = s.word() as Name;
    if (name === ("" as Name) || !s.take("=")) {
      s.at = start;
      throw s.expected("a name and = such as by=comm");
    }
    if (!names.includes(name)) throw new QueryError(start, `there is no parameter ${name}: known are ${names.join(", ")}`);
    if (query[name] !== undefined) throw new QueryError(start, `${name} is given twice`);
    if (name === "filter") query.filter = formatFilter(s.conditions());
    else query[name] = s.value(" \t\r\n");
  }
  return query;
}

export function formatQuery(query: Query): string {
  return names
    .filter((name) => query[name])
    .map((name) => {
      const value = query[name]!;
      return `${name}=${name === "filter" || (!/[\s"`]/.test(value) && value.search(unprintable) < 0) ? value : quote(value)}`;
    })
    .join(" ");
}

// exactly is the pattern that matches one function by its whole name and nothing else.
export function exactly(name: string): string {
  return "^" + name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&") + "$";
}
