"use strict";

const at = (id) => document.getElementById(id);
let ids = null; // of the bank that is shown
let moments = []; // of the slider; its last place is now
let key = sessionStorage.getItem("memr1 key") || "";

// Makes an element; texts become text nodes, so that nothing in a memory is ever HTML.
function make(name, content = [], more = {}) {
  const element = document.createElement(name);
  element.append(...[content].flat().filter((part) => part !== null && part !== ""));
  return Object.assign(element, more);
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

async function call(method, path, given = {}) {
  const query = method === "GET" ? `?${new URLSearchParams(given)}` : "";
  const headers = { "Content-Type": "application/json", ...(key && { "X-API-Key": key }) };
  const body = method === "GET" ? undefined : JSON.stringify(given);
  const reply = await fetch(path + query, { method, headers, body });
  if (reply.status === 401) at("unlock").hidden = false;
  const found = await reply.json().catch(() => ({ detail: `The server replied ${reply.status}.` }));
  if (!reply.ok) throw new Error(found.detail);
  return found;
}

// Runs what a click asks for; what goes wrong is said on the page.
function doing(work) {
  return async (event) => {
    event?.preventDefault();
    say("");
    try {
      await work(event);
    } catch (error) {
      say(error.message, true);
    }
  };
}

const time = (moment) => make("time", moment.slice(0, 16).replace("T", " "), { dateTime: moment, title: moment });
const button = (text, work) => make("button", text, { type: "button", onclick: doing(work) });
const named = (scope) => ["user_id", "agent_id", "run_id"].filter((name) => scope[name]).map((name) => scope[name]).join(" / ");

async function showBanks() {
  const { scopes } = await call("GET", "/stats");
  at("unlock").hidden = true;
  at("banks").replaceChildren(...scopes.map(({ memories, ...scope }) => {
    const open = button([named(scope), " ", make("span", `${memories}`, { className: "note" })], () => show(scope));
    if (ids && named(ids) === named(scope)) open.setAttribute("aria-current", "true");
    return make("li", open);
  }));
}

async function show(scope) {
  ids = scope;
  at("main").hidden = false;
  at("bank").textContent = named(scope);
  at("query").value = "";
  const { results } = await call("GET", "/timeline", { ...ids, top_k: 1000 });
  moments = [...new Set(results.flatMap((entry) => entry.events.map((event) => event[nameOfTime()])))].sort();
  at("moment").max = moments.length; // before the value, which it bounds
  at("moment").value = moments.length;
  at("timeline").replaceChildren(...results.reverse().map(entryOf));
  await Promise.all([showMemories(), showBanks()]);
}

const nameOfTime = () => (at("by").value === "written" ? "created_at" : "event_time");
const chosen = () => moments[Number(at("moment").value)]; // undefined is now

function past() {
  const name = at("by").value === "written" ? "as_of_written" : "as_of";
  return chosen() ? { [name]: chosen() } : {};
}

async function showMemories() {
  at("when").textContent = chosen() ? chosen().slice(0, 19).replace("T", " ") : "now";
  at("diff").disabled = !chosen();
  at("changes").hidden = true;
  const query = at("query").value.trim();
  const { results } = query
    ? await call("POST", "/search", { query, ...ids, ...past(), top_k: 50 })
    : await call("GET", "/memories", { ...ids, ...past(), top_k: 1000 });
  at("count").textContent = query ? `${results.length} found` : `${results.length}`;
  at("memories").replaceChildren(...results.map((memory) => make("li", [
    memory.memory, " ", make("span", memory.actor_id || "", { className: "note" }), " ", time(memory.event_time),
    memory.score === undefined ? "" : make("span", ` ${memory.score.toFixed(3)}`, { className: "note" }),
  ])));
}

function change(before, after) {
  const marked = [before && make("del", before), before && after && " → ", after && make("ins", after)];
  return marked.filter(Boolean);
}

async function showDiff() {
  const found = await call("POST", "/diff", { before: chosen(), by: at("by").value, ...ids });
  const lines = [
    ...found.added.map((memory) => change("", memory.memory)),
    ...found.updated.map((memory) => change(memory.previous_memory, memory.memory)),
    ...found.deleted.map((memory) => change(memory.memory, "")),
  ];
  at("changes").replaceChildren(...(lines.length ? lines.map((line) => make("p", line)) : ["Nothing changed."]));
  at("changes").hidden = false;
}

async function undo(what) {
  const { results } = await call("POST", "/undo", what);
  await show(ids);
  say(`Undone: ${results.length}.`);
}

function entryOf({ call: name, message, created_at, events }) {
  const standing = events.filter((event) => event.memory_id && event.stands);
  const items = events.map((event) => {
    const marks = [make("b", event.event, { className: `event-${event.event.toLowerCase()}` }), " ", ...change(event.old_memory, event.new_memory)];
    if (!event.memory_id) marks.push((event.facts || []).join(" "));
    if (event.memory_id && event.stands) marks.push(" ", button("Undo", () => undo({ event_id: event.id })));
    if (event.output) marks.push(make("details", [make("summary", "Why"), make("pre", event.prompt || ""), make("pre", event.output)]));
    const undone = event.stands ? "" : " undone";
    return make("li", marks, { className: `tone-${event.event.toLowerCase()}${undone}` });
  });
  const head = message ? [make("blockquote", [make("strong", message.speaker), ": ", message.content])] : [];
  const whole = standing.length > 1 ? [" ", button("Undo all", () => undo({ call: name }))] : [];
  return make("li", [...head, time(created_at), ...whole, make("ul", items)]);
}

at("unlock").addEventListener("submit", doing(async () => {
  key = at("key").value;
  sessionStorage.setItem("memr1 key", key);
  await showBanks();
}));
at("open").addEventListener("submit", doing(() => show({ user_id: at("user").value.trim() })));
at("add").addEventListener("submit", doing(async () => {
  const { results } = await call("POST", "/memories", { messages: at("text").value, ...ids });
  at("text").value = "";
  await show(ids);
  say(results.map((result) => `${result.event} ${result.memory}`).join("; ") || "Nothing was remembered.");
}));
at("search").addEventListener("submit", doing(showMemories));
at("moment").addEventListener("input", doing(showMemories));
at("by").addEventListener("change", doing(() => show(ids)));
at("diff").addEventListener("click", doing(showDiff));
doing(showBanks)();
