"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// An element with text and children; text is never parsed as HTML.
function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

// ---- videos: the last one leads, the others follow it -------------------------------------------------------------
function videos() {
  const all = [...document.querySelectorAll("video")];
  if (!all.length) return;
  const lead = all[all.length - 1];
  const play = document.getElementById("play");
  const seek = document.getElementById("seek");
  const shown = document.getElementById("frame");
  const frames = Number(seek.max) + 1;
  let playing = false;

  const show = (frame) => {
    seek.value = frame;
    shown.textContent = `frame ${frame + 1} of ${frames}`;
  };
  // The middle of a frame: its edge may round to the one before.
  const go = (frame) => all.forEach((video) => { video.currentTime = (frame + 0.5) / data.fps; });
  const set = (on) => {
    playing = on;
    play.textContent = on ? "Pause" : "Play";
    all.forEach((video) => on ? video.play().catch(() => { if (playing) set(false); }) : video.pause());
    if (on) requestAnimationFrame(step);
    else go(Number(seek.value));
  };
  const step = () => {
    if (!playing) return;
    if (lead.ended) {
      all.forEach((video) => { video.currentTime = 0; video.play().catch(() => {}); });
    } else {
      for (const video of all) {
        if (video !== lead && !video.ended && Math.abs(video.currentTime - lead.currentTime) > 0.5 / data.fps) {
          video.currentTime = lead.currentTime;
        }
      }
      show(Math.min(frames - 1, Math.floor(lead.currentTime * data.fps + 1e-3)));
    }
    requestAnimationFrame(step);
  };
  play.addEventListener("click", () => set(!playing));
  seek.addEventListener("input", () => {
    const frame = Number(seek.value);
    if (playing) set(false);
    show(frame);
    go(frame);
  });
  show(0);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) set(true);
}

// ---- candidates: a card on hover, a dialog when opened --------------------------------------------------------------
function pictures(node) {
  const frames = make("div", node.frames.length > 3 ? "frames many" : "frames");
  node.frames.forEach((place, i) => {
    const cell = make("span", "cell");
    cell.style.setProperty("--c", place % COLUMNS);
    cell.style.setProperty("--r", Math.floor(place / COLUMNS));
    cell.setAttribute("role", "img");
    cell.setAttribute("aria-label", `frame ${i + 1} of ${node.frames.length} shown`);
    frames.append(cell);
  });
  return frames;
}

function facts(rows) {
  const list = make("dl", "facts");
  for (const [name, value] of rows) list.append(make("dt", "", name), make("dd", "", value));
  return list;
}

function hover() {
  const card = document.getElementById("hover");
  const hide = () => { card.hidden = true; };
  const show = (button) => {
    const node = data.nodes[button.dataset.node];
    card.replaceChildren(make("strong", "", `${node.title}, ${node.kind}`));
    if (node.frames.length) card.append(pictures(node));
    if (node.reason) card.append(make("div", "reason", node.reason));
    for (const score of node.scores) {
      card.append(facts([[score.name, score.value], ...score.parts.slice(0, 4).map(([k, v]) => [`· ${k}`, v])]));
    }
    card.hidden = false;
    const place = button.getBoundingClientRect();
    const size = card.getBoundingClientRect();
    const right = place.right + 10 + size.width < innerWidth;
    card.style.left = `${Math.max(8, right ? place.right + 10 : place.left - 10 - size.width)}px`;
    card.style.top = `${Math.max(8, Math.min(place.top, innerHeight - size.height - 8))}px`;
  };
  for (const button of document.querySelectorAll(".node")) {
    button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(button); });
    button.addEventListener("pointerleave", hide);
    button.addEventListener("focus", () => { if (button.matches(":focus-visible")) show(button); });
    button.addEventListener("blur", hide);
    button.addEventListener("click", () => { hide(); open(button.dataset.node); });
  }
  addEventListener("scroll", hide, { passive: true, capture: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

const dialog = document.getElementById("detail");

function open(id) {
  const node = data.nodes[id];
  const heading = make("h2", "", node.title, make("span", `tag ${node.kind}`, node.kind));
  heading.id = "detail-title";
  const close = make("button", "close", "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(heading, close);
  if (node.reason) dialog.append(make("p", "reason", node.reason));
  dialog.append(pictures(node));
  for (const score of node.scores) {
    dialog.append(make("h3", "", null, make("span", "", score.name), make("span", "", score.value)), facts(score.parts));
  }
  dialog.append(make("h3", "", "How it was grown"), facts([["status", node.status], ...node.facts]));
  const kin = make("div", "kin");
  const link = (text, other) => {
    const button = make("button", "", text);
    button.addEventListener("click", () => open(other));
    kin.append(button);
  };
  if (node.parent !== null) link(`Parent ${node.parent}`, node.parent);
  node.children.forEach((child) => link(`Child ${child}`, child));
  dialog.append(kin);
  dialog.scrollTop = 0;
  if (!dialog.open) dialog.showModal();
  close.focus({ preventScroll: true });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

videos();
hover();
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => open(button.dataset.open));
}
