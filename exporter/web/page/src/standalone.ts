// A profile as one file (record --format html): the flame graph with its data beside it. The heading and the table of the hottest functions are in the
// document already, as Go wrote them: they are there without a script too.

import "./styles/standalone.css";
import type { ColorMode } from "./flame/color.ts";
import type { FlameNode } from "./flame/model.ts";
import { formatShare } from "./flame/text.ts";
import { FlameGraph, KEYS } from "./flame/view.ts";

interface Profile { unit: string; root: FlameNode }

const get = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const profile = JSON.parse(get("profile").textContent) as Profile;
for (const part of document.querySelectorAll<HTMLElement>("[data-script]")) part.hidden = false;
const graph = new FlameGraph(get("graph"), { unit: profile.unit });
graph.setData(profile.root, false);

const search = get<HTMLInputElement>("search");
const found = get("found");
search.addEventListener("input", () => {
  const result = graph.search(search.value);
  found.textContent = search.value === "" ? "" : result.problem ?? `${result.matches} found, ${formatShare(result.share)}`;
});
search.addEventListener("keydown", (e) => {
  if (e.key !== "Enter") return;
  if (e.shiftKey) graph.previous();
  else graph.next();
});
document.addEventListener("keydown", (e) => {
  if (e.key !== "/" || e.target === search || e.ctrlKey || e.metaKey || e.altKey) return;
  e.preventDefault();
  search.focus();
});

const color = get<HTMLSelectElement>("color");
color.addEventListener("change", () => graph.setColor(color.value as ColorMode));

function toggle(id: string, set: (on: boolean) => void) {
  const button = get(id);
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    set(on);
  });
}
toggle("invert", (on) => graph.setInverted(on));
toggle("collapse", (on) => graph.setCollapse(on));

async function save(name: string, content: Blob | Promise<Blob>) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
get("png").addEventListener("click", () => void save("profile.png", graph.exportPNG()));
get("svg").addEventListener("click", () => void save("profile.svg", new Blob([graph.exportSVG()], { type: "image/svg+xml" })));

const keys = get("keys");
for (const [key, what] of [["/", "search"], ...KEYS]) {
  const row = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
  term.textContent = key!;
  text.textContent = what!;
  row.append(term, text);
  keys.append(row);
}
document.body.dataset["ready"] = "true";
