// Runs the statements of standard input, which are separated by lines of "---", in one session of
// ClickHouse, and prints what the last one says, a JSON object for each row.
const { Session } = require("chdb");

const statements = require("fs").readFileSync(0, "utf8").split("\n---\n");
const session = new Session();
try {
  statements.slice(0, -1).forEach((s) => session.query(s));
  process.stdout.write(session.query(statements.at(-1), "JSONEachRow"));
} finally {
  session.cleanup();
}
