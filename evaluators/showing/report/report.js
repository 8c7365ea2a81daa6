"use strict";
const { samples, block } = JSON.parse(document.getElementById("index").textContent);
const NAMES = { 0: "tie", 1: "1", 2: "2" };
const PAGE = 50;
const unpacked = new Map();
let shown = [];
let start = 0;
let current = null;

// Everything that a sample or a model wrote becomes a text node, and is never read as HTML. Within a line, no sign of it
// turns the direction of what stands beside it, such as scores.
function element(tag, text, ...children) {
  const made = document.createElement(tag);
  const turned = tag === "pre" ? "" : /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  if (text !== null && text !== undefined) made.textContent = String(text).replaceAll(turned, turned ? "\ufffd" : "");
  made.append(...children);
  return made;
}

// A text as it stands, or in its place what it means that it has no sign.
function written(text, absent) {
  return text.trim() ? element("pre", text) : element("p", `(${absent})`);
}

async function network(at) {
  const number = Math.floor(at / block);
  if (!unpacked.has(number)) {
    const packed = atob(document.getElementById(`block-${number}`).textContent);
    const bytes = Uint8Array.from(packed, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(number, JSON.parse(await new Response(stream).text()));
  }
  return unpacked.get(number)[at % block];
}

function say(winner) {
  return winner === null ? "–" : NAMES[winner];
}

function filter() {
  const which = document.getElementById("which").value;
  const family = document.getElementById("family").value;
  const words = document.getElementById("search").value.toLowerCase();
  shown = [];
  samples.forEach((sample, at) => {
    if (which === "wrong" && (sample.human === null || sample.human === sample.winner)) return;
    if (which === "unscored" && sample.winner !== null) return;
    if (family && sample.family !== family) return;
    if (words && !`${sample.id} ${sample.query}`.toLowerCase().includes(words)) return;
    shown.push(at);
  });
  start = 0;
  list();
  if (current !== null) document.querySelector("#sample .controls").replaceWith(ways(current));
}

// On a narrow screen rows are not columns, and cells say what they are.
function cell(name, text) {
  const made = element("td", text);
  made.dataset.name = name;
  return made;
}

function list() {
  const rows = shown.slice(start, start + PAGE).map((at) => {
    const sample = samples[at];
    const open = button(sample.id, () => show(at));
    const margin = cell("margin", sample.margin === null ? "–" : sample.margin.toFixed(2));
    margin.className = "n";
    const row = element("tr", null, element("td", null, open), element("td", sample.family),
      cell("people", say(sample.human)), cell("judge", say(sample.winner)), margin, element("td", sample.query));
    if (sample.human !== null && sample.human !== sample.winner) row.className = "wrong";
    return row;
  });
  document.querySelector("#list tbody").replaceChildren(...rows);
  const last = Math.min(start + PAGE, shown.length);
  document.getElementById("count").textContent = shown.length ? `${start + 1} to ${last} of ${shown.length}` : "none";
  document.getElementById("back").disabled = start === 0;
  document.getElementById("next").disabled = last >= shown.length;
}

function reviewOf(item, number) {
  const role = item.role ? `, ${item.role.split(":")[0].slice(0, 60)}` : "";
  const head = `layer ${number}, neuron ${item.neuron}${role}, response ${item.order === "12" ? "1" : "2"} is its Assistant 1`;
  const score = item.scores ? item.scores.map((score) => +score.toFixed(2)).join(" : ") : "unscored";
  const by = item.judge.length ? `, by ${item.judge.join(", ")}` : "";
  return element("details", null, element("summary", `${head}${by}: ${score}`),
    element("pre", item.role || ""), element("pre", item.evidence ?? item.reason));
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.disabled = act === null;
  made.addEventListener("click", act);
  return made;
}

// To its neighbours in the list as it is filtered, and back to the list.
function ways(at) {
  const here = shown.indexOf(at);
  const to = (place) => (here >= 0 && place in shown ? () => show(shown[place]) : null);
  const reviews = () => {
    const all = [...document.querySelectorAll("#sample details")];
    const open = !all.every((one) => one.open);
    for (const one of all) one.open = open;
  };
  const made = element("div", null, button("Previous sample", to(here - 1)), button("Next sample", to(here + 1)),
    button("All reviews", reviews), button("List", () => document.getElementById("which").scrollIntoView()));
  made.className = "controls";
  return made;
}

async function show(at) {
  const sample = await network(at);
  const parts = [ways(at), element("h3", `Sample ${sample.id}`),
    element("p", `family ${sample.family}; people: ${say(sample.human)}; judge: ${say(sample.verdict.winner)}` +
      (sample.verdict.scores ? `, ${sample.verdict.scores.map((score) => score.toFixed(2)).join(" : ")}` : "") +
      (sample.verdict.reason ? `; ${sample.verdict.reason}` : "")),
    ...sample.suspicious.map((sign) => element("p", `suspicious: ${sign}`)),
    element("h4", "Query"), written(sample.query, "none: each response is a whole dialogue")];
  if (sample.reference !== null) parts.push(element("h4", "Reference"), element("pre", sample.reference));
  const pair = element("div", null,
    element("div", null, element("h4", "Response 1"), written(sample.response1, "blank")),
    element("div", null, element("h4", "Response 2"), written(sample.response2, "blank")));
  pair.className = "pair";
  parts.push(pair, element("h4", "Roles"));
  parts.push(element("ol", null, ...sample.roles.map((role) => element("li", role.focus ? `${role.name}: ${role.focus}` : role.name))));
  parts.push(...sample.roles_failures.map((reason) => element("p", `failed: ${reason}`)), element("h4", "Reviews"));
  sample.layers.forEach((layer, number) => parts.push(...layer.map((item) => reviewOf(item, number + 1))));
  current = at;
  document.getElementById("sample").replaceChildren(...parts);
  document.getElementById("sample").scrollIntoView();
  history.replaceState(null, "", `#${encodeURIComponent(sample.id)}`);
}

for (const family of [...new Set(samples.map((sample) => sample.family))].sort()) {
  const option = element("option", family);
  option.value = family;
  document.getElementById("family").append(option);
}
for (const [id, event] of [["which", "change"], ["family", "change"], ["search", "input"]]) {
  document.getElementById(id).addEventListener(event, filter);
}
document.getElementById("back").addEventListener("click", () => { start -= PAGE; list(); });
document.getElementById("next").addEventListener("click", () => { start += PAGE; list(); });
filter();
const wanted = samples.findIndex((sample) => `#${encodeURIComponent(sample.id)}` === location.hash);
if (wanted >= 0) show(wanted);
