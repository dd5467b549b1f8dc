"use strict";
// Everything that others have named is written as text, never as HTML; the policy of the page forbids the latter (trusted types).

const BASE = "/emulator/page/";
const SHOWN = { media: 1000, message: 200, activity: 200 }; // entries of each kind
const LADDER = ["sent", "delivered", "read"];
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g; // would hide or turn text
const nodes = { media: new Map(), message: new Map(), activity: new Map() }; // by key
const queue = []; // changes that are not shown yet
const visible = new Set(); // cards
const peers = new Map(); // conversations
let facts = { ahead: 0 };
let stored = 0;

const find = (id) => document.getElementById(id);
const plain = (value) => String(value ?? "").replace(UNSAFE, "\ufffd");
const fileOf = (key) => `${BASE}media/${key}`;

function make(tag, name = "", text = "") {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = plain(text);
  return node;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function say(text) {
  const place = find("said");
  clearTimeout(say.timer);
  place.textContent = "";
  requestAnimationFrame(() => { place.textContent = plain(text); });
  say.timer = setTimeout(() => { place.textContent = ""; }, 8000);
}

async function ask(path, body, method = "POST") {
  try {
    const headers = { "X-Emulator-Page": "1" };
    const response = await fetch(BASE + path, { method, headers, body });
    const type = response.headers.get("content-type") ?? "";
    const answer = type.includes("json") ? await response.json() : { error: await response.text() };
    if (response.ok) return answer ?? {};
    say(answer.error);
  } catch {
    say("The emulator does not answer: start it again.");
  }
  return null;
}

// Numbers for people

function amount(bytes) {
  const step = bytes < 1e3 ? 0 : bytes < 1e6 ? 1 : 2;
  return `${(bytes / 1e3 ** step).toLocaleString("en", { maximumFractionDigits: step && 1 })} ${["bytes", "kB", "MB"][step]}`;
}

function span(seconds) {
  const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, length]) => seconds >= length) ?? ["s", 1];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

// Media

const observer = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) visible.delete(target);
    else {
      visible.add(target);
      showTimes(target);
      if (!target.filled) fill(target);
    }
  }
}, { scrollMargin: "400px" });

function showMedia(key, entry, old) {
  const card = old ?? find("card-template").content.firstElementChild.cloneNode(true);
  card.entry = entry;
  if (!old) {
    const name = plain(entry.name) || `${entry.shown ?? "file"} without a name`;
    card.id = `m-${key}`;
    card.key = key;
    card.title_ = name;
    card.querySelector(".name").textContent = name;
    card.querySelector(".about").textContent = `${plain(entry.type)} · ${amount(entry.size)}`;
    card.querySelector(".id").textContent = `id ${key}`;
    card.classList.add(entry.shown ?? "file");
    for (const button of card.querySelectorAll("[data-do]")) {
      button.setAttribute("aria-label", `${button.textContent} ${name}`);
    }
    const link = card.querySelector("a");
    link.href = fileOf(key);
    link.download = name;
    link.setAttribute("aria-label", `Save ${name}`);
    card.at = entry.at;
    place(find("cards"), card);
    observer.observe(card);
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
  const now = Date.now() / 1000;
  const { at, expires } = card.entry;
  const left = expires === null ? Infinity : expires - (now + facts.ahead);
  const end = left === Infinity ? "never expires" : left > 0 ? `${span(left)} left` : "expired";
  write(card.querySelector(".times"), `${span(now - at)} old · ${end}`);
  card.classList.toggle("expired", left <= 0);
}

async function fill(card) {
  card.filled = true;
  const { entry, key } = card;
  const tags = { image: "img", video: "video", audio: "audio" };
  const label = () => make("span", "", entry.type.split(";")[0].split("/").pop().slice(0, 40));
  const preview = card.querySelector(".preview");
  if (entry.shown) {
    const player = make(tags[entry.shown]);
    if (entry.shown === "image") player.alt = "";
    else Object.assign(player, { controls: true, preload: "metadata", ariaLabel: card.title_ });
    player.addEventListener("error", () => player.replaceWith(label()), { once: true });
    player.src = fileOf(key);
    preview.append(player);
  } else preview.append(label());
  const answer = await ask(`media/${key}/verdict`, undefined, "GET");
  if (!answer) return;
  const place = card.querySelector(".verdict");
  place.classList.toggle("refused", Boolean(answer.refusal));
  place.textContent = plain(answer.refusal ? `Refused: ${answer.refusal}` : `Fit to be sent as ${answer.kind}`);
}

function removeMedia(card) {
  if (card.contains(document.activeElement)) {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    (next?.querySelector("[data-do=delete]") ?? find("receive").elements.files).focus();
  }
  observer.unobserve(card);
  visible.delete(card);
  card.remove();
}

// Conversations

function showMessage(key, entry, old) {
  const item = old ?? make("li", entry.sent ? "message sent" : "message");
  item.replaceChildren();
  const media = entry.media && nodes.media.get(entry.media);
  if (media?.entry.shown === "image") {
    const picture = make("img");
    Object.assign(picture, { alt: "", loading: "lazy", src: fileOf(entry.media) });
    item.append(picture);
  }
  if (entry.text) item.append(make("p", "", entry.text));
  const meta = make("p", "meta", `${entry.sent ? "You" : "Customer"} · ${entry.kind} · ${clock(entry.at)} `);
  if (media) {
    const link = make("a", "", media.title_);
    link.href = `#${media.id}`;
    meta.append(link);
  }
  item.append(meta);
  if (entry.sent) item.append(ladder(entry.statuses));
  if (entry.error) item.append(make("p", "error", entry.error));
  if (!old) talk(entry).append(item);
  item.key = key;
  return item;
}

function ladder(statuses) {
  const steps = make("ol", "ladder");
  steps.ariaLabel = "Status";
  for (const status of statuses) steps.append(make("li", status, status));
  const ahead = statuses.includes("failed") ? [] : LADDER.filter((status) => !statuses.includes(status));
  for (const status of ahead) {
    const step = make("li", "ahead", status);
    step.ariaHidden = "true";
    steps.append(step);
  }
  return steps;
}

function talk({ peer, number }) {
  const name = facts.number === number ? peer : `${peer} with ${number}`;
  let list = peers.get(name);
  if (!list) {
    list = make("ol", "talk");
    make("article", "peer").append(make("h3", "", name), list);
    peers.set(name, list);
  }
  const { parentElement: article } = list;
  if (!article.contains(document.activeElement)) find("peers").prepend(article);
  return list;
}

function removeMessage(item) {
  const list = item.parentElement;
  item.remove();
  if (list.children.length) return;
  list.parentElement.remove();
  for (const [name, kept] of peers) if (kept === list) peers.delete(name);
}

// Requests and webhooks

function showActivity(key, entry) {
  const row = find("row-template").content.firstElementChild.cloneNode(true);
  row.classList.toggle("wrong", !(entry.status < 400));
  row.classList.toggle("fault", entry.fault);
  row.querySelector("time").textContent = clock(entry.at);
  row.querySelector("b").textContent = plain(entry.what) + (entry.fault ? " fault" : "");
  const parts = plain(entry.where).split(/(?=\/)/); // a long path may break before a slash
  row.querySelector(".where").append(...parts.flatMap((part) => [document.createElement("wbr"), part]));
  row.querySelector(".status").textContent = plain(entry.status);
  row.querySelector(".took").textContent = `${Math.round(entry.seconds * 1000)} ms`;
  row.querySelector("details").addEventListener("toggle", () => {
    const place = row.querySelector("dl");
    for (const [name, value] of place.childElementCount ? [] : Object.entries(entry.details)) {
      const shown = make("dd");
      shown.append(name === "body" ? make("pre", "", pretty(value)) : plain(value));
      place.append(make("dt", "", name), shown);
    }
  });
  row.key = key;
  find("log").prepend(row);
  return row;
}

function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 1);
  } catch {
    return body; // it has been cut
  }
}

// Events

const KINDS = {
  media: { show: showMedia, remove: removeMedia, oldest: () => find("cards").lastElementChild },
  message: { show: showMessage, remove: removeMessage, oldest: () => nodes.message.values().next().value },
  activity: { show: showActivity, remove: (row) => row.remove(), oldest: () => find("log").lastElementChild },
};

function change([kind, key, entry]) {
  const known = nodes[kind];
  const old = known.get(key);
  if (kind === "media") stored += Boolean(entry) - Boolean(old);
  if (entry === null) {
    if (old) KINDS[kind].remove(old);
    known.delete(key);
    return;
  }
  if (old && kind === "activity") return; // it never changes
  known.set(key, KINDS[kind].show(key, entry, old));
  if (known.size > SHOWN[kind]) {
    const oldest = KINDS[kind].oldest();
    if (!oldest.contains(document.activeElement)) {
      known.delete(oldest.key);
      KINDS[kind].remove(oldest);
    }
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
  showCounts();
}

function showCounts() {
  const listed = nodes.media.size;
  write(find("stored"), stored > listed ? `${listed.toLocaleString("en")} newest of ${stored.toLocaleString("en")}` : stored ? stored.toLocaleString("en") : "");
  write(find("talks"), peers.size ? String(peers.size) : "");
  for (const empty of document.querySelectorAll(".empty")) empty.hidden = empty.nextElementSibling.childElementCount > 0;
}

function showFacts(told) {
  facts = told;
  const list = [["Address", told.address], ["Number", told.number], ["Token", told.token], ["Webhook", told.webhook ?? "none"]];
  find("facts").replaceChildren(...list.map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", "", value));
    return pair;
  }));
  for (const [name, choices] of Object.entries(told.choices)) {
    const select = find("fault").elements[name];
    if (!select.length) select.append(...choices.map((choice) => new Option(choice)));
  }
  find("faults").replaceChildren(...told.faults.map(({ operation, name, times }) =>
    make("li", "", `${operation}: ${name}${times === 1 ? "" : times === null ? ", always" : `, ${times} times`}`)));
  visible.forEach(showTimes);
}

function live(text, on = false) {
  write(find("live"), text);
  find("live").classList.toggle("on", on);
}

let source;
function connect() {
  source?.close();
  if (document.hidden) return; // a browser has six connections to a server: a tab that nobody sees takes none
  source = new EventSource(`${BASE}events`);
  source.onopen = () => live("Live", true);
  source.onmessage = take;
  source.onerror = () => {
    live("Not connected");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  };
}

// Buttons

async function receive(files) {
  const { sender, caption } = find("receive").elements;
  for (const file of files) {
    const query = new URLSearchParams({ filename: file.name, mime_type: file.type, sender: sender.value, caption: caption.value });
    const answer = await ask(`receive?${query}`, file);
    if (!answer) return;
    const told = answer.statuses.length ? ` The webhook's answer: ${answer.statuses.join(", ") || "none"}.` : "";
    say(`Received ${file.name}.${told}`);
  }
  find("receive").elements.files.value = "";
}

find("receive").addEventListener("submit", (event) => {
  event.preventDefault();
  receive([...event.target.elements.files.files]);
});

find("cards").addEventListener("click", async ({ target }) => {
  const what = target.dataset.do;
  const card = target.closest(".card");
  if (what === "send") openSend(card);
  else if (what && await ask(`media/${card.key}/${what}`)) say(`${card.title_}: ${what === "delete" ? "deleted" : "expired"}.`);
});

function openSend(card) {
  const dialog = find("send");
  dialog.key = card.key;
  dialog.returnValue = "";
  dialog.querySelector("bdi").textContent = card.title_;
  dialog.querySelector("[name=caption]").disabled = /^audio|webp/.test(card.entry.type);
  dialog.showModal();
}

find("send").addEventListener("close", async ({ target }) => {
  if (target.returnValue !== "send") return;
  const { to, caption } = target.querySelector("form").elements;
  const body = JSON.stringify({ to: to.value, caption: caption.disabled ? "" : caption.value });
  if (await ask(`media/${target.key}/send`, body)) say(`Sent to ${to.value}.`);
});

find("fault").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await ask("fault", JSON.stringify(Object.fromEntries(new FormData(event.target))))) say("The fault is planned.");
});

find("heal").addEventListener("click", async () => {
  if (await ask("heal")) say("No fault is planned any more.");
});

addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  receive([...event.dataTransfer.files]);
});

function markPart() {
  const target = location.hash.startsWith("#m-") ? "#media" : location.hash || "#media";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === target) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", markPart);
document.addEventListener("visibilitychange", connect);
setInterval(() => visible.forEach(showTimes), 5000);
markPart();
connect();
