import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { CHANGES, COLORS, changeColor } from "./color.ts";
import { Ruler, escapeMarkup, formatCount, formatShare, formatValue, plusMinus, printable, shorten } from "./text.ts";

test("names are shortened to what says most", () => {
  for (const [name, want] of [
    ["github.com/a/b.(*T).M", "b.(*T).M"],
    ["geo::area<geo::Circle, 7>", "geo::area<…>"],
    ["std::map<int, std::less<int>>::find(int const&)", "std::map<…>::find(int const&)"],
    ["<alloc::vec::Vec<T> as core::clone::Clone>::clone", "<alloc::vec::Vec<T> as core::clone::Clone>::clone"],
    ["bool operator<(A const&)", "bool operator<(A const&)"],
    ["Foo<Bar>::operator->", "Foo<…>::operator->"],
    ["open<", "open<"],
    ["[libc.so.6+0x29d90]", "[libc.so.6+0x29d90]"],
    ["main", "main"],
  ]) assert.equal(shorten(name!), want);
});

test("as much of a text as fits", () => {
  const r = new Ruler((text) => 10 * [...text].length);
  assert.equal(r.fit("abcdef", 60), "abcdef");
  assert.equal(r.fit("abcdef", 59), "abcd…");
  assert.equal(r.fit("abcdef", 39), "");
  for (let room = 0; room < 90; room++) assert.ok(!/[\ud800-\udbff](?![\udc00-\udfff])/.test(r.fit("ab😀😀cdef", room)));
});

test("names cannot pose as markup or as other names", () => {
  assert.equal(escapeMarkup(`<img src=x onerror="a&b">'`), "&#60;img src=x onerror=&#34;a&#38;b&#34;&#62;&#39;");
  assert.equal(printable("a\u202eb\nc\u0000\u2066"), "a\ufffdb\ufffdc\ufffd\ufffd");
  assert.equal(escapeMarkup("\ud800x\uffff😀"), "\ufffdx\ufffd😀");
});

test("numbers", () => {
  assert.deepEqual([0, 999, 1.5e6, 61e9, 7200e9].map((v) => formatValue(v, "nanoseconds")), ["0 ns", "999 ns", "1.50 ms", "1.02 min", "2.00 h"]);
  assert.deepEqual([3000, 1048576].map((v) => formatValue(v, "bytes")), ["2.93 KiB", "1.00 MiB"]);
  assert.equal(formatValue(12345, "count"), "12\u202f345");
  assert.equal(formatCount(1234567), "1\u202f234\u202f567");
  assert.deepEqual([0, 1, 0.5, 0.01234, 0.00001].map(formatShare), ["0 %", "100 %", "50.0 %", "1.23 %", "< 0.01 %"]);
  assert.ok(Math.abs(plusMinus(100, 1e9) - 19.6) < 0.01 && plusMinus(50, 50) === 0 && plusMinus(0, 0) === 0);
});

test("a change that may be chance is grey, whatever its size", () => {
  assert.equal(changeColor(0, 100, false), "same");
  assert.deepEqual([[1, 2], [10, 16], [10, 11], [10, 10], [11, 10], [16, 10], [2, 1], [0, 1], [1, 0]].map(([b, a]) => changeColor(b!, a!, true)),
    ["more3", "more2", "more1", "same", "less1", "less2", "less3", "more3", "less3"]);
  assert.ok(CHANGES.every(([name]) => COLORS.includes(name)));
});

test("ink is readable on all colours, in light and in dark", () => {
  const css = readFileSync("src/flame/flame.css", "utf8");
  const light = (hex: string) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  const contrast = (a: string, b: string) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const colors = [...css.matchAll(/--flame-([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);/g)];
  const values = [2, 3].map((i) => new Map(colors.map((m) => [m[1]!, m[i]!])));
  for (const theme of values) {
    for (const name of COLORS) {
      const ratio = contrast(theme.get(name === "match" ? "match-ink" : "ink")!, theme.get(name)!);
      assert.ok(ratio >= 4.5, `${name}: ${ratio.toFixed(2)}`);
    }
  }
});
