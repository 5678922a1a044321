// Copies what the agent serves at /speedscope/ out of the npm package of speedscope (MIT): its page, script, style, font and their
// licences, without the example and the reader of Java's recordings (400 KB of 1 MB).
import { copyFileSync, mkdirSync, readdirSync, rmSync } from "node:fs";

const from = new URL("node_modules/speedscope/", import.meta.url), to = new URL("../assets/speedscope/", import.meta.url);
rmSync(to, { recursive: true, force: true });
mkdirSync(to);
copyFileSync(new URL("LICENSE", from), new URL("LICENSE", to));
const release = new URL("dist/release/", from);
for (const name of readdirSync(release)) {
  if (/^(index\.html|speedscope-.*\.(js|css)|favicon-.*\.(png|ico)|.*\.woff2|.*LICENSE\.md)$/.test(name)) copyFileSync(new URL(name, release), new URL(name, to));
}
