// What a page shows, beside what the API says.

import assert from "node:assert/strict";
import { en, near, text } from "./check.mjs";

export const named = (n) => (n.kind === "service" ? n.name : `${n.kind} ${n.name}`);

// percent is the share that is shown.
const percent = (shown) => Number.parseFloat(shown.replaceAll(/[<>\s]/g, "")) / 100;

export function about(shown, want, what) {
  assert.ok(Math.abs(percent(shown) - want) < 0.0006, `${what}: ${shown}, want ${want}`);
}

// rateIs takes what is shown for the rate that is wanted, as far as it has digits.
export function rateIs(shown, want, what) {
  if (want === 0) return assert.equal(shown.trim(), "0", what);
  const [, n, scale, unit] = /^([\d.]+)\s?([kMG]?)\/(s|min|h)$/.exec(shown.replaceAll("\u00a0", " ").trim()) ?? assert.fail(`${what}: ${shown} is no rate`);
  const one = { "": 1, k: 1e3, M: 1e6, G: 1e9 }[scale] / { s: 1, min: 60, h: 3600 }[unit];
  const last = 10 ** -(n.split(".")[1]?.length ?? 0);
  assert.ok(Math.abs(Number(n) * one - want) <= 0.51 * last * one, `${what}: ${shown}, want ${want}/s`);
}

export async function routesAre(page, brief) {
  const rows = page.locator("tbody tr[data-route]");
  assert.equal(await rows.count(), brief.routes.length);
  for (let i = 0; i < brief.routes.length; i++) {
    const r = brief.routes[i]; // both by what goes through them
    const row = rows.nth(i);
    assert.equal(await row.getAttribute("data-route"), r.id, `row ${i}`);
    assert.equal((await row.locator("th").textContent()).replaceAll(/\s+/g, " ").trim(), `${named(r.from)} → ${named(r.to)} ${r.operation}`);
    assert.equal(await row.locator("td").nth(0).getAttribute("title"), `${en(r.calls)} calls`);
    assert.equal(await row.locator("td").nth(1).getAttribute("title"), `${en(r.failed)} of ${en(r.calls)}`);
    near(await row.locator("td").nth(2).innerText(), r.duration.p50, `p50 of ${r.operation}`);
    near(await row.locator("td").nth(3).innerText(), r.duration.p99, `p99 of ${r.operation}`);
    about(await row.locator("td").nth(4).innerText(), r.through / brief.spent, `through ${r.operation}`);
  }
}

export async function routeIs(page, r) {
  const fact = (of) => text(page, `[data-fact=${of}]`);
  assert.equal((await fact("calls")).split(/\s/).at(-1), en(r.calls));
  assert.equal((await fact("failed")).split(/\s/).at(-1), en(r.failed));
  near(await fact("p50"), r.duration.p50, "p50");
  near(await fact("p99"), r.duration.p99, "p99");
}

export async function waitsAre(page, r) {
  const { clientQueue, transport, serverQueue, handler, calls } = r.waits;
  for (const [name, ns] of Object.entries({ "client queue": clientQueue, transport, "server queue": serverQueue, handler })) {
    const row = page.locator(`tr[data-part='${name}'] td`);
    near(await row.nth(0).innerText(), ns / calls, `${r.operation}: ${name}`);
    about(await row.nth(1).innerText(), ns / (clientQueue + transport + serverQueue + handler), `${r.operation}: share of ${name}`);
  }
}

// traceIs returns the rows of its spans.
export async function traceIs(page, want) {
  assert.equal(await text(page, "[data-fact=spans]"), String(want.spans.length));
  near(await text(page, "[data-fact=duration]"), want.duration, "duration");
  const rows = page.locator("[role=treegrid] [role=row]");
  assert.equal(await rows.count(), want.spans.length);
  assert.equal(await page.locator("[role=treegrid] .bar.critical").count(), want.spans.reduce((n, s) => n + s.critical.length, 0));
  return rows;
}

export async function budgetsAre(page, want) {
  for (const b of want.routes) {
    const cells = page.locator(`tr[data-route='${b.id}'] td`);
    const shown = await cells.evaluateAll((all) => all.slice(1, 6).map((c) => c.title.replaceAll(",", "")));
    assert.deepEqual(shown, b.times.map((t) => `${t.bad} of ${t.calls}`), b.operation);
    assert.equal((await cells.first().innerText()).replaceAll(/[▲△–\s]/g, ""), b.alert, b.operation);
  }
}

export async function statusIs(page, want) {
  assert.equal(await text(page, "[data-fact=spans]"), en(want.intake.spans));
  assert.equal(await text(page, "[data-fact=requests]"), en(want.intake.requests));
  assert.match(await text(page, "[data-fact=windows]"), new RegExp(`^${want.store.windows} window`));
}

export async function processIs(page, p) {
  const row = page.locator(`tr[data-process='${p.pid}']`);
  const of = (name) => row.locator(`td[data-of=${name}]`).innerText();
  const s = p.window / 1e9;
  assert.equal(await row.locator("th").innerText(), p.service);
  assert.equal(await of("pid"), String(p.pid));
  assert.equal(await of("host"), p.host);
  assert.equal(await of("cpu"), (p.cpu / p.window).toFixed(2));
  assert.equal(await of("dropped"), en(p.dropped));
  near((await of("waits")).replace("/s", ""), p.runQueue / s, "waits to run");
  for (const [name, n] of Object.entries({ calls: p.calls, switches: p.voluntarySwitches + p.involuntarySwitches, wakes: p.doorbells })) {
    rateIs(await of(name), n / s, `${name} of ${p.service}`);
  }
}

export async function eventsAre(page, events) {
  const items = page.locator("main li");
  await page.waitForFunction((n) => document.querySelectorAll("main li").length === n, events.length);
  for (let i = 0; i < events.length; i++) {
    const [e, item] = [events[i], items.nth(i)];
    assert.equal(Date.parse(await item.locator("time").getAttribute("datetime")), Date.parse(e.first));
    const said = (await item.innerText()).replaceAll(/\s+/g, " ");
    for (const part of [e.service, `${e.pid} on ${e.host}`, e.kind, e.subject, e.detail]) assert.ok(said.includes(part.replaceAll(/\s+/g, " ")), `${said} lacks ${part}`);
    assert.equal(await item.locator("b.bad", { hasText: /^error$/ }).count(), e.error ? 1 : 0, e.kind);
    assert.equal(said.includes(`× ${en(e.count)}`), e.count > 1, e.kind);
  }
}

export async function queueIs(page, q) {
  const fact = (of) => text(page, `[data-fact=${of}]`);
  assert.equal((await fact("lag")).split(/\s/)[0], en(q.lag));
  assert.equal((await fact("flight")).split(/\s/)[0], en(q.inFlight));
  assert.equal(await fact("messages"), en(q.messages));
  assert.equal(await fact("dead"), en(q.dead));
  near(await fact("oldest"), q.oldest, "oldest");
  rateIs((await fact("in")).split(/\s(?=\d)/)[0], q.in, "in");
}
