import assert from "node:assert/strict";
import { test } from "node:test";
import { ticks } from "./format.ts";

test("no two ticks say the same", () => {
  const start = Date.parse("2026-11-24T12:00:58") / 1000; // in the time of the reader
  const shown = ticks([0, 0.5, 1, 1.5, 2].map((s) => start + s)).map((text) => text.replace(/^.* /, ""));
  assert.deepEqual(shown, ["12:00:58", "", "12:00:59", "", "12:01"]);
});
