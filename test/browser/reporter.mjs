// Tells of tests in the words of `go test -json`, which test/summary counts.
const say = (action, name, rest = {}) => JSON.stringify({ Action: action, Package: "test/browser", Test: name, ...rest }) + "\n";

export default async function* report(events) {
  for await (const { type, data } of events) {
    switch (type) {
      case "test:pass":
        if (data.nesting === 0 && data.details?.type !== "suite") yield say(data.skip === undefined ? "pass" : "skip", data.name);
        break;
      case "test:fail": {
        const error = data.details?.error;
        yield say("output", data.name, { Output: `${data.name}: ${error?.cause?.stack ?? error?.stack ?? error}\n` });
        if (data.nesting === 0) yield say("fail", data.name);
        break;
      }
      case "test:stderr":
      case "test:stdout":
        yield data.message;
        break;
    }
  }
}
