import assert from "node:assert/strict";
import { test } from "node:test";
import { ticks } from "./format.ts";

test("no two ticks say the same, and all have seconds or none", () => {
  const start = Date.parse("2026-11-24T12:00:58") / 1000; // in the time of the reader
  const shown = (...seconds: number[]) => ticks(seconds.map((s) => start + s)).map((text) => text.replace(/^.* /, ""));
  assert.deepEqual(shown(0, 0.5, 1, 1.5, 2), ["12:00:58", "", "12:00:59", "", "12:01:00"]);
  assert.deepEqual(shown(2, 62, 122), ["12:01", "12:02", "12:03"]);
});
