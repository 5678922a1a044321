import assert from "node:assert/strict";
import { test } from "node:test";

Object.assign(globalThis, { location: { search: "" }, addEventListener: () => {} });
const { parseState, formatState, initial, ofSpans, shift, whole } = await import("./state.ts");

test("a range of the address is one that there is", () => {
  for (const range of ["constructor", "__proto__", "toString", "5m"]) assert.equal(parseState(`?range=${range}`).range, initial.range, range);
  for (const range of ["15m", "24h", "2026-11-24T12:00:00Z/2026-11-24T13:00:00Z"]) assert.equal(parseState(`?range=${range}`).range, range);
});

test("the address holds all of the state", () => {
  const other: Record<string, unknown> = {};
  const given: Record<string, unknown> = { range: "1h", view: "top", color: "diff", scale: "time", from: 1000, to: 2000, beforeFrom: 3000, beforeTo: 4000, zoom: ["a", "b"] };
  for (const [name, value] of Object.entries(initial)) other[name] = given[name] ?? (typeof value === "boolean" ? !value : `${name} of it`);
  assert.deepEqual(parseState(formatState(other as unknown as typeof initial)), other);
});

test("files are shown whole, and compared where there are two", () => {
  const [old, new_] = ["2026-11-24T12:00:00Z", "2026-11-25T12:00:00Z"].map((from) => ({ from, to: from.replace("12:00", "12:01") }));
  const range = `${new_.from}/${new_.to}`;
  const away = { ...initial, range: "1h", from: 1000, to: 2000 };
  assert.equal(formatState({ ...away, ...whole() }), "");
  assert.equal(formatState({ ...away, ...whole([new_]) }), `?${new URLSearchParams({ range })}`);
  const both = { ...initial, range, compare: true, color: "diff", beforeFrom: Date.parse(old.from), beforeTo: Date.parse(old.to) };
  assert.deepEqual(parseState(formatState({ ...away, ...whole([old, new_]) })), both);
});

test("a time keeps its length, wherever it is moved to", () => {
  for (const span of [[0, 900_000], [500, 900_500]] as [number, number][]) {
    for (const by of [15_000, -15_000]) {
      let at: [number, number] = [840_000, 900_000];
      for (let i = 0; i < 80; i++) {
        at = shift(at, by, span);
        assert.equal(at[1] - at[0], 60_000);
      }
      assert.equal(by > 0 ? at[1] : at[0], by > 0 ? Math.ceil(span[1] / 1000) * 1000 : 0);
    }
  }
  assert.deepEqual(shift([-120_000, -60_000], -15_000, [0, 900_000]), [-120_000, -60_000]); // what lies before comes no nearer by that
});

test("a view is of spans where it names them, whatever else is wrong with it", () => {
  for (const of of [{ by: "span_id" }, { filter: 'comm="a",trace_id="b"' }, { filter: "span_id=~.*" }]) assert.ok(ofSpans({ ...initial, ...of }), JSON.stringify(of));
  for (const of of [{}, { by: "comm" }, { filter: 'comm="trace_id"' }, { filter: "trace_id" }]) assert.ok(!ofSpans({ ...initial, ...of }), JSON.stringify(of));
});
