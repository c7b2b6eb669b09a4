"use strict";
// The browser of samples. All text of models enters the page through textContent, never as markup.

const PER_PAGE = 20;
const DIFF_CELLS = 4e6; // a word diff of longer texts would hold the page up
const steering = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]/gu;
const by = (id) => document.getElementById(id);

let prompts = [];
let found = [];
let page = 0;
let only = null; // the prompt that the address names

// Control characters, direction marks and lone surrogates as escapes: text must read as what it is.
function visible(text) {
  return text.replace(steering, (one) => {
    const code = one.charCodeAt(0);
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  });
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = visible(String(text));
  return made;
}

// ---- data -----------------------------------------------------------------------------------------------------------

async function read() {
  const coded = by("data").textContent;
  if (!coded) return [];
  const binary = atob(coded);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const lines = (await new Response(stream).text()).split("\n");
  by("data").remove();
  return lines.filter(Boolean).map((line) => prepared(JSON.parse(line)));
}

// What the filters ask of a prompt, once.
function prepared(prompt) {
  const of = new Map(prompt.responses.map((one) => [one.id, one]));
  prompt.of = of;
  prompt.refined = prompt.responses.some((one) => one.parent);
  prompt.truncated = prompt.responses.some((one) => one.finish === "length");
  prompt.unrated = prompt.responses.some((one) => one.score === null);
  prompt.outcomes = new Set(prompt.responses.map((one) => outcome(one, of.get(one.parent))).filter(Boolean));
  return prompt;
}

function outcome(one, parent) {
  if (!parent || one.score === null || parent.score === null) return "";
  return one.score > parent.score ? "win" : one.score < parent.score ? "loss" : "tie";
}

function haystack(prompt) {
  if (!prompt.haystack) {
    const texts = [prompt.id, prompt.reference || "", prompt.source, ...prompt.messages.map((one) => one[1])];
    for (const one of prompt.responses) texts.push(one.id, one.text, ...one.ratings.map((rating) => rating[2]));
    prompt.haystack = texts.join("\n").toLowerCase();
  }
  return prompt.haystack;
}

// ---- search and filters ---------------------------------------------------------------------------------------------

function filter() {
  const words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const iteration = by("iteration").value;
  const wanted = by("outcome").value;
  const low = by("low").value === "" ? -Infinity : Number(by("low").value);
  const high = by("high").value === "" ? Infinity : Number(by("high").value);
  const bounded = low > -Infinity || high < Infinity;
  const checked = (id) => by(id).checked;
  found = prompts.filter((one) =>
    only ? one.id === only.id && (only.iteration === null || one.iteration === only.iteration)
    : (!iteration || String(one.iteration) === iteration)
      && (!wanted || one.outcomes.has(wanted))
      && (!bounded || one.responses.some((it) => it.score !== null && it.score >= low && it.score <= high))
      && (!checked("paired") || one.pairs.length > 0)
      && (!checked("unpaired") || one.pairs.length === 0)
      && (!checked("refined") || one.refined)
      && (!checked("truncated") || one.truncated)
      && (!checked("unrated") || one.unrated)
      && words.every((word) => haystack(one).includes(word)));
  page = 0;
  show();
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  page = Math.min(Math.max(0, page), pages - 1);
  const list = by("list");
  list.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card));
  const count = found.length.toLocaleString("en");
  const status = by("found");
  if (only) {
    const all = element("a", "", "Show all");
    all.href = "#samples";
    status.replaceChildren(found.length ? `Prompt ${only.id.slice(0, 8)} alone. ` : `Prompt ${only.id.slice(0, 8)} is not among the samples. `, all);
  } else {
    status.textContent = found.length === prompts.length ? `${count} prompts` : `${count} of ${prompts.length.toLocaleString("en")} prompts`;
  }
  document.querySelector(".pages").hidden = pages === 1;
  by("page").textContent = `Page ${page + 1} of ${pages}`;
  by("back").disabled = page === 0;
  by("next").disabled = page === pages - 1;
}

// ---- one prompt -----------------------------------------------------------------------------------------------------

function card(prompt) {
  const article = element("article", "prompt");
  const button = element("button");
  const last = prompt.messages.length ? prompt.messages[prompt.messages.length - 1][1] : "";
  button.type = "button";
  button.append(element("span", "first", last.replace(/\s+/g, " ").slice(0, 300) || "(empty prompt)"), element("span", "meta", summary(prompt)));
  const head = element("h3");
  head.append(button);
  article.append(head);
  const body = element("div", "body");
  const toggle = (open) => {
    button.setAttribute("aria-expanded", String(open));
    body.hidden = !open;
    if (open && !body.firstChild) fill(body, prompt);
  };
  button.addEventListener("click", () => toggle(body.hidden));
  article.append(body);
  toggle(only !== null);
  return article;
}

function summary(prompt) {
  const refinements = prompt.responses.filter((one) => one.parent).length;
  const parts = [`iteration ${prompt.iteration}`, plural(prompt.responses.length - refinements, "response")];
  if (refinements) parts.push(plural(refinements, "refinement"));
  parts.push(prompt.pairs.length ? plural(prompt.pairs.length, "pair") : prompt.unpaired ? `no pair: ${prompt.unpaired}` : "no pair");
  if (prompt.truncated) parts.push("truncated");
  if (prompt.unrated) parts.push("unrated");
  return parts.join(" · ");
}

function plural(count, noun) { return `${count} ${noun}${count === 1 ? "" : "s"}`; }

function fill(body, prompt) {
  for (const [role, content] of prompt.messages) body.append(element("p", "role", role), element("div", "text", content));
  if (prompt.reference !== null) body.append(element("p", "role", "reference"), element("div", "text", prompt.reference));
  const meta = element("p", "meta", `${prompt.source} · `);
  const link = element("a", "", `prompt ${prompt.id}`);
  link.href = `#prompt=${prompt.id}&iteration=${prompt.iteration}`;
  meta.append(link);
  body.append(meta);
  for (const one of prompt.responses.filter((it) => !prompt.of.has(it.parent))) {
    body.append(response(one, prompt));
    for (const child of prompt.responses.filter((it) => it.parent === one.id)) body.append(response(child, prompt));
  }
  if (prompt.pairs.length) body.append(pairs(prompt));
}

function response(one, prompt) {
  const parent = prompt.of.get(one.parent);
  const box = element("div", "response" + (one.parent ? " refinement" : "") + (one.chosen ? " chosen" : one.rejected ? " rejected" : ""));
  const head = element("h4", "", `${one.parent ? "Refinement" : "Response"} ${one.id.slice(0, 8)} `);
  const chip = (text, kind) => head.append(element("span", "chip" + (kind ? " " + kind : ""), text));
  if (one.score !== null) chip(`score ${Number(one.score.toFixed(3))}`);
  else chip(one.judged ? `unrated: ${one.unrated || "no score"}` : "not judged", "bad");
  const against = outcome(one, parent);
  if (against) chip({ win: "better than parent", tie: "as good as parent", loss: "worse than parent" }[against], { win: "good", loss: "bad" }[against]);
  if (one.chosen) chip("chosen", "good");
  if (one.rejected) chip("rejected", "bad");
  if (one.finish === "length") chip("truncated", "bad");
  box.append(head, element("p", "meta", [one.policy, one.tokens === null ? "" : plural(one.tokens, "token")].filter(Boolean).join(" · ")));
  box.append(element("div", "text", one.text));
  if (parent) box.append(difference(parent.text, one.text));
  if (one.ratings.length) {
    const ratings = element("ul", "ratings");
    for (const [aspect, rating, critique] of one.ratings) {
      const item = element("li");
      item.append(element("b", "", `${aspect} ${rating === null ? "unrated" : (rating > 0 ? "+" : "") + Number(rating.toFixed(3))} `), visible(critique));
      ratings.append(item);
    }
    box.append(ratings);
  }
  return box;
}

function pairs(prompt) {
  const box = element("div");
  box.append(element("p", "role", "pairs that were trained on, or would be"));
  for (const [chosen, rejected] of prompt.pairs) {
    const line = element("p", "meta");
    line.append(element("span", "chip good", `chosen ${chosen.slice(0, 8)}`), "against ", element("span", "chip bad", `rejected ${rejected.slice(0, 8)}`));
    box.append(line);
  }
  return box;
}

// ---- word diff ------------------------------------------------------------------------------------------------------

function difference(before, after) {
  const details = element("details");
  details.append(element("summary", "", "Against its parent, word by word"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childNodes.length > 1) return;
    const box = element("div", "text");
    const steps = diff(words(before), words(after));
    if (steps === null) box.textContent = "Too long to compare here.";
    else for (const [kind, text] of steps) box.append(kind ? element(kind, "", text) : visible(text));
    details.append(box);
  });
  return details;
}

function words(text) { return text.match(/\s+|[\p{L}\p{N}_]+|[^\s]/gu) || []; }

// The longest common subsequence of what differs between two lists; null where that is too much work.
function diff(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const x = a.slice(start, a.length - end);
  const y = b.slice(start, b.length - end);
  if (x.length * y.length > DIFF_CELLS) return null;
  const width = y.length + 1;
  const best = new Uint32Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i--)
    for (let j = y.length - 1; j >= 0; j--)
      best[i * width + j] = x[i] === y[j] ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  const steps = [];
  const add = (kind, text) => {
    if (!text) return;
    if (steps.length && steps[steps.length - 1][0] === kind) steps[steps.length - 1][1] += text;
    else steps.push([kind, text]);
  };
  add("", a.slice(0, start).join(""));
  let i = 0;
  let j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { add("", x[i++]); j++; }
    else if (i < x.length && (j === y.length || best[(i + 1) * width + j] >= best[i * width + j + 1])) add("del", x[i++]);
    else add("ins", y[j++]);
  }
  add("", a.slice(a.length - end).join(""));
  return steps;
}

// ---- address, keys, start -------------------------------------------------------------------------------------------

function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const id = asked.get("prompt");
  const before = only;
  only = id ? { id, iteration: asked.has("iteration") ? Number(asked.get("iteration")) : null } : null;
  if (!only && !before) return;
  filter();
  if (only) by("samples").scrollIntoView();
}

function step(by_) {
  const heads = [...document.querySelectorAll("#list h3 button")];
  if (!heads.length) return;
  const at = heads.indexOf(document.activeElement);
  heads[at < 0 ? 0 : Math.min(heads.length - 1, Math.max(0, at + by_))].focus();
}

function turn(by_) {
  page += by_;
  show();
  by("samples").scrollIntoView();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const does = { "/": () => by("search").focus(), j: () => step(1), k: () => step(-1), "]": () => turn(1), "[": () => turn(-1) }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

async function start() {
  prompts = await read();
  for (const iteration of [...new Set(prompts.map((one) => one.iteration))].sort((a, b) => a - b)) {
    const option = element("option", "", iteration);
    option.value = iteration;
    by("iteration").append(option);
  }
  let waiting = 0;
  const changed = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (only) { only = null; history.replaceState(null, "", "#samples"); }
      filter();
    }, 120);
  };
  by("filters").addEventListener("input", changed);
  by("filters").addEventListener("reset", changed);
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("back").addEventListener("click", () => turn(-1));
  by("next").addEventListener("click", () => turn(1));
  addEventListener("hashchange", follow);
  addEventListener("keydown", keys);
  filter();
  follow();
  document.body.dataset.ready = "yes";
}

// After the first paint: reading thousands of samples takes a moment.
requestAnimationFrame(() => setTimeout(() => start().catch((error) => {
  by("found").textContent = `The samples can't be read in this browser (${error.message}); everything above is complete.`;
}), 0));
