// Names and numbers as they are shown.

/** Control characters, line separators, what has no width and what changes the direction of text: they could make a name look like another one. */
export const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function printable(name: string): string {
  return name.replace(unprintable, "\ufffd");
}

/**
 * What of a name says most in little room: github.com/a/b.(*T).M is b.(*T).M, geo::area<geo::Circle, 7> is geo::area<…>,
 * <alloc::vec::Vec<T> as core::clone::Clone>::clone stays, because it begins with its brackets.
 */
export function shorten(name: string): string {
  const path = /^[^\s(<[]*\//.exec(name);
  if (path) name = name.slice(path[0].length);
  const open = name.indexOf("<");
  if (open <= 0 || /operator$/.test(name.slice(0, open))) return name;
  let depth = 0, out = "";
  for (let i = 0; i < name.length; i++) {
    const c = name[i]!;
    if (c === "<" && depth++ === 0) out += "<…>";
    else if (c === ">" && name[i - 1] !== "-") {
      if (depth === 0) return name;
      depth--;
    } else if (depth === 0) out += c;
  }
  return depth === 0 ? out : name;
}

/** Measures text by its characters, each measured once: to measure whole labels for each frame drawn takes longer than drawing them. */
export class Ruler {
  private readonly measure: (text: string) => number;
  private readonly ascii = new Float32Array(128);
  private readonly others = new Map<number, number>();
  private readonly widths = new Map<string, number>();

  constructor(measure: (text: string) => number) {
    this.measure = measure;
    for (let c = 32; c < 127; c++) this.ascii[c] = measure(String.fromCharCode(c));
  }

  private char(c: number, text: string, i: number): number {
    if (c < 128) return this.ascii[c]!;
    let w = this.others.get(c);
    if (w === undefined) {
      w = this.measure(c >= 0xd800 && c < 0xe000 ? text.slice(i, i + 2) : String.fromCharCode(c));
      if (c >= 0xd800 && c < 0xe000) w /= 2;
      this.others.set(c, w);
    }
    return w;
  }

  width(text: string): number {
    let w = this.widths.get(text);
    if (w === undefined) {
      w = 0;
      for (let i = 0; i < text.length; i++) w += this.char(text.charCodeAt(i), text, i);
      if (this.widths.size > 100_000) this.widths.clear();
      this.widths.set(text, w);
    }
    return w;
  }

  /** As much of the text as fits, with an ellipsis; "" where not even three characters do. */
  fit(text: string, room: number): string {
    if (this.width(text) <= room) return text;
    let left = room - this.width("…"), n = 0;
    while (n < text.length && (left -= this.char(text.charCodeAt(n), text, n)) >= 0) n++;
    const before = text.charCodeAt(n - 1);
    if (before >= 0xd800 && before < 0xdc00) n--;
    return n < 3 ? "" : text.slice(0, n) + "…";
  }
}

const digits = (v: number) => (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2));

export function formatValue(v: number, unit: string): string {
  const steps: [number, string][] = unit === "nanoseconds"
    ? [[3600e9, "h"], [60e9, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]]
    : unit === "bytes" ? [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]] : [];
  for (const [size, name] of steps) if (Math.abs(v) >= size) return `${digits(v / size)} ${name}`;
  return steps.length ? `0 ${steps[steps.length - 1]![1]}` : `${formatCount(v)}${unit && unit !== "count" ? ` ${unit}` : ""}`;
}

export function formatCount(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function formatShare(part: number): string {
  const p = part * 100;
  return `${p === 0 || p >= 99.995 ? p.toFixed(0) : p >= 10 ? p.toFixed(1) : p >= 0.01 ? p.toFixed(2) : "< 0.01"} %`;
}

/**
 * Half of the 95 % interval of n samples out of all: 1.96 standard deviations of a binomial count, which is 1.96 √n for a small part. It takes samples
 * for independent.
 */
export function plusMinus(n: number, all: number): number {
  return all > 0 ? 1.96 * Math.sqrt(n * Math.max(0, 1 - n / all)) : 0;
}

/** As text in SVG and HTML. Characters that XML does not allow at all are gone by then: see printable. */
export function escapeMarkup(text: string): string {
  return printable(text).replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
