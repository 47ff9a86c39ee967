"use strict";
// Asks the server, which saves each answer before it replies.

const TOKEN = new URLSearchParams(location.search).get("token") ?? "";

/** What the server says instead of doing what it is asked; status 0: it does not reply at all. */
class Refused extends Error {
  constructor(status, reply) {
    super(reply.message ?? "");
    this.status = status;
    this.reply = reply;
  }
}

/** One tab: it keeps its name when it is loaded again. */
function tabName() {
  let name = null;
  try {
    name = sessionStorage.getItem("tab");
    name ??= crypto.randomUUID();
    sessionStorage.setItem("tab", name);
  } catch {
    name ??= crypto.randomUUID();
  }
  return name;
}

async function ask(what, body, options = {}) {
  let response;
  try {
    response = await fetch(`api/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": TOKEN },
      body: JSON.stringify(body),
      signal: options.keepalive ? undefined : AbortSignal.timeout(20_000),
      ...options,
    });
  } catch {
    throw new Refused(0, {});
  }
  let reply = {};
  try {
    reply = await response.json();
  } catch {
    if (response.ok) throw new Refused(0, {}); // it ended in the middle of a word
  }
  if (!response.ok) throw new Refused(response.status, reply);
  return reply;
}

function imageAddress(sample) {
  return `image/${encodeURIComponent(sample)}?token=${encodeURIComponent(TOKEN)}`;
}
