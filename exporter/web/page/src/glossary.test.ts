import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "./glossary.ts";

test("a frame is explained by its name and whose it is", () => {
  assert.match(explain("schedule", "kernel")!, /scheduler/);
  assert.match(explain("_int_malloc", "native")!, /allocator/);
  assert.match(explain("runtime.mallocgcSmallNoscan", "go")!, /Go's allocator/);
  assert.match(explain("[truncated: no rule]", "truncated")!, /could not be walked/);
  assert.match(explain("[libc.so.6+0x29d90]", "unknown")!, /no symbols/);
  for (const [name, kind] of [["schedule", "native"], ["free", "kernel"], ["main", "go"], ["G1Update", "kernel"], ["schedule", "label"], ["[lost]", "native"], ["main", "constructor"]] as const) {
    assert.equal(explain(name, kind), undefined, `${name}, ${kind}`);
  }
});
