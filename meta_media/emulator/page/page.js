"use strict";
// What others have named is written as text, never as HTML; the policy of the page forbids the latter (trusted types).

const BASE = "/emulator/page/";
const PERSON = /^(\d+|[A-Z]{2}\..+)$/; // not a group
const LADDER = ["sent", "delivered", "read"];
const PLAYERS = { image: "img", video: "video", audio: "audio" };
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g; // hides or turns text
const nodes = { media: new Map(), message: new Map(), activity: new Map() }; // what is shown, by key
const queue = []; // changes that are not shown yet
const visible = new Set(); // cards
const peers = new Map(); // conversations, by name
let facts = { ahead: 0 };
let stored = 0; // media, with those beyond the list
let source; // of events
let filling, dropping; // timers

const find = (id) => document.getElementById(id);
const plain = (value) => String(value ?? "").replace(UNSAFE, "\ufffd");
const fileOf = (key) => `${BASE}media/${key}`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const number = (value) => value.toLocaleString("en");
const bytes = new Intl.NumberFormat("en", { style: "unit", unit: "byte", notation: "compact", unitDisplay: "narrow" });

function make(tag, name = "", text = "", ...children) {
  const node = Object.assign(document.createElement(tag), { className: name, textContent: plain(text) });
  node.append(...children);
  return node;
}

function say(text) {
  const place = find("said");
  clearTimeout(say.timer);
  place.textContent = ""; // so that the same sentence is read aloud once more
  requestAnimationFrame(() => { place.textContent = plain(text); });
  say.timer = setTimeout(() => { place.textContent = ""; }, 8000);
}

async function ask(path, body, method = "POST") {
  try {
    const response = await fetch(BASE + path, { method, body, headers: { "X-Emulator-Page": "1" } });
    const json = response.headers.get("content-type")?.includes("json");
    const answer = json ? await response.json() : { error: await response.text() };
    if (response.ok) return answer ?? {};
    say(answer.error);
  } catch {
    const unreadable = body instanceof File && source.readyState === EventSource.OPEN;
    say(unreadable ? `${body.name} cannot be read: choose a file.` : "The emulator does not answer: start it again.");
  }
  return null;
}

function span(seconds) {
  const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60]].find(([, length]) => seconds >= length) ?? ["s", 1];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

// Media: a card is filled when it is first seen, but not while it is only scrolled past

find("cards").addEventListener("contentvisibilityautostatechange", ({ target: card, skipped }) => {
  visible[skipped ? "delete" : "add"](card);
  if (!skipped) showTimes(card);
  filling ??= setTimeout(() => {
    filling = null;
    visible.forEach((shown) => shown.filled || fill(shown));
  }, 100);
});

function showMedia(key, entry, old) {
  const card = old ?? find("card-template").content.firstElementChild.cloneNode(true);
  card.entry = entry;
  if (!old) {
    const name = plain(entry.name) || `${entry.shown ?? "file"} without a name`;
    Object.assign(card, { id: `m-${key}`, key, called: name, at: entry.at });
    card.classList.add(entry.shown ?? "file");
    card.querySelector(".name").textContent = name;
    card.querySelector(".about").textContent = `${plain(entry.type)} · ${bytes.format(entry.size)}`;
    card.querySelector(".id").textContent = `id ${key}`;
    for (const button of card.querySelectorAll(".buttons > *")) button.ariaLabel = `${button.textContent} ${name}`;
    Object.assign(card.querySelector("a"), { href: fileOf(key), download: name });
    place(find("cards"), card);
  }
  showTimes(card);
  return card;
}

function place(list, node) { // the newest first
  let next = list.firstElementChild;
  if (next && list.lastElementChild.at >= node.at) next = null;
  while (next && next.at > node.at) next = next.nextElementSibling;
  list.insertBefore(node, next);
}

function showTimes(card) {
  const { at, expires } = card.entry;
  const now = Date.now() / 1000;
  const left = expires === null ? Infinity : expires - (now + facts.ahead);
  const end = left === Infinity ? "never expires" : left > 0 ? `${span(left)} left` : "expired";
  card.querySelector(".times").textContent = `${span(now - at)} old · ${end}`;
  card.classList.toggle("expired", left <= 0);
}

async function fill(card) {
  card.filled = true;
  const { entry, key } = card;
  const label = make("span", "", entry.type.split(";")[0].split("/").pop().slice(0, 40));
  const player = entry.shown ? make(PLAYERS[entry.shown]) : label;
  if (entry.shown) {
    player.addEventListener("error", () => player.replaceWith(label), { once: true });
    const described = entry.shown === "image" ? { alt: "" } : { controls: true, preload: "metadata", ariaLabel: card.called };
    Object.assign(player, described, { src: fileOf(key) });
  }
  card.querySelector(".preview").append(player);
  const answer = await ask(`media/${key}/verdict`, undefined, "GET");
  if (!answer) return;
  const verdict = card.querySelector(".verdict");
  verdict.classList.toggle("refused", Boolean(answer.refusal));
  verdict.textContent = plain(answer.refusal ? `Refused: ${answer.refusal}` : `Fit to be sent as ${answer.kind}`);
}

function removeMedia(card) {
  if (card.contains(document.activeElement)) {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    (next?.querySelector("[data-do=delete]") ?? find("receive").elements.files).focus();
  }
  visible.delete(card);
  card.remove();
}

// Conversations

function showMessage(key, entry, old) {
  if (old) { // its statuses alone change
    old.querySelector(".ladder")?.replaceWith(ladder(entry.statuses));
    return old;
  }
  const item = make("li", entry.sent ? "message sent" : "message");
  const meta = make("p", "meta", `${entry.sent ? "You" : "Customer"} · ${entry.kind} · ${clock(entry.at)} `);
  const card = entry.media && nodes.media.get(entry.media);
  if (card) {
    const image = { alt: "", loading: "lazy", src: fileOf(entry.media) };
    if (card.entry.shown === "image") item.append(Object.assign(make("img"), image));
    meta.append(Object.assign(make("a", "", card.called), { href: `#${card.id}` }));
  }
  if (entry.text) item.append(make("p", "", entry.text));
  item.append(meta);
  if (entry.sent) item.append(ladder(entry.statuses));
  if (entry.error) item.append(make("p", "error", entry.error));
  talk(entry).append(item);
  item.key = key;
  return item;
}

function ladder(statuses) {
  const steps = Object.assign(make("ol", "ladder"), { ariaLabel: "Status" });
  const ahead = statuses.includes("failed") ? [] : LADDER.filter((status) => !statuses.includes(status));
  steps.append(...statuses.map((status) => make("li", status, status)));
  steps.append(...ahead.map((status) => Object.assign(make("li", "ahead", status), { ariaHidden: "true" })));
  return steps;
}

function talk({ peer, number: of }) {
  const name = facts.number === of ? peer : `${peer} with ${of}`;
  if (!peers.has(name)) {
    peers.set(name, Object.assign(make("ol", "talk"), { of: name, choice: new Option(plain(peer)) }));
    if (PERSON.test(peer)) find("people").append(peers.get(name).choice);
    make("article", "peer", "", make("h3", "", name), peers.get(name));
  }
  const list = peers.get(name);
  const article = list.parentElement;
  const first = find("peers").firstElementChild;
  if (first !== article && !article.contains(document.activeElement)) find("peers").prepend(article);
  return list;
}

function removeMessage(item) {
  const list = item.parentElement;
  item.remove();
  if (list.children.length) return;
  peers.delete(list.of);
  list.choice.remove();
  list.parentElement.remove();
}

// Requests and webhooks

function showActivity(key, entry, old) {
  if (old) return old; // it never changes
  const row = find("row-template").content.firstElementChild.cloneNode(true);
  const parts = plain(entry.where).split(/(?=\/)/); // a long path may break before a slash
  row.key = key;
  row.classList.toggle("wrong", !(entry.status < 400));
  row.classList.toggle("fault", entry.fault);
  row.querySelector("time").textContent = clock(entry.at);
  row.querySelector("b").textContent = plain(entry.what) + (entry.fault ? " fault" : "");
  row.querySelector(".where").append(...parts.flatMap((part) => [make("wbr"), part]));
  row.querySelector(".status").textContent = plain(entry.status);
  row.querySelector(".took").textContent = `${Math.round(entry.seconds * 1000)} ms`;
  row.querySelector("details").addEventListener("toggle", () => {
    for (const [name, value] of Object.entries(entry.details)) {
      row.querySelector("dl").append(make("dt", "", name), make("dd", "", "", make(name === "body" ? "pre" : "span", "", value)));
    }
  }, { once: true });
  find("log").prepend(row);
  return row;
}

// Events

const KINDS = {
  media: { most: 1000, show: showMedia, remove: removeMedia, oldest: () => find("cards").lastElementChild },
  message: { most: 200, show: showMessage, remove: removeMessage, oldest: () => nodes.message.values().next().value },
  activity: { most: 200, show: showActivity, remove: (row) => row.remove(), oldest: () => find("log").lastElementChild },
};

function change([kind, key, entry]) {
  const { most, show, remove, oldest } = KINDS[kind];
  const known = nodes[kind];
  const old = known.get(key);
  if (kind === "media") stored += Boolean(entry) - Boolean(old);
  if (entry) known.set(key, show(key, entry, old));
  else if (known.delete(key)) remove(old);
  const last = known.size > most ? oldest() : null;
  if (last && !last.contains(document.activeElement)) {
    known.delete(last.key);
    remove(last);
  }
}

function take(event) {
  const { changes = [], facts: told, stored: all } = JSON.parse(event.data);
  if (told) showFacts(told);
  if (all !== undefined) { // everything there is: what is not in it is gone
    const there = new Set(changes.map(([kind, key]) => `${kind} ${key}`));
    queue.length = 0;
    for (const kind of Object.keys(nodes)) {
      for (const key of [...nodes[kind].keys()]) if (!there.has(`${kind} ${key}`)) change([kind, key, null]);
    }
    stored = all - changes.filter(([kind, key]) => kind === "media" && !nodes.media.has(key)).length;
  }
  queue.push(...changes);
  work();
}

function work() { // for a part of each frame, so that a thousand cards do not keep the page from answering
  const end = performance.now() + 10;
  while (queue.length && performance.now() < end) change(queue.shift());
  if (queue.length) requestAnimationFrame(work);
  const listed = nodes.media.size;
  const rest = stored > listed && !queue.length ? ` newest of ${number(stored)}` : "";
  find("stored").textContent = listed ? number(listed) + rest : "";
  find("talks").textContent = peers.size || "";
  for (const empty of document.querySelectorAll(".empty")) empty.hidden = empty.nextElementSibling.childElementCount > 0;
}

function showFacts(told) {
  facts = told;
  const named = { Address: told.address, Number: told.number, Token: told.token, Webhook: told.webhook ?? "none" };
  const pairs = Object.entries(named);
  find("facts").replaceChildren(...pairs.map((pair) => make("div", "", "", make("dt", "", pair[0]), make("dd", "", pair[1]))));
  for (const [name, choices] of Object.entries(told.choices)) {
    const select = find("fault").elements[name];
    if (!select.length) select.append(...choices.map((choice) => new Option(choice)));
  }
  find("faults").replaceChildren(...told.faults.map(({ operation, name, times }) => {
    const often = times === null ? ", always" : times > 1 ? `, ${times} times` : "";
    return make("li", "", `${operation}: ${name}${often}`);
  }));
  visible.forEach(showTimes);
}

function connect() {
  source?.close();
  if (document.hidden) return; // a browser has six connections to a server: a tab in the background takes none
  source = new EventSource(`${BASE}events`);
  source.onmessage = take;
  source.onopen = () => Object.assign(find("live"), { textContent: "Live", className: "on" });
  source.onerror = () => {
    Object.assign(find("live"), { textContent: "Not connected", className: "" });
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}

// Buttons

async function receive(files) {
  const { sender, caption, files: chosen } = find("receive").elements;
  for (const file of files) {
    say(`Receiving ${file.name} …`);
    const given = { filename: file.name, mime_type: file.type, sender: sender.value, caption: caption.value };
    const answer = await ask(`receive?${new URLSearchParams(given)}`, file);
    if (!answer) return;
    const [status] = answer.statuses; // 0 is no response; none, no webhook
    const got = `${status ? `HTTP ${status}` : "no response"}${status === 200 ? "" : ", and is posted again"}`;
    say(`Received ${file.name}.${status === undefined ? "" : ` The webhook got ${got}.`}`);
  }
  chosen.value = "";
}

function openSend(card) {
  const dialog = Object.assign(find("send"), { key: card.key, returnValue: "" });
  dialog.querySelector("bdi").textContent = card.called;
  dialog.querySelector("[name=caption]").disabled = /^audio|webp/.test(card.entry.type);
  dialog.showModal();
}

find("receive").addEventListener("submit", (event) => {
  event.preventDefault();
  receive([...event.target.elements.files.files]);
});
find("cards").addEventListener("click", async ({ target }) => {
  const what = target.dataset.do;
  const card = target.closest(".card");
  if (what === "send") openSend(card);
  else if (what && await ask(`media/${card.key}/${what}`)) say(`${card.called}: ${what}d.`);
});
find("send").addEventListener("close", async ({ target }) => {
  if (target.returnValue !== "send") return;
  const { to, caption } = target.querySelector("form").elements;
  const body = JSON.stringify({ to: to.value, caption: caption.disabled ? "" : caption.value });
  if (await ask(`media/${target.key}/send`, body)) say(`Sent to ${to.value}.`);
});
find("fault").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  if (await ask("fault", given)) say("The fault is planned.");
});
find("heal").addEventListener("click", async () => await ask("heal") && say("No fault is planned any more."));
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
  clearTimeout(dropping); // it comes twice a second while something is held there
  dropping = setTimeout(() => document.body.classList.remove("dropping"), 1000);
});
addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  receive([...event.dataTransfer.files]);
});

function markPart() {
  const part = ["#conversations", "#activity"].find((other) => other === location.hash) ?? "#media";
  for (const link of document.querySelectorAll("nav a")) link.ariaCurrent = link.hash === part ? "page" : null;
}
addEventListener("hashchange", markPart);
document.addEventListener("visibilitychange", connect);
setInterval(() => visible.forEach(showTimes), 5000);
markPart();
connect();
