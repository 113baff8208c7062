"use strict";
// A decision is kept in the browser until the server has it: a reload or a lost connection loses
// nothing, and sending it twice changes nothing.
const KEYS = "1234567890abcdefgijklmnopqrstvwxyz"; // without h and u, which have another meaning
const LOOK_AGAIN_MS = 5000;
const $ = (id) => document.getElementById(id);
let shown = null; // the item on the screen
let isBusy = false;
let isHintOpen = true;
let timer = 0;

const me = () => localStorage.getItem("annotator") || "";
const kept = () => JSON.parse(localStorage.getItem("kept") || "null");

function show(id, isShown) { $(id).hidden = !isShown; }

function complain(text) { $("problem").textContent = text; show("problem", text !== ""); }

// Answers with what the server says, or with the problem if it refuses what was asked; otherwise
// throws an error, since asking again may help.
async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, options).catch(() => {
    throw new Error("The server can't be reached");
  });
  const answer = await response.json();
  if (response.ok) return { body: answer, problem: "" };
  if (body !== undefined && [400, 404, 409].includes(response.status)) {
    return { problem: answer.error };
  }
  throw new Error(answer.error);
}

// Sends what is kept, if anything, and shows what comes next.
async function go(request) {
  if (isBusy) return;
  isBusy = true;
  clearTimeout(timer);
  setEnabled(false);
  const pending = kept();
  try {
    const next = () => ask("/api/next?annotator=" + encodeURIComponent(me()));
    let answer = await (pending ? ask("/api/decisions", pending) : request ? request() : next());
    localStorage.removeItem("kept");
    complain(answer.problem);
    if (answer.problem) answer = await next(); // it's no longer ours to decide: on to the next
    draw(answer.body);
  } catch (error) {
    complain(`${error.message}. ${pending ? "Your last decision is kept here, and this" : "This"}`
      + " page tries again every few seconds.");
    again();
  }
  isBusy = false;
}

function again() { clearTimeout(timer); timer = setTimeout(() => go(), LOOK_AGAIN_MS); }

function draw(state) {
  const { item, progress } = state;
  const nAll = progress.n_mine + progress.n_open;
  $("progress").textContent = `${progress.n_mine} by you, ${progress.n_open} open`;
  $("bar").value = nAll ? progress.n_mine / nAll : 1;
  $("who").textContent = me();
  shown = item;
  show("case", item !== null);
  show("empty", item === null);
  if (item === null) again();
  else {
    $("text").textContent = item.text;
    show("image", Boolean(item.image));
    if (item.image) $("image").src = item.image;
    $("said").textContent = item.hint;
    $("sure").textContent = item.score === null ? "" : `(${Math.floor(100 * item.score)} % sure)`;
    drawHint();
    $("choices").replaceChildren(...state.categories.map(choice));
  }
  $("undo").disabled = progress.n_undoable === 0;
}

function drawHint() {
  const isThere = shown !== null && shown.hint !== "";
  show("hint", isThere);
  for (const id of ["said", "sure"]) $(id).style.visibility = isHintOpen ? "" : "hidden";
  $("toggle").firstChild.textContent = isHintOpen ? "Hide " : "Show ";
}

function choice(category, place) {
  const button = document.createElement("button");
  const key = document.createElement("kbd");
  const name = document.createElement("span");
  button.type = "button";
  key.textContent = KEYS[place] || "";
  name.textContent = category;
  button.append(...(key.textContent ? [key] : []), name);
  button.addEventListener("click", () => decide(category));
  return button;
}

function setEnabled(isEnabled) {
  for (const button of $("choices").children) button.disabled = !isEnabled;
  $("undo").disabled = $("undo").disabled || !isEnabled;
}

function decide(label) {
  if (isBusy || kept() || shown === null) return;
  const sawHint = shown.hint !== "" && isHintOpen;
  const decision = { item: shown.id, label, annotator: me(), saw_hint: sawHint };
  localStorage.setItem("kept", JSON.stringify(decision));
  go();
}

function undo() {
  if (!isBusy && !kept() && !$("undo").disabled) {
    go(() => ask("/api/undo", { annotator: me() }));
  }
}

function toggleHint() { isHintOpen = !isHintOpen; drawHint(); }

function signIn() {
  show("sign-in", me() === "");
  if (me() === "") $("name").focus();
  else go();
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.tagName === "INPUT";
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "u" || event.key === "Backspace") undo();
  else if (event.key === "h") toggleHint();
  else if (KEYS.includes(event.key)) $("choices").children[KEYS.indexOf(event.key)]?.click();
});
$("undo").addEventListener("click", undo);
$("toggle").addEventListener("click", toggleHint);
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  localStorage.setItem("annotator", $("name").value.trim());
  signIn();
});
window.addEventListener("online", () => { if (!$("problem").hidden) go(); });
signIn();
