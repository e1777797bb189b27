// What the pages of what processes count show, beside what the API says.

import assert from "node:assert/strict";
import { accessible, en, near, sound, text } from "./check.mjs";
import { settled } from "./browser.mjs";
import { seen } from "./counted.mjs";
import { hostile } from "./mesh.mjs";
import { about, eventsAre, processIs, waitsAre } from "./shown.mjs";

export async function agree(t, page, hub) {
  const visit = async (path) => {
    await page.goto(hub.url + path);
    await page.locator("h1").first().waitFor();
    await settled(page);
  };
  const brief = await hub.ask("brief?from=1h");
  const route = (operation) => brief.routes.find((r) => r.operation === operation && r.waits);

  await t.test("a route's waits, what it carries again, and how it is known", async () => {
    for (const operation of ["shop.v1.Catalog/Get", "shop.v1.Pricing/Quote"]) {
      const r = route(operation);
      await visit(`/route/${r.id}?from=1h`);
      await waitsAre(page, r);
      const of = (name, i = 0) => page.locator(`tr[data-of=${name}] td`).nth(i).innerText();
      assert.equal(await of("looked-at"), en(r.carried.calls));
      about(await of("looked-at", 1), r.carried.calls / r.calls, "looked at");
      assert.equal(await of("same"), en(r.carried.same));
      about(await of("same", 1), r.carried.same / r.carried.calls, "same");
      about(await of("request", 1), r.carried.requestRepeated / r.carried.request, "asked again");
      about(await of("response", 1), r.carried.responseRepeated / r.carried.response, "answered again");
      assert.equal(await of("switches"), `${(r.switches / r.calls).toFixed(2)} (${en(r.switches)})`);
      assert.equal(await of("wakes"), `${((r.wakes ?? 0) / r.calls).toFixed(2)} (${en(r.wakes ?? 0)})`, "none, if it waited without sleep");
      near(await of("spin"), r.spin / r.calls, `${operation}: waits without sleep`);
      const said = await text(page, "main");
      assert.match(said, /Stile, which counts each call/);
      assert.match(said, /traces, of those that came/);
      assert.match(said, new RegExp(`${r.mode}, ${r.transport}`));
    }
    await sound(page, "route");
  });

  await t.test("routes have a bar where it is known", async () => {
    await visit("/routes?from=1h");
    for (const r of brief.routes) {
      const bar = page.locator(`tr[data-route='${r.id}'] .waits`);
      assert.equal(await bar.count(), r.waits ? 1 : 0, r.operation);
      if (!r.waits) continue;
      const total = r.waits.clientQueue + r.waits.transport + r.waits.serverQueue + r.waits.handler;
      const wide = await bar.locator("i").evaluateAll((all) => all.map((i) => Number.parseFloat(i.style.width)));
      ["clientQueue", "transport", "serverQueue", "handler"].forEach((key, i) => assert.ok(Math.abs(wide[i] - (100 * r.waits[key]) / total) < 0.06, `${r.operation}: ${key}`));
    }
    await sound(page, "routes");
  });

  await t.test("processes use what the API says, and can be sorted", async () => {
    await visit("/processes");
    const { processes } = await hub.ask("processes");
    const rows = page.locator("tr[data-process]");
    assert.equal(await rows.count(), processes.length);
    const order = async () => (await rows.evaluateAll((all) => all.map((r) => Number(r.dataset.process)))).map((pid) => processes.find((p) => p.pid === pid));
    const cpu = (await order()).map((p) => p.cpu);
    assert.deepEqual(cpu, cpu.toSorted((a, b) => b - a), "the busiest first");
    for (const p of processes) await processIs(page, p);
    await page.getByRole("button", { name: "PID" }).click();
    assert.match(page.url(), /sort=pid/);
    assert.deepEqual((await order()).map((p) => p.pid), processes.map((p) => p.pid).toSorted((a, b) => b - a));
    await page.getByRole("button", { name: "PID" }).press("Enter");
    assert.deepEqual((await order()).map((p) => p.pid), processes.map((p) => p.pid).toSorted((a, b) => a - b));
    await page.setViewportSize({ width: 390, height: 844 });
    await page.locator("tbody[data-process]").first().waitFor();
    for (const p of processes) assert.equal(await page.locator(`tbody[data-process='${p.pid}'] td[data-of=cpu]`).innerText(), (p.cpu / p.window).toFixed(2));
    await page.setViewportSize({ width: 1280, height: 800 });
    await sound(page, "processes");
  });

  await t.test("a process over time is what the API says, with its host", async () => {
    const fixed = `from=${new Date(Date.now() - 3600e3).toISOString()}&to=${new Date().toISOString()}`;
    const { processes, hosts } = await hub.ask(`load?${fixed}`);
    assert.equal(processes.length, 3);
    await visit(`/processes?${fixed}`);
    await page.locator("svg[role=img]").first().waitFor();
    assert.equal(await page.locator("td.spark svg").count(), 6);
    await page.locator("tr[data-process='4242'] th a").click();
    await page.waitForFunction(() => location.pathname.startsWith("/process/"));
    const p = processes.find((q) => q.service === "gateway");
    assert.ok(page.url().includes(p.id));
    await visit(`/process/${p.id}?${fixed}`);
    const mean = (column) => column.filter((v) => v !== null).reduce((a, b, _, all) => a + b / all.length, 0);
    const one = await hub.ask(`load?${fixed}&points=300&process=${p.id}`);
    assert.equal(one.processes.length, 1);
    const cpu = mean(one.processes[0].user.map((v, i) => (v === null ? null : v + one.processes[0].system[i])));
    const shown = Number.parseFloat(await text(page, "[data-fact=cpu]"));
    assert.ok(Math.abs(shown - cpu) < 0.01, `${shown} processors, want ${cpu}`);
    assert.equal(await text(page, "[data-fact=pid]"), "PID\n4242".split("\n")[1]);
    assert.equal(await page.locator("figure").count(), 6);
    const h = hosts[0];
    const others = mean(h.user.map((v, i) => (v === null ? null : Math.max(v + h.system[i] + h.steal[i] - h.known[i], 0))));
    assert.ok(others > 0.8 && others < 0.9, `others: ${others}`);
    assert.match(await text(page, "h2:has-text('Its host')"), /others used 0.8\d processors/);
    await sound(page, "process");
    const { hosts: told } = await hub.ask("brief?from=1h");
    assert.ok(told.length === 1 && told[0].contaminated > 0, JSON.stringify(told));
    await visit("/map?from=1h");
    await page.locator("details summary").first().click();
    assert.match(await text(page, "details"), /on node-a that are contaminated: others used more than 0.1 processors/);
    await visit("/process/0123456789abcdef");
    assert.match(await text(page, "main"), /has told of nothing in this time/);
    page.complaints.length = 0; // of the 404
  });

  await t.test("what policies decided of a route, and hold now", async () => {
    const r = route("shop.v1.Catalog/Get");
    await visit(`/route/${r.id}?from=1h`);
    await page.locator("tr[data-control]").first().waitFor();
    const names = { retries: "retries", "refused by the breaker": "breaker", "cache hits": "cacheHits", late: "late" };
    assert.equal(await page.locator("tr[data-decided]").count(), Object.keys(r.decisions).length);
    for (const [name, key] of Object.entries(names)) assert.equal(await page.locator(`tr[data-decided='${name}'] td`).innerText(), en(r.decisions[key]));
    assert.equal(await page.locator("tr[data-control=breaker] td").innerText(), "open");
    assert.equal(await page.locator("tr[data-control=limit] td").innerText(), "14 of 200, 9 under way");
    const left = page.locator("tr", { hasText: "until the deadline, on arrival" });
    assert.equal(await left.count(), r.deadlineLeft ? 1 : 0);
  });

  await t.test("policies: who has which version, who lags and who refuses, as the API says", async () => {
    await seen(hub);
    await visit("/policies");
    const { sources, policies } = await hub.ask("policies");
    assert.equal(await page.locator("section[data-source]").count(), sources.length);
    const shop = sources.find((s) => s.source === "/etc/shop/policy.yaml");
    const at = page.locator(`section[data-source='${shop.source}']`);
    assert.deepEqual([shop.processes, shop.lagging, shop.refusing, shop.versions.length], [3, 2, 1, 2]);
    assert.equal(await at.locator("[data-of=lagging]").innerText(), "2 lag.");
    assert.equal(await at.locator("[data-of=refusing]").innerText(), "1 refuses a version.");
    const versions = at.locator("tr[data-version]");
    assert.deepEqual(await versions.evaluateAll((all) => all.map((r) => r.dataset.version)), shop.versions.map((v) => v.id), "the newest first");
    for (const [i, v] of shop.versions.entries()) {
      const said = await versions.nth(i).innerText();
      for (const part of [v.id.slice(0, 8), v.version, v.id === shop.newest ? "newest" : "older"]) assert.ok(said.includes(part), `${said} lacks ${part}`);
      assert.equal(await versions.nth(i).locator("td").nth(1).innerText(), en(v.processes));
    }
    for (const p of policies.filter((p) => p.source === shop.source)) {
      const row = at.locator(`tr[data-process='${p.pid}']`);
      const said = await row.innerText();
      for (const part of [p.service, `${p.pid} on ${p.host}`, p.id.slice(0, 8), p.version, p.from]) assert.ok(said.includes(part), `${said} lacks ${part}`);
      assert.match(await row.locator("[data-of=stands]").innerText(), p.refused ? /^refuses a version(, lags .*)?$/ : p.lags ? /^lags / : /^newest$/);
      if (p.refused) assert.ok((await at.innerText()).includes(p.refused));
    }
    assert.ok(await at.getByText("last good copy").count());
    assert.equal(await page.locator("main img, main script").count(), 0);
    await accessible(page, "/policies");
    await at.getByText("Breakers and limits").click();
    assert.equal(await at.locator("tr[data-control]").count(), policies.filter((p) => p.source === shop.source).flatMap((p) => p.controls).length);
    await at.getByRole("link", { name: /diff to the newest/ }).click();
    await page.locator("tr[data-change]").first().waitFor();
    const older = shop.versions.find((v) => v.id !== shop.newest);
    const diff = await hub.ask(`policies/diff?from=${older.id}&to=${shop.newest}`);
    const rows = await page.locator("tr[data-change]").evaluateAll((all) => all.map((r) => [...r.cells].map((c) => c.innerText)));
    assert.deepEqual(rows, diff.changes.map((c) => [c.name || "the whole file", c.what, c.before, c.after + (c.note ? ` ${c.note}` : "")]));
    assert.ok(rows.length >= 2);
    const lines = await page.locator("pre span").allInnerTexts();
    const side = (mark) => lines.filter((l) => l[0] === " " || l[0] === mark).map((l) => l.slice(2).trimEnd());
    assert.deepEqual(side("−"), diff.from.text.split("\n").map((l) => l.trimEnd()), "without what was added the text is the old one");
    assert.deepEqual(side("+"), diff.to.text.split("\n").map((l) => l.trimEnd()), "without what was removed it is the new one");
    await accessible(page, "a diff");
    await sound(page, "a diff");
    await page.getByRole("link", { name: "all policies" }).click();
    const odd = sources.find((s) => s.source.startsWith(hostile));
    await page.locator(`tr[data-version='${odd.newest}']`).getByRole("link", { name: /^text/ }).click();
    await page.locator("main", { hasText: "The hub cannot read" }).waitFor();
    assert.equal((await page.locator("pre").innerText()).trim(), (await hub.ask(`policies/version?id=${odd.newest}`)).text.trim());
    assert.equal(await page.locator("main img, main script").count(), 0);
    await page.setViewportSize({ width: 390, height: 844 });
    await settled(page);
    await sound(page, "policies on a phone");
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  await t.test("events are those of the API, filtered in the URL", async () => {
    const matches = async (query) => {
      const { events } = await hub.ask(`events?from=1h&limit=500${query}`);
      await eventsAre(page, events);
      return events;
    };
    await visit("/events?from=1h");
    const events = await matches("");
    assert.equal(events.length, 7);
    assert.equal(await page.locator("main section").count(), new Set(events.map((e) => Math.floor(Date.parse(e.first) / 60e3))).size, "grouped by minute");
    const kept = events.find((e) => e.kind === "breaker moved").trace;
    await page.locator(`a[href^='/trace/${kept}']`).waitFor();
    assert.equal(await page.locator("a[href^='/trace/']").count(), 1, "only a trace that is kept is a link");
    await page.locator("main", { hasText: "is not kept" }).waitFor();
    await page.getByLabel("Service").selectOption("gateway");
    await page.waitForFunction(() => location.search.includes("service=gateway"));
    await settled(page);
    assert.equal((await matches("&service=gateway")).length, 3);
    await page.getByLabel("Kind").selectOption("connection began");
    await page.waitForFunction(() => location.search.includes("kind=connection"));
    await settled(page);
    assert.equal((await matches("&service=gateway&kind=connection+began")).length, 1);
    await page.getByLabel("Service").selectOption(hostile);
    await page.locator("main", { hasText: "No event of this time is like this" }).waitFor();
    await visit(`/events?from=1h&service=${encodeURIComponent(hostile)}`);
    assert.equal((await matches(`&service=${encodeURIComponent(hostile)}`)).length, 1);
    assert.equal(await page.locator("main img, main script").count(), 0);
    await page.locator("option", { hasText: "gateway" }).waitFor({ state: "attached" });
    await sound(page, "events");
  });

  await t.test("findings tell what is carried again, and where no share is known", async () => {
    await visit("/findings?from=1h");
    const found = brief.findings.find((f) => f.kind === "duplicated");
    assert.ok((await text(page, "main")).includes(found.text.replaceAll(/\s+/g, " ")));
    await page.getByRole("button", { name: "duplicated" }).press("Enter");
    const terms = await hub.ask("terms");
    assert.ok((await text(page, ".definition")).startsWith(terms.find((term) => term.name === "duplicated").definition));
    const alone = brief.blocking.filter((b) => b.counted);
    assert.ok(alone.length > 0, "a route of which no trace tells");
    assert.equal(await page.locator("td", { hasText: /^not known$/ }).count(), alone.length);
    await sound(page, "findings");
  });
}
