// Searches as they run. All that clients and models wrote is set as text: nothing here makes HTML of a string.
"use strict";

const WIDTH = 150, GAP = 44, HIGH = 30, LOW = 22, SPACE = 6, EDGE = 16, ROOT = 16;
const $ = (id) => document.getElementById(id);
const searches = new Map();
const rows = new Map(), cards = new Map();
let selected = null, source = null, before = null, clock = 0, drawing = false;

// The elements of a list by key: those that stay are kept, so that a click or the focus on one is not lost.
function keep(elements, keys, create) {
  for (const [key, element] of elements) if (!keys.has(key)) { element.remove(); elements.delete(key); }
  for (const key of keys) if (!elements.has(key)) elements.set(key, create(key));
}

function make(tag, parent, text, ...classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  made.classList.add(...classes.filter(Boolean));
  parent.append(made);
  return made;
}

// ---- connection ----------------------------------------------------------------------------------------------------

function connect() {
  source = new EventSource("live/events");
  source.addEventListener("open", () => show(true));
  source.addEventListener("error", () => {
    link(false);
    if (source.readyState === EventSource.CLOSED) show(false); // refused: not signed in
  });
  source.addEventListener("snapshot", (event) => {
    searches.clear();
    for (const one of JSON.parse(event.data)) searches.set(one.id, { ...one, nodes: new Map(one.nodes.map((n) => [n.id, n])) });
    if (!searches.has(selected)) selected = null;
    draw();
  });
  source.addEventListener("search", (event) => {
    const told = JSON.parse(event.data);
    searches.set(told.id, { nodes: new Map(), ...searches.get(told.id), ...told });
    forget();
    draw();
  });
  source.addEventListener("nodes", (event) => {
    const { id, nodes, ...more } = JSON.parse(event.data), search = searches.get(id);
    if (!search) return;
    for (const node of nodes) search.nodes.set(node.id, node);
    Object.assign(search, more);
    draw();
  });
  source.addEventListener("numbers", (event) => numbers(JSON.parse(event.data)));
}

function show(inside) {
  link(inside);
  for (const id of ["numbers", "main", "leave"]) $(id).hidden = !inside;
  $("sign-in").hidden = inside;
  if (!inside) { searches.clear(); selected = null; before = null; list(); chosen(); $("key").focus(); }
}

function link(up) {
  $("link").textContent = up ? "live" : "not connected";
  $("link").classList.toggle("off", !up);
}

// As many ended ones as the server keeps; so that a page that stays open for days does not grow.
function forget() {
  const ended = [...searches.values()].filter((one) => one.ended !== null);
  for (const one of ended.slice(0, Math.max(0, ended.length - 40))) if (one.id !== selected) searches.delete(one.id);
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("refused").textContent = "";
  const key = $("key").value;
  $("key").value = "";
  try {
    const answer = await fetch("live/session", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key }),
    });
    if (answer.ok) connect();
    else $("refused").textContent = (await answer.json()).error.message;
  } catch { $("refused").textContent = "The server does not answer."; }
});

$("leave").addEventListener("click", async () => {
  source.close();
  await fetch("live/session", { method: "DELETE" });
  show(false);
});

// ---- numbers -------------------------------------------------------------------------------------------------------

function numbers(now) {
  $("running").textContent = now.running;
  $("waiting").textContent = now.waiting;
  $("states").textContent = now.states;
  $("batch").textContent = now.calls ? (now.rows / now.calls).toFixed(1) : "–";
  $("kept").textContent = now.generated ? `${Math.round((100 * now.kept) / now.generated)} %` : "–";
  if (before && now.time > before.time) {
    $("pace").textContent = Math.round((now.generated - before.generated) / (now.time - before.time));
  }
  before = now;
  clock = now.time;
  draw();
}

// ---- drawing: at most once a frame, whatever comes -----------------------------------------------------------------

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; list(); chosen(); });
}

function list() {
  const newest = [...searches.values()].sort((a, b) => b.id - a.id);
  const running = newest.find((one) => one.state === "running" && one.nodes.size);
  if ($("follow").checked && (running || newest[0])) selected = (running || newest[0]).id;
  $("nothing").hidden = newest.length > 0;
  keep(rows, new Set(newest.map((one) => one.id).reverse()), (id) => {
    const item = document.createElement("li"), button = make("button", item);
    button.type = "button";
    for (const name of ["dot", "what", "state", "more"]) make("span", button, undefined, name);
    button.addEventListener("click", () => { selected = id; $("follow").checked = false; draw(); });
    $("list").prepend(item); // numbers rise: the newest is on top
    return item;
  });
  for (const one of newest) {
    const button = rows.get(one.id).firstChild, [dot, what, state, more] = button.children;
    button.setAttribute("aria-current", one.id === selected);
    dot.className = `dot ${one.state}`;
    what.textContent = one.prompt;
    state.textContent = one.state;
    const seconds = Math.max(0, (one.ended ?? clock) - one.arrived);
    more.textContent = `${one.model} · ${seconds.toFixed(1)} s · ${one.tokens ?? 0} tokens`;
  }
}

function chosen() {
  const search = searches.get(selected);
  $("search").hidden = !search;
  if (!search) { // nothing of it stays behind, also out of sight
    for (const id of ["about", "prompt", "answer", "detail", "tree"]) $(id).replaceChildren();
    cards.clear();
    delete $("tree").dataset.search;
    return;
  }
  $("prompt").textContent = search.prompt;
  const facts = [search.model, `seed ${search.seed}`, search.state, search.key, `${search.grown ?? 0} candidates`,
                 `${search.tokens ?? 0} tokens`, `round ${search.round ?? 0}`, search.error];
  $("about").textContent = facts.filter(Boolean).join(" · ");
  tree(search);
  answer(search);
}

function answer(search) {
  const path = [...search.nodes.values()].filter((node) => node.status === "chosen");
  const done = path.length > 0;
  $("answer-title").textContent = done ? "Answer" : "Settled so far";
  const settled = done ? path : shared(search);
  const units = settled.filter((node, i) => settled[i + 1]?.depth !== node.depth); // a unit's last piece has all of it
  $("answer").textContent = units.map((node) => node.text).join("");
}

// The steps that all candidates that are alive have in common.
function shared(search) {
  const lines = [...search.nodes.values()].filter((n) => n.status === "open" || n.status === "done").map((node) => {
    const line = [];
    for (let at = node; at; at = search.nodes.get(at.parent)) line.unshift(at);
    return line;
  });
  if (!lines.length) return [];
  let count = 0;
  while (count < (search.settled ?? 0) && lines.every((line) => line[count] && line[count] === lines[0][count])) count += 1;
  return lines[0].slice(0, count);
}

// Pruned siblings that say the same are one card, which says how many they are.
function alike(nodes) {
  const parents = new Set(nodes.map((node) => node.parent)), first = new Map(), counts = new Map(), kept = [];
  for (const node of nodes) {
    const key = node.status === "pruned" && !parents.has(node.id) ? `${node.parent} ${node.text}` : node.id;
    if (!first.has(key)) { first.set(key, node.id); kept.push(node); }
    counts.set(first.get(key), (counts.get(first.get(key)) ?? 0) + 1);
  }
  return [kept, counts];
}

function tree(search) {
  const [nodes, counts] = alike([...search.nodes.values()]), children = new Map(), places = new Map();
  for (const node of nodes) children.set(node.parent, [...(children.get(node.parent) ?? []), node]);
  const order = { chosen: 0, open: 1, done: 2, closed: 3, failed: 4, pruned: 5 };
  const bottoms = [];
  let row = [{ id: 0 }], column = 0;
  places.set(0, { x: EDGE, y: EDGE, w: ROOT, h: HIGH });
  while ((row = row.flatMap((parent) => (children.get(parent.id) ?? []).sort(
    (a, b) => order[a.status] - order[b.status] || (b.score ?? 0) - (a.score ?? 0) || a.id - b.id))).length) {
    const x = EDGE + ROOT + GAP + column * (WIDTH + GAP);
    let y = EDGE;
    for (const node of row) {
      const h = node.status === "pruned" && !children.has(node.id) ? LOW : HIGH;
      places.set(node.id, { x, y, w: WIDTH, h });
      y += h + SPACE;
    }
    bottoms.push(y);
    column += 1;
  }
  const box = $("tree"), width = EDGE * 2 + ROOT + column * (WIDTH + GAP), height = Math.max(EDGE + HIGH, ...bottoms) + EDGE;
  const scroll = box.parentElement, atEnd = scroll.scrollLeft + scroll.clientWidth >= scroll.scrollWidth - 8;
  if (box.dataset.search !== String(search.id)) { box.replaceChildren(); cards.clear(); box.dataset.search = search.id; $("detail").textContent = ""; }
  box.style.width = `${width}px`;
  box.style.height = `${height}px`;
  const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  lines.setAttribute("width", width);
  lines.setAttribute("height", height);
  box.querySelector("svg")?.remove();
  box.prepend(lines);
  for (const node of [...nodes].sort((a, b) => order[b.status] - order[a.status])) {
    const from = places.get(node.parent), to = places.get(node.id);
    if (!from || !to) continue;
    const [x, y, px, py] = [to.x, to.y + to.h / 2, from.x + from.w, from.y + from.h / 2], bend = (px + x) / 2;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${px} ${py} C${bend} ${py} ${bend} ${y} ${x} ${y}`);
    path.classList.add(node.status);
    lines.append(path);
  }
  keep(cards, new Set(places.keys()), (id) => {
    const card = make(id ? "button" : "div", box);
    if (id) {
      card.type = "button";
      for (const name of ["said", "score"]) make("span", card, undefined, name);
      card.addEventListener("click", () => detail(searches.get(selected)?.nodes.get(id)));
    }
    return card;
  });
  for (const [id, card] of cards) {
    const node = search.nodes.get(id);
    card.className = node ? `node ${node.status}` : "node root";
    place(card, node ? places.get(id) : { ...places.get(0), h: ROOT, y: EDGE + (HIGH - ROOT) / 2 });
    if (!node) continue;
    card.children[0].textContent = node.text.trim() || "(nothing)";
    const several = counts.get(id) > 1 ? `×${counts.get(id)} ` : "";
    card.children[1].textContent = several + (node.score === null ? "" : node.score.toPrecision(3));
  }
  if (atEnd && $("follow").checked) scroll.scrollLeft = scroll.scrollWidth;
}

function place(element, { x, y, w, h }) {
  for (const [name, value] of Object.entries({ left: x, top: y, width: w, height: h })) element.style[name] = `${value}px`;
}

function detail(node) {
  if (!node) return;
  const facts = [`candidate ${node.id}, step ${node.depth}, ${node.status}`, `${node.tokens} tokens`,
                 node.score === null ? "" : `score ${node.score}`, node.reason, node.text.trim()];
  $("detail").textContent = facts.filter(Boolean).join(" · ");
}

$("follow").addEventListener("change", draw);
connect();
