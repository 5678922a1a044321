import assert from "node:assert/strict";
import { test } from "node:test";

test("a range of the address is one that there is", async () => {
  Object.assign(globalThis, { location: { search: "" }, addEventListener: () => {} });
  const { parseState, initial } = await import("./state.ts");
  for (const range of ["constructor", "__proto__", "toString", "5m"]) assert.equal(parseState(`?range=${range}`).range, initial.range, range);
  for (const range of ["15m", "24h", "2026-11-24T12:00:00Z/2026-11-24T13:00:00Z"]) assert.equal(parseState(`?range=${range}`).range, range);
});
