// Fetches the figures each second and shows them. Whatever they hold is set as text, never as HTML.
"use strict";

const EVERY = 1000;
const PATIENCE = 5000;
// Rates and times are those of so many seconds.
const WINDOW = 10;
const MINUTE = 60;
// A shard is called the slowest when it takes so many times what the median one takes.
const SLOWER = 1.1;
const QUANTILES = [0.5, 0.95, 0.99];
// How statements are answered, in this order; what the session answers by itself, or refuses, asks no shard.
const KINDS = ["routed", "push_down", "staged", "gathered", "session", "refused"];
const WITHOUT_SHARDS = ["session", "refused"];
const TICKS = [0.001, 0.01, 0.1, 1, 10];

const byId = (id) => document.getElementById(id);
const samples = [];
let paused = false;
let timer = 0;
let failures = 0;
let asking = false;

// Making and changing elements

function make(tag, classes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...children);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function dress(element, classes) {
  if (element.className !== classes) element.className = classes;
}

function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

// One child for each item, kept as long as its key comes again, so that a selection or a place scrolled to stays.
function keyed(parent, items, keyOf, create, update) {
  const known = parent.known ??= new Map();
  const wanted = new Set(items.map(keyOf));
  for (const [key, element] of known) {
    if (!wanted.has(key)) {
      element.remove();
      known.delete(key);
    }
  }
  items.forEach((item, at) => {
    const key = keyOf(item);
    let element = known.get(key);
    if (!element) {
      element = create(item);
      known.set(key, element);
    }
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
    update(element, item, at);
  });
}

// Numbers as people read them

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function amount(n) {
  if (n === null || !Number.isFinite(n)) return "–";
  if (n > 0 && n < 10) return n.toFixed(1);
  return n < 10000 ? whole.format(n) : short.format(n);
}

function bytes(n) {
  if (n === null || !Number.isFinite(n)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : whole.format(n)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return `${whole.format(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 1) return `${whole.format(seconds * 1e3)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : whole.format(seconds)} s`;
  if (seconds < 5400) return `${whole.format(seconds / 60)} min`;
  return `${whole.format(seconds / 3600)} h`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

function times(n, word) {
  return `${whole.format(n)} ${word}${n === 1 ? "" : "s"}`;
}

// What happened between two samples

function before(seconds) {
  const last = samples.at(-1);
  return samples.find((s) => last.now - s.now <= seconds + 0.5) ?? last;
}

function rate(from, to, of) {
  const seconds = to.now - from.now;
  return seconds > 0 ? (of(to) - of(from)) / seconds : null;
}

function mean(from, to) {
  const count = to.count - from.count;
  return count > 0 ? (to.seconds - from.seconds) / count : null;
}

function less(from, to) {
  return to.map((n, at) => n - (from?.[at] ?? 0));
}

function added(lists) {
  return lists.reduce((sum, list) => sum.map((n, at) => n + list[at]));
}

// As Prometheus' histogram_quantile: within its bucket a value may be anywhere.
function quantile(counts, bounds, share) {
  const all = counts.reduce((a, b) => a + b, 0);
  if (all === 0) return null;
  let rank = share * all;
  for (let at = 0; at < counts.length; at += 1) {
    if (rank <= counts[at] && counts[at] > 0) {
      if (at === bounds.length) return Infinity;
      const low = at === 0 ? 0 : bounds[at - 1];
      return low + (bounds[at] - low) * (rank / counts[at]);
    }
    rank -= counts[at];
  }
  return Infinity;
}

function within(counts, bounds, share) {
  const seconds = quantile(counts, bounds, share);
  return seconds === Infinity ? `over ${duration(bounds.at(-1))}` : duration(seconds);
}

// The parts of the page

function showTop(now) {
  say(byId("database"), now.database);
  say(byId("version"), now.version);
  const state = byId("state");
  if (now.ready === null) {
    say(state, "Looking at the shards");
    dress(state, "badge");
  } else {
    say(state, now.ready ? "✓ Ready" : "✕ Not ready");
    dress(state, now.ready ? "badge good" : "badge bad");
  }
  document.title = now.ready === false ? `✕ ${now.database} · pgbraid` : `${now.database} · pgbraid`;
  show(byId("reasons"), now.reasons.length > 0);
  keyed(byId("reasons"), now.reasons, (reason) => reason, (reason) => make("li", "", reason), () => {});
  const differences = byId("differences");
  show(differences, now.differences > 0);
  say(differences, `The shards' catalogs differ in ${times(now.differences, "place")}: statements over what differs are refused. /readyz and pgbraid doctor name them.`);
}

function showGlance(from, now) {
  const sum = (record) => Object.values(record).reduce((a, b) => a + b, 0);
  const minute = before(MINUTE);
  const counts = less(counted(minute), counted(now));
  const clients = now.clients;
  const inTransaction = clients["idle in transaction"] + clients["idle in transaction (aborted)"];
  const tiles = [
    ["Statements/s", amount(rate(from, now, (s) => sum(s.statements))), `${whole.format(sum(now.statements))} since ${clock(now.started)}`],
    ["95 % within", minute === now ? "–" : within(counts, now.bounds, 0.95), "of the last minute"],
    ["Rows/s", amount(rate(from, now, (s) => s.rows_to_clients)), `${bytes(rate(from, now, (s) => s.bytes_to_clients))}/s to clients`],
    ["Clients", whole.format(sum(clients)), `${clients.active} active, ${clients.waiting} waiting, ${inTransaction} in a transaction`],
    ["Errors/s", amount(rate(from, now, (s) => s.errors)), `${whole.format(now.errors)} in all`],
    ["Refused", whole.format(now.statements.refused), "statements in all"],
  ];
  keyed(byId("glance"), tiles, ([name]) => name, ([name]) => make("div", "", make("dt", "", name), make("dd"), make("dd", "small")), (tile, [, value, more]) => {
    say(tile.children[1], value);
    say(tile.children[2], more);
  });
}

function figure(area, name) {
  return make("dl", area, make("dt", "", name), make("dd"));
}

function svg(tag, classes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  element.setAttribute("class", classes);
  return element;
}

function makeLane(shard) {
  const lane = make("li", "lane");
  const name = make("div", "name", make("h3", "", shard.name), make("div", "of"), make("span", "badge"), make("span", "badge warn"));
  const bar = make("div", "bar", make("i", "used"), make("i", "idle"));
  bar.setAttribute("aria-hidden", "true");
  const links = make("div", "links", make("div", "said", make("span"), make("span", "waiting")), bar, make("div", "of"));
  const spark = svg("svg", "spark");
  spark.setAttribute("viewBox", `0 0 ${MINUTE - 1} 30`);
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("aria-hidden", "true");
  spark.append(svg("path", "area"), svg("path", "edge"));
  const rows = make("div", "rows", figure("", "rows/s"), spark);
  lane.append(name, links, figure("flight", "in flight"), rows, figure("bytes", "bytes/s"), figure("first", "first row"), figure("last", "last row"), make("p", "why"));
  lane.shown = {
    of: name.children[1], health: name.children[2], slowest: name.children[3],
    said: links.firstChild.children[0], waiting: links.firstChild.children[1], used: bar.children[0], idle: bar.children[1], merge: links.children[2],
    flight: lane.querySelector(".flight dd"), rows: rows.querySelector("dd"), area: spark.children[0], edge: spark.children[1],
    bytes: lane.querySelector(".bytes dd"), first: lane.querySelector(".first dd"), last: lane.querySelector(".last dd"), why: lane.querySelector(".why"),
  };
  return lane;
}

function health(shard) {
  if (shard.reachable === null) return ["unknown", "badge", "… not looked at yet"];
  if (!shard.reachable) return ["dead", "badge bad", "✕ unreachable"];
  if (shard.paused) return ["paused", "badge warn", "❚❚ paused"];
  return ["alive", "badge good", "✓ reachable"];
}

function showLanes(from, now) {
  const lastRow = now.shards.map((shard, at) => mean(from.shards[at].last_row, shard.last_row));
  const known = lastRow.filter((seconds) => seconds !== null).sort((a, b) => a - b);
  const median = known[Math.floor((known.length - 1) / 2)];
  const slowest = known.length > 1 && known.at(-1) >= SLOWER * median ? known.at(-1) : null;
  const sparks = now.shards.map((_, at) => history(at));
  const most = Math.max(1, ...sparks.flat());
  keyed(byId("lanes"), now.shards, (shard) => shard.name, makeLane, (lane, shard, at) => {
    const shown = lane.shown;
    const earlier = from.shards[at];
    const [state, badge, word] = health(shard);
    dress(lane, `lane ${state}`);
    say(shown.of, shard.address);
    dress(shown.health, badge);
    say(shown.health, word);
    const isSlowest = slowest !== null && lastRow[at] === slowest;
    show(shown.slowest, isSlowest);
    if (isSlowest) say(shown.slowest, `slowest, ${(slowest / median).toFixed(1)} × the median`);
    const links = shard.connections;
    say(shown.said, `${links.in_use} in use, ${links.idle} idle of ${links.size}`);
    say(shown.waiting, links.waiting > 0 ? `, ${links.waiting} waiting` : ", 0 waiting");
    dress(shown.waiting, links.waiting > 0 ? "waiting" : "");
    shown.used.style.width = `${(100 * links.in_use) / links.size}%`;
    shown.idle.style.width = `${(100 * links.idle) / links.size}%`;
    say(shown.merge, `merge sessions: ${shard.merge.in_use} in use of ${shard.merge.size}`);
    say(shown.flight, whole.format(shard.in_flight));
    const pair = (of) => rate({ now: from.now, of: of(earlier) }, { now: now.now, of: of(shard) }, (s) => s.of);
    say(shown.rows, amount(pair((s) => s.rows)));
    say(shown.bytes, bytes(pair((s) => s.bytes_received + s.bytes_sent)));
    say(shown.first, duration(mean(earlier.first_row, shard.first_row)));
    say(shown.last, duration(lastRow[at]));
    draw(shown, sparks[at], most);
    show(shown.why, shard.reachable === false);
    say(shown.why, shard.error ?? "");
  });
}

// Rows a second of a shard from one sample to the next.
function history(at) {
  const points = [];
  for (let n = 1; n < samples.length; n += 1) {
    points.push(Math.max(0, rate(samples[n - 1], samples[n], (s) => s.shards[at].rows) ?? 0));
  }
  return points.slice(-MINUTE);
}

// All lanes have one scale, so that they can be compared.
function draw(shown, points, most) {
  const start = MINUTE - points.length;
  const line = points.map((n, at) => `${start + at} ${(29 - (28 * n) / most).toFixed(1)}`).join("L");
  shown.edge.setAttribute("d", line ? `M${line}` : "");
  shown.area.setAttribute("d", line ? `M${start} 30L${line}L${MINUTE - 1} 30Z` : "");
}

// Kinds of another version come last.
function kindsOf(sample) {
  const known = Object.keys(sample.seconds);
  return [...KINDS.filter((kind) => known.includes(kind)), ...known.filter((kind) => !KINDS.includes(kind))];
}

function words(kind) {
  return kind.replaceAll("_", " ");
}

// How many statements took how long, whatever their plan; what asks no shard is not what anybody waits for.
function counted(sample) {
  return added(kindsOf(sample).filter((kind) => !WITHOUT_SHARDS.includes(kind)).map((kind) => sample.seconds[kind].counts));
}

function showTimes(now) {
  const sinceStart = document.querySelector("input[name=period]:checked").value === "start";
  const from = sinceStart ? null : before(MINUTE);
  const counts = less(from && counted(from), counted(now));
  const most = Math.max(1, ...counts);
  const bars = byId("bars");
  const name = (at) => (at < now.bounds.length ? `up to ${duration(now.bounds[at])}` : `over ${duration(now.bounds.at(-1))}`);
  keyed(bars, counts.map((n, at) => ({ n, at })), (bar) => bar.at, () => make("i"), (bar, { n, at }) => {
    bar.style.height = n === 0 ? "0" : `max(2px, ${(100 * n) / most}%)`;
    bar.title = `${name(at)}: ${times(n, "statement")}`;
  });
  const all = counts.reduce((a, b) => a + b, 0);
  const [half, most95] = [0.5, 0.95].map((share) => within(counts, now.bounds, share));
  const said = all === 0 ? "No statements in this period." : `${times(all, "statement")} over shards: half within ${half}, 95 % within ${most95}.`;
  say(byId("bars-said"), said);
  bars.setAttribute("aria-label", `Statements by the time they took. ${said}`);
  const ticks = TICKS.filter((tick) => now.bounds.includes(tick));
  keyed(byId("ticks"), ticks, (tick) => tick, (tick) => make("span", "", duration(tick).replace(".0", "")), (mark, tick) => {
    mark.style.left = `${(100 * (now.bounds.indexOf(tick) + 1)) / counts.length}%`;
  });
  showKinds(from, now);
}

function showKinds(from, now) {
  const start = { now: now.started, statements: {}, seconds: {} };
  const earlier = from ?? start;
  keyed(byId("kinds"), kindsOf(now), (kind) => kind, (kind) => {
    const head = make("th", "", words(kind));
    head.scope = "row";
    return make("tr", "", head, make("td"), ...QUANTILES.map(() => make("td")));
  }, (row, kind) => {
    say(row.children[1], amount(rate(earlier, now, (s) => s.statements[kind] ?? 0)));
    const counts = less(earlier.seconds[kind]?.counts, now.seconds[kind].counts);
    QUANTILES.forEach((share, at) => say(row.children[2 + at], within(counts, now.bounds, share)));
  });
}

function makeStatement() {
  const head = make("div", "head", make("strong"), make("span", "badge"), make("span"), make("span"), make("span"));
  return make("li", "item", head, make("pre"), make("ul", "plan"), make("ul", "parts"));
}

function planOf(step) {
  const item = make("li", "", make("span", "step", step.step));
  if (step.text) item.append(make("code", "", step.text));
  if (step.inputs) item.append(make("ul", "", ...step.inputs.map(planOf)));
  return item;
}

function showStatement(item, statement) {
  const [head, text, plan, parts] = item.children;
  say(head.children[0], duration(statement.seconds));
  say(head.children[1], statement.state === "waiting" ? "waits for a connection" : words(statement.kind));
  dress(head.children[1], statement.state === "waiting" ? "badge warn" : "badge");
  say(head.children[2], statement.rows === null ? "" : `${times(statement.rows, "row")} so far`);
  say(head.children[3], statement.waits_for === null ? "" : `waits for ${statement.waits_for}`);
  say(head.children[4], `${statement.user}, ${statement.client}, id ${statement.id}`);
  say(text, statement.text);
  // A session that is too busy to say how far it is has not changed its plan.
  if (statement.plan === null) return;
  const tree = JSON.stringify(statement.plan);
  if (item.tree !== tree) {
    item.tree = tree;
    plan.replaceChildren(planOf(statement.plan));
  }
  keyed(parts, statement.parts.map((part, at) => ({ part, at })), ({ at }) => at, () => make("li", "", make("b"), make("span")), (line, { part }) => {
    say(line.children[0], part.shard);
    const first = part.first_row_seconds === null ? "no row yet" : `first row ${duration(part.first_row_seconds)}`;
    const last = part.done ? `, done ${duration(part.last_row_seconds)}` : "";
    say(line.children[1], ` ${times(part.rows, "row")}, ${first}${last}`);
  });
}

function showRunning(running) {
  const more = running.total - running.shown.length;
  const rest = more > 0 ? `; ${whole.format(more)} more are not shown` : "";
  say(byId("running-said"), running.total === 0 ? "Nothing runs right now." : `${times(running.total, "statement")} under way, the one that has run longest first${rest}.`);
  keyed(byId("running"), running.shown, (s) => `${s.id} ${s.text}`, makeStatement, showStatement);
}

function makeRefusal(refusal) {
  const head = make("div", "head", make("strong"), make("span", "badge", refusal.reason), make("span"));
  const item = make("li", "item", head, make("p", "message", refusal.message));
  if (refusal.hint) item.append(make("p", "remedy", make("b", "", "Remedy: "), refusal.hint));
  if (refusal.text) item.append(make("pre", "", refusal.text));
  return item;
}

function showRefusals(now) {
  say(byId("refused-said"), now.refusals.length === 0 ? "Nothing was refused." : "Each refusal once, the latest first.");
  const key = (r) => JSON.stringify([r.reason, r.message, r.hint, r.text]);
  keyed(byId("refused"), now.refusals, key, makeRefusal, (item, refusal) => {
    const [count, , when] = item.firstChild.children;
    say(count, `${whole.format(refusal.count)} ×`);
    const since = refusal.count > 1 ? `, the first at ${clock(refusal.first)}` : "";
    say(when, `last ${duration(Math.max(0, Math.round(now.now - refusal.last)))} ago by ${refusal.user}${since}`);
  });
}

function showAll() {
  const now = samples.at(-1);
  const from = before(WINDOW);
  showTop(now);
  showGlance(from, now);
  showLanes(from, now);
  showTimes(now);
  showRunning(now.running);
  showRefusals(now);
}

// Fetching

function take(sample) {
  const last = samples.at(-1);
  const names = (s) => s.shards.map((shard) => shard.name).join();
  // Another process counts from nothing, and one that slept has nothing to compare with.
  if (last && (last.started !== sample.started || names(last) !== names(sample) || sample.now - last.now > MINUTE)) {
    samples.length = 0;
  }
  const previous = samples.at(-1);
  if (previous?.now === sample.now) return;
  if (previous) previous.running = previous.refusals = null;
  samples.push(sample);
  if (samples.length > MINUTE + 2) samples.shift();
}

async function fetched() {
  const response = await fetch("live.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (response.status === 401) throw new Error("the password is asked for again: reload the page");
  if (!response.ok) throw new Error(`pgbraid answered with status ${response.status}`);
  return response.json();
}

async function tick() {
  clearTimeout(timer);
  if (paused || document.hidden || asking) return;
  asking = true;
  let sample = null;
  try {
    sample = await fetched();
    failures = 0;
  } catch (error) {
    failures += 1;
    lost(error);
  }
  asking = false;
  timer = setTimeout(tick, EVERY * Math.min(5, 1 + failures));
  if (sample === null) return;
  take(sample);
  show(byId("lost"), false);
  document.body.classList.remove("stale");
  showAll();
  fresh();
}

function lost(error) {
  const why = error instanceof TypeError ? "pgbraid does not answer" : error.name === "TimeoutError" ? "pgbraid does not answer in time" : error.message;
  const last = samples.at(-1);
  const since = last ? ` The figures are those of ${clock(last.now)}.` : "";
  say(byId("lost"), `Connection lost: ${why}. Trying again.${since}`);
  show(byId("lost"), true);
  document.body.classList.add("stale");
  fresh();
}

function fresh() {
  const last = samples.at(-1);
  const at = last ? clock(last.now) : "";
  say(byId("fresh"), paused ? `Paused at ${at}` : failures > 0 ? `Not connected, ${at}` : `Live, ${at}`);
}

byId("pause").addEventListener("click", (event) => {
  paused = !paused;
  say(event.target, paused ? "Resume" : "Pause");
  fresh();
  tick();
});
document.addEventListener("visibilitychange", tick);
for (const input of document.querySelectorAll("input[name=period]")) {
  input.addEventListener("change", () => samples.length > 0 && showTimes(samples.at(-1)));
}
tick();
