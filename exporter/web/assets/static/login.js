// Gives the token once, for a cookie that no script can read.
"use strict";

const form = document.getElementById("login");
const problem = document.getElementById("problem");

async function session(headers) {
  const answer = await fetch("/api/v1/session", { headers, cache: "no-store" });
  return answer.ok;
}

// A link on another site brings no cookie along, although there is one.
session({}).then((known) => { if (known) location.reload(); }, () => {});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  try {
    const token = form.elements.password.value.trim();
    if (/[^\x20-\x7e]/.test(token) || !await session({ Authorization: "Bearer " + token })) {
      problem.textContent = "That is not the token of this agent.";
      form.elements.password.select();
      return;
    }
    location.reload();
  } catch {
    problem.textContent = "The agent does not answer. Does it still run?";
  }
});
