import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { exactly, formatFilter, formatQuery, parseFilter, parseQuery, QueryError, shell } from "./query.ts";

test("a query is taken apart as the agent does", () => {
  assert.deepEqual(parseQuery('filter=comm=~"redis.*" , container_id!="" by=comm  focus=`a b` ignore="x\\"\\\\\\n"'), {
    filter: 'comm=~"redis.*",container_id!=""',
    by: "comm",
    focus: "a b",
    ignore: 'x"\\\n',
  });
  assert.deepEqual(parseFilter("pid=12,exe!~/usr/.*"), [
    { label: "pid", op: "=", value: "12" },
    { label: "exe", op: "!~", value: "/usr/.*" },
  ]);
  assert.deepEqual(parseFilter('trace_id="4bf92f3577b34da6a3ce929d0e0e4736",span_id!=""'), [
    { label: "trace_id", op: "=", value: "4bf92f3577b34da6a3ce929d0e0e4736" },
    { label: "span_id", op: "!=", value: "" },
  ]);
  assert.deepEqual(parseFilter(" "), []);
});

test("what is written is read as it was, whatever a process is called", () => {
  for (const value of ["", "a", 'say "x"', "`", "\\", "<img src=x onerror=alert(1)>", "a,b= c", "tab\tline\n", "ünï", "\x15id\x0f1", "a\u202eb\x7f\x9b"]) {
    const conditions = [{ label: "comm", op: "=" as const, value }];
    assert.deepEqual(parseFilter(formatFilter(conditions)), conditions);
    const query = { filter: formatFilter(conditions), focus: value || "x" };
    assert.deepEqual(parseQuery(formatQuery(query)), query);
  }
});

test("errors say where", () => {
  for (const [text, offset] of [
    ["by", 0],
    ["colour=red", 0],
    ["by=comm by=pid", 8],
    ["filter=name=x", 7],
    ["filter=comm>3", 11],
    ['focus="x', 8],
    ["focus=a`b", 7],
    ['focus="\\q"', 7],
  ] as const) {
    assert.throws(() => parseQuery(text), (e) => e instanceof QueryError && e.offset === offset, text);
  }
  assert.throws(() => parseFilter("pid=1 pid=2"), QueryError);
});

test("a name is a pattern for itself alone", () => {
  const name = "std::vector<int*>::operator[](x) $1+2?{a|b}^\\";
  assert.ok(new RegExp(exactly(name)).test(name));
  assert.ok(!new RegExp(exactly("a.b")).test("axb"));
});

test("a copied command has no keys in it, and gives a shell what was meant", () => {
  const name = "\x15i'd\\\x0f7\x7f\x9b\u202eü\n\t";
  for (const word of ["", "it's $HOME", name, exactly(name), formatFilter([{ label: "comm", op: "=", value: name }])]) {
    assert.doesNotMatch(shell(word), /[\p{Cc}\p{Bidi_Control}]/u);
    assert.equal(execFileSync("bash", ["-c", `printf %s ${shell(word)}`], { encoding: "utf8" }), word);
  }
});
