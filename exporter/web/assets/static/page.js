// Keeps the page up to date: fetches what changes and puts it where the server had put it.
"use strict";

const every = 5000; // ms, once there is something to show
const soon = 1000;

function bar(percent) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("width", percent);
  rect.setAttribute("height", 1);
  svg.append(rect);
  return svg;
}

function cell(...content) {
  const td = document.createElement("td");
  td.append(...content); // text stays text
  return td;
}

function row(f) {
  const tr = document.createElement("tr");
  const name = document.createElement("code");
  name.textContent = f.function;
  const named = cell(bar(f.selfPercent), name);
  named.className = "function";
  tr.append(cell(f.selfPercent.toFixed(1) + " %"), cell(f.totalPercent.toFixed(1) + " %"), named, cell(f.file));
  return tr;
}

function show(status) {
  for (const id of ["uptime", "samples", "cost", "span"]) {
    document.getElementById(id).textContent = status[id];
  }
  state(status.sampling, status.state);
  const functions = status.top.functions;
  if (functions.length > 0) {
    document.querySelector("#top tbody").replaceChildren(...functions.map(row));
  }
  return functions.length > 0;
}

function state(on, text) {
  const place = document.getElementById("state");
  place.className = on ? "on" : "off";
  if (place.textContent !== text) place.textContent = text; // read aloud only when it changes
}

async function refresh() {
  let filled = true;
  try {
    if (!document.hidden) {
      const answer = await fetch("/api/v1/status");
      if (!answer.ok) throw new Error(answer.status);
      filled = show(await answer.json());
    }
  } catch {
    state(false, "the agent does not answer");
  }
  setTimeout(refresh, filled ? every : soon);
}

setTimeout(refresh, document.querySelector("#top td.function") ? every : soon);
