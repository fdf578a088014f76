"use strict";
// Asks /router/state each second and shows it. Everything is text: nothing that comes is taken for markup.

const HISTORY_SECONDS = 120;
const history = []; // {at, local, frontier}: answers since the start
const at = id => document.getElementById(id);

function number(value, digits = 0) {
  return typeof value === "number" && isFinite(value)
    ? value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }) : "–";
}
const dollars = value => typeof value === "number" ? "$" + number(value, value !== 0 && Math.abs(value) < 1 ? 4 : 2) : "–";
const percent = value => typeof value === "number" && isFinite(value) ? number(100 * value, 1) + " %" : "–";
const milliseconds = value => typeof value === "number" ? number(value, value < 10 ? 1 : 0) + " ms" : "–";

function cell(content, isBad) {
  const td = document.createElement("td");
  td.append(content);
  if (isBad)
    td.className = "bad";
  return td;
}

// rows: lists of texts, elements or {text, bad}.
function fill(id, rows) {
  const body = at(id).querySelector("tbody");
  body.replaceChildren(...rows.map(row => {
    const tr = document.createElement("tr");
    tr.append(...row.map(c => c !== null && typeof c === "object" && "text" in c && "bad" in c ? cell(c.text, c.bad) : cell(c)));
    return tr;
  }));
}

function meter(value) {
  const element = document.createElement("meter");
  element.max = 1;
  element.value = isFinite(value) ? value : 0;
  return element;
}

function showHistory(state) {
  const answers = state.answers || {};
  history.push({ at: Date.now(), local: answers.local || 0, frontier: answers.frontier || 0 });
  while (history.length > HISTORY_SECONDS + 1)
    history.shift();
  const rates = [];
  for (let i = 1; i < history.length; i++) {
    const seconds = Math.max(0.001, (history[i].at - history[i - 1].at) / 1000);
    // A router that was started anew counts from zero.
    rates.push({ local: Math.max(0, history[i].local - history[i - 1].local) / seconds,
                 frontier: Math.max(0, history[i].frontier - history[i - 1].frontier) / seconds });
  }
  const most = Math.max(1, ...rates.map(r => Math.max(r.local, r.frontier)));
  for (const who of ["local", "frontier"])
    at("line-" + who).setAttribute("points", rates.map((r, i) =>
      (600 * (HISTORY_SECONDS - rates.length + i + 1) / HISTORY_SECONDS).toFixed(1) + "," + (116 - 110 * r[who] / most).toFixed(1)).join(" "));
  const last = rates[rates.length - 1];
  at("history-most").textContent = rates.length ? "top of the scale: " + number(most, most < 10 ? 1 : 0) + " a second" : "";
  at("rate").textContent = last ? number(last.local + last.frontier, 1) : "–";
}

function showFigures(state) {
  const answers = state.answers || {}, money = state.money || {}, engines = state.local || [];
  const total = (answers.local || 0) + (answers.frontier || 0) + (answers.cache || 0);
  at("share-local").textContent = total > 0 ? percent(((answers.local || 0) + (answers.cache || 0)) / total) : "–";
  at("running").textContent = number((state.requests || {}).running);
  at("spent").textContent = dollars(money.spent_dollars);
  at("saved").textContent = dollars(money.saved_dollars);
  const expected = engines.map(e => e.predicted_ttft_ms).filter(v => typeof v === "number");
  const slo = (state.slo || {}).ttft_ms;
  at("ttft").textContent = (expected.length ? milliseconds(Math.min(...expected)) : "–") +
    (typeof slo === "number" ? " of " + milliseconds(slo) : "");
  const { within = 0, over = 0 } = state.slo || {};
  at("slo").textContent = percent(within / (within + over));
}

function showTables(state) {
  const reasons = Object.entries(state.decisions || {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  const all = reasons.reduce((sum, [, n]) => sum + n, 0), cache = state.cache || {}, rollout = state.rollout || {};
  fill("reasons", reasons.map(([name, n]) => [name, number(n), meter(n / all)]));
  fill("local", (state.local || []).map(e => [e.model, { text: `${number(e.up)} of ${number(e.replicas)}`, bad: !e.up },
    number(e.waiting), number(e.running), percent(e.kv_used), milliseconds(e.predicted_ttft_ms)]));
  fill("providers", (state.providers || []).map(p => [p.model, p.rests_ms > 0 ?
    { text: `rests ${milliseconds(p.rests_ms)}`, bad: true } : { text: String(p.breaker || "–"), bad: p.breaker === "open" },
    number(p.calls), number(p.answers), milliseconds(p.first_token_ms), dollars(p.spent_dollars)]));
  const asked = (cache.hit || 0) + (cache.shared || 0) + (cache.miss || 0);
  fill("cache", [["given again", number(cache.hit)], ["shared with one under way", number(cache.shared)],
    ["not known", number(cache.miss)], ["share", percent(((cache.hit || 0) + (cache.shared || 0)) / asked)]]);
  fill("policy", [["policy", String(state.policy || "–")], ["stage", String(rollout.stage || "–")], ["why", String(rollout.why || "–")],
    ["offline", state.offline ? "yes: nothing leaves this machine" : "no"]]);
}

async function ask() {
  try {
    const answer = await fetch("router/state", { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok)
      throw new Error("it answers " + answer.status);
    const state = await answer.json();
    showHistory(state);
    showFigures(state);
    showTables(state);
    document.body.dataset.state = "live";
    at("status").textContent = "live, " + new Date().toLocaleTimeString();
  } catch (error) {
    document.body.dataset.state = "lost";
    at("status").textContent = "the router does not answer: " + error.message;
  }
  setTimeout(ask, 1000);
}

ask();
