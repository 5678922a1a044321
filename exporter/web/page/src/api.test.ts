import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

Object.assign(globalThis, { location: { search: "" }, addEventListener: () => {} });
const { ask } = await import("./api.ts");

test("a poll leaves nothing with its signal", async () => {
  const { signal } = new AbortController();
  globalThis.fetch = async () => new Response("{}");
  await Promise.all([1, 2, 3, 4].map(() => ask("/", 0, signal)));
  assert.equal(getEventListeners(signal, "abort").length, 0);
});
