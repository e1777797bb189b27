// Drives a browser through the dashboard of real hubs. What it leaves are pictures in shots/.

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import test, { after, before } from "node:test";
import { newPage, open, settled } from "./browser.mjs";
import { watchdog } from "./child.mjs";
import { budgetsAre, named, routeIs, routesAre, statusIs, traceIs } from "./shown.mjs";
import { agree } from "./agree.mjs";
import { accessible, clicks, en, near, sound, text, until } from "./check.mjs";
import { report, seen } from "./counted.mjs";
import { Hub } from "./hub.mjs";
import { Batch, dense, hostile, many, odd, random, shop } from "./mesh.mjs";
import { still, survive } from "./pages.mjs";

const root = resolve(import.meta.dirname, "../../..");
const program = resolve(root, process.env.STILE ?? "bin/stile");
const shots = resolve(import.meta.dirname, "../shots");

watchdog();

let browser;
let dir;
let counted; // a hub to which processes report
const hubs = [];

before(async () => {
  assert.ok(existsSync(program), `${program} is not there: make build`);
  mkdirSync(shots, { recursive: true });
  dir = mkdtempSync(join(shots, "run-"));
  browser = await open();
  counted = await newHub("counted", "--otlp-grpc", "127.0.0.1:0");
  await report(counted);
});

after(async () => {
  await browser?.close();
  for (const h of hubs) if (h.urls) await h.stop("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

async function newHub(name, ...more) {
  const h = new Hub(program, join(dir, name));
  h.more = more;
  hubs.push(h);
  await h.start();
  return h;
}

// fed has the hub keep what it was sent at once: it does when it ends.
async function fed(h, batch) {
  await h.feed(batch);
  await h.stop();
  await h.start();
}

test("1,000 services and 10,000 routes", async (t) => {
  const hub = await newHub("many");
  const batch = new Batch(random(3));
  many(batch, 1000, 10_000, Date.now());
  for (const part of batch.parts(4000)) await hub.feed({ body: () => part });
  await hub.stop();
  await hub.start();
  const page = await newPage(browser);
  await page.goto(`${hub.url}/routes?from=1h`);
  await page.locator("tr[data-route]").first().waitFor();
  const brief = await hub.ask("brief?from=1h");
  assert.ok(brief.routes.length > 9000, `${brief.routes.length} routes`);
  const rows = page.locator("tr[data-route]");
  assert.ok((await rows.count()) < 100, "only rows that are seen are there");
  const ordered = await page.locator("table").getAttribute("aria-rowcount");
  assert.equal(Number(ordered), brief.routes.length + 1);
  await page.evaluate(() => {
    window.long = 0;
    scrollTo(0, document.documentElement.scrollHeight);
  });
  await page.locator(`tr[aria-rowindex='${brief.routes.length + 1}']`).waitFor();
  assert.ok((await rows.count()) < 100);
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator("tr[aria-rowindex='2']").waitFor();
  await page.getByRole("button", { name: "p50" }).click();
  await page.locator("#search").fill("service-0007 method");
  await page.waitForFunction(() => /^\d[\d,]* of/.test(document.querySelector("[role=status]").textContent));
  t.diagnostic(`10,000 routes: the longest task of scrolling, sorting and filtering took ${Math.round(await page.evaluate(() => window.long))} ms`);
  await page.evaluate(() => (window.long = 0));
  await page.goto(`${hub.url}/map?from=1h`);
  await page.locator("a.node").first().waitFor();
  assert.equal(await page.locator("a.node").count(), 60);
  assert.match(await text(page, "[role=status]"), /the 60 busiest of 1,000 nodes/);
  t.diagnostic(`1,000 nodes: the longest task of the map took ${Math.round(await page.evaluate(() => window.long))} ms`);
  await page.locator("#search").fill("service-0999");
  await page.locator("a.node.sought").waitFor();
  await page.waitForFunction(() => document.querySelectorAll("a.node").length < 60);
  await page.screenshot({ path: join(shots, "many-sought-1280-light.png") });
  const all = new Batch(random(4));
  dense(all, 40, Date.now());
  await fed(hub, all);
  await page.goto(`${hub.url}/map?from=1h&q=all-&n=30`);
  await page.locator("a.node").first().waitFor();
  assert.match(await text(page, "[role=status]"), /40 matches, with their neighbours: 30 of 1,040 nodes, the 60 busiest of 435 edges/);
  assert.equal(await page.locator("a.edge").count(), 60);
  await page.screenshot({ path: join(shots, "dense-1280-light.png") });
  await sound(page, "many");
  await page.context().close();
});

test("a shop", async (t) => {
  const hub = await newHub("shop");
  const batch = new Batch(random(7));
  shop(batch, 300, Date.now());
  await fed(hub, batch);
  const from = new Date(Date.now() - 3600e3).toISOString();
  const to = new Date(Date.now() + 3600e3).toISOString();
  const fixed = `from=${from}&to=${to}`;
  const brief = await hub.ask(`brief?${fixed}`);
  const full = await hub.ask(`map?${fixed}`);
  const traces = await hub.ask(`traces?${fixed}&limit=500`);
  const byOperation = (part) => brief.routes.find((r) => r.operation.includes(part));
  const trace = traces.traces.toSorted((a, b) => b.spans - a.spans)[0];

  const catalog = await until(async () => (await counted.ask("brief?from=1h")).routes.find((r) => r.transport === "shm" && r.sources.length === 2));
  await until(async () => (await counted.ask("traces?from=1h&limit=500")).kept > 0);
  const { processes: all } = await until(async () => {
    const l = await counted.ask("load?from=1h");
    return l.hosts.length === 1 && l.processes.length === 3 && l;
  });
  const [gateway, alone] = ["gateway", "pricing"].map((service) => all.find((p) => p.service === service));

  await t.test("the hub has what was sent", () => {
    assert.equal(brief.spans, batch.count);
    assert.equal(brief.traces, batch.traces);
    assert.equal(full.routes.length, brief.routes.length);
    for (const [key, want] of batch.calls) {
      if (key.includes("external") || key.includes("queue")) continue;
      const r = brief.routes.find((r) => `${named(r.from)} → ${named(r.to)} ${r.operation}` === key);
      assert.deepEqual(r && { calls: r.calls, failed: r.failed }, want, key);
      const f = full.routes.find((f) => f.id === r.id);
      assert.deepEqual([r.calls, r.failed, r.client?.count], [f.calls, f.failed, f.client.count], key);
    }
  });

  await seen(counted);
  const { versions } = (await counted.ask("policies")).sources.find((s) => s.source.startsWith("/etc/"));
  const pages = {
    map: ["/map", "Map"],
    chosen: [`/map?at=service:gateway`, "Map"],
    routes: ["/routes", "Routes"],
    route: [`/route/${byOperation("Quote").id}`, "shop.v1.Pricing/Quote"],
    traces: ["/traces", "Traces"],
    trace: [`/trace/${trace.id}`, trace.service],
    findings: ["/findings", "Findings"],
    budget: ["/budget?target=99&slower=20ms", "Budget"],
    status: ["/status", "Status"],
    processes: ["/processes", "Processes", counted],
    process: [`/process/${gateway.id}?from=15m`, "gateway", counted],
    "process-alone": [`/process/${alone.id}?from=15m`, "pricing", counted],
    "counted-map": ["/map?from=1h", "Map", counted],
    policies: ["/policies", "Policies", counted],
    "policies-diff": [`/policies?old=${versions[1].id}&new=${versions[0].id}`, "Policies", counted],
    events: ["/events", "Events", counted],
    "counted-routes": ["/routes", "Routes", counted],
    "counted-route": [`/route/${catalog.id}`, catalog.operation, counted],
    "counted-findings": ["/findings", "Findings", counted],
  };
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    await t.test(`pages load, ${width} px, light and dark`, async () => {
      const page = await newPage(browser, { width, height });
      for (const [name, [path, title, other = hub]] of Object.entries(pages)) {
        await page.goto(other.url + path);
        await page.locator("h1", { hasText: /\S/ }).first().waitFor();
        await settled(page);
        assert.match(await text(page, "h1"), new RegExp(title.replaceAll(/[^\w ]/g, ".")), name);
        const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
        t.diagnostic(`${name} at ${width} px: first contentful paint after ${Math.round(paint)} ms`);
        for (const theme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme: theme });
          await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))); // what is drawn is drawn again
          await page.screenshot({ path: join(shots, `${name}-${width}-${theme}.png`), fullPage: name !== "trace" });
          await sound(page, `${name}, ${theme}`);
          if (width > 390 || theme === "light") await accessible(page, `${name}, ${theme}`); // each width and each theme once
        }
        await page.emulateMedia({ colorScheme: "light" });
      }
      await page.context().close();
    });
  }

  await t.test("nothing jumps, in whichever order answers come", async () => {
    const all = Object.fromEntries(Object.entries(pages).map(([name, [path, title, other = hub]]) => [name, [path, title, other]]));
    await still(browser, all);
    const page = await newPage(browser);
    await page.goto(`${hub.url}/map`);
    const there = await page.locator("nav a").evaluateAll((links) => links.map((a) => a.pathname));
    assert.deepEqual(there.filter((p) => !Object.values(all).some(([path]) => path.startsWith(p))), ["/queues"], "pages that are not tested here");
    await page.context().close();
  });

  const page = await newPage(browser);
  const visit = async (path) => {
    await page.goto(hub.url + path);
    await page.locator("h1").first().waitFor();
    await settled(page);
  };

  await t.test("routes show what the API says", async () => {
    await visit(`/routes?${fixed}`);
    await routesAre(page, brief);
    const rows = page.locator("tbody tr[data-route]");
    await page.getByRole("button", { name: "p99" }).click();
    const order = await rows.evaluateAll((all) => all.map((r) => r.dataset.route));
    const p99 = order.map((id) => brief.routes.find((r) => r.id === id).duration.p99);
    assert.deepEqual(p99, p99.toSorted((a, b) => b - a));
    assert.match(page.url(), /sort=p99/);
    await page.locator("#search").fill("pricing -nothing");
    assert.equal(await rows.count(), 1);
    await page.locator("#search").fill("no such name");
    assert.equal(await rows.count(), 0);
    await sound(page, "routes");
  });

  await t.test("a route shows what the API says", async () => {
    for (const r of [byOperation("Quote"), byOperation("Reserve"), byOperation("SELECT")]) {
      await visit(`/route/${r.id}?${fixed}`);
      await routeIs(page, r);
      const series = await hub.ask(`series?route=${r.id}&${fixed}`);
      assert.equal(series.points.reduce((n, p) => n + p.calls, 0), r.calls);
      const kept = await hub.ask(`traces?route=${r.id}&limit=50&${fixed}`);
      assert.equal(await page.locator("h2#kept + div tbody tr").count(), kept.traces.length);
    }
    await sound(page, "route");
  });

  await t.test("a cell of the heatmap leads to its traces, by keyboard", async () => {
    const r = byOperation("Quote");
    await visit(`/route/${r.id}?from=5m`);
    await page.locator("canvas[role=img]").focus();
    await clicks(page, "ArrowLeft", "ArrowUp", "Enter");
    await page.waitForFunction(() => location.search.includes("cell="));
    await settled(page);
    const [cellFrom, cellTo, low, high] = new URL(page.url()).searchParams.get("cell").split("~");
    const want = await hub.ask(`traces?route=${r.id}&from=${cellFrom}&to=${cellTo}&min=${low}ns&max=${high}ns&limit=50`);
    await page.waitForFunction((n) => document.querySelectorAll("h2#kept + div tbody tr").length === n, want.traces.length);
    assert.ok(want.traces.length > 0, "no trace is kept of a cell that has calls");
    await page.locator("h2#kept + div tbody a").first().click();
    await page.waitForFunction(() => location.pathname.startsWith("/trace/"));
    await page.goBack();
    assert.match(page.url(), /\/route\//);
  });

  await t.test("a trace is what the API says, and goes by keyboard", async () => {
    await visit(`/trace/${trace.id}`);
    const want = await hub.ask(`trace?id=${trace.id}`);
    const rows = await traceIs(page, want);
    await rows.first().focus();
    await clicks(page, "ArrowDown", "ArrowDown");
    assert.equal(await page.locator("[role=row][aria-selected=true]").getAttribute("aria-rowindex"), "3");
    assert.ok(await page.evaluate(() => document.activeElement.getAttribute("aria-rowindex") === "3"), "the row that is chosen has the focus");
    await clicks(page, "Home", "ArrowLeft");
    assert.equal(await rows.count(), 1, "closed");
    await clicks(page, "ArrowRight");
    assert.equal(await rows.count(), want.spans.length, "open again");
    await clicks(page, "End");
    assert.equal(await page.locator("[role=row][aria-selected=true]").getAttribute("aria-rowindex"), String(want.spans.length));
    await sound(page, "trace");
  });

  await t.test("findings are told with what shows them", async () => {
    await visit(`/findings?${fixed}`);
    const plusOne = brief.findings.find((f) => f.kind === "n+1");
    assert.ok(plusOne, "the shop has an n+1");
    assert.ok((await text(page, "main")).includes(plusOne.text.replaceAll(/\s+/g, " ")));
    const evidence = await page.locator("a[href^='/trace/']").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
    assert.ok(evidence.some((e) => e.includes(plusOne.evidence[0].trace)));
    assert.equal(await page.locator(".definition").count(), 0);
    await page.keyboard.press("d");
    const terms = await hub.ask("terms");
    assert.ok((await text(page, ".definition")).startsWith(terms.find((t) => t.name === "n+1").definition));
    await page.keyboard.press("d");
    await page.getByRole("button", { name: "Blocking points" }).press("Enter");
    assert.ok((await text(page, ".definition")).startsWith(terms.find((t) => t.name === "blocking point").definition));
    await sound(page, "findings");
  });

  await t.test("budgets burn as the API says", async () => {
    await visit("/budget?target=95&slower=20ms");
    await budgetsAre(page, await hub.ask("burn?target=0.95&slower=20ms"));
    await page.getByLabel("good are").fill("100");
    await page.keyboard.press("Enter");
    assert.match(await text(page, "main [role=alert]"), /leaves no budget/);
    await page.getByLabel("good are").fill("90");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => location.search.includes("target=90"));
    await settled(page);
    await sound(page, "budget");
  });

  await t.test("the status is the hub's", async () => {
    await visit("/status");
    await statusIs(page, await hub.ask("status"));
    await sound(page, "status");
  });

  await t.test("the map has its edges, goes by keyboard, and shows names as text", async () => {
    await visit(`/map?${fixed}`);
    const pairs = new Set(brief.routes.map((r) => `${named(r.from)}\n${named(r.to)}\n${r.mode === "async"}\n${r.transport ?? ""}`));
    assert.equal(await page.locator("a.edge").count(), pairs.size);
    assert.equal(await page.locator("a.node").count(), brief.nodes.length);
    const r = byOperation("Reserve");
    const edge = page.locator(`a.edge[aria-label^="orders → inventory: ${en(r.calls)} calls, ${en(r.failed)} failed"]`);
    assert.equal(await edge.count(), 1);
    assert.ok((await edge.getAttribute("class")).split(" ").includes(r.failed === 0 ? "well" : r.failed < 0.05 * r.calls ? "some" : "many"));
    assert.ok((await edge.getAttribute("aria-label")).includes("on this host"));
    assert.equal(await page.locator("main script").count(), 0);
    assert.equal(await page.locator(`a.node[aria-label^='${hostile}']`).count(), 1);
    const where = () => page.locator(".drawing svg > g").getAttribute("transform");
    await page.locator(".drawing svg").focus();
    const begin = await where();
    await page.keyboard.press("+");
    assert.notEqual(await where(), begin, "zoom");
    await page.keyboard.press("0");
    await edge.focus();
    await page.keyboard.press("Enter");
    await page.locator("aside").waitFor();
    assert.match(await text(page, "aside h2"), /orders → inventory/);
    assert.match(await text(page, "aside"), /shop.v1.Inventory\/Reserve/);
    await page.keyboard.press("Escape");
    await page.locator("aside").waitFor({ state: "detached" });
    const box = await page.locator(".drawing svg").boundingBox();
    const still = await where();
    await page.mouse.move(box.x + 40, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + 140, box.y + 90, { steps: 4 });
    await page.mouse.up();
    assert.notEqual(await where(), still, "drag");
    await page.mouse.wheel(0, -300);
    await page.waitForFunction((t) => document.querySelector(".drawing svg > g").getAttribute("transform") !== t, still);
    await sound(page, "map");
  });

  await t.test("keys work everywhere", async () => {
    await visit("/map");
    await page.keyboard.press("?");
    await page.locator("dialog[open] h2").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("dialog[open]").waitFor({ state: "detached" });
    for (const [key, path] of Object.entries({ r: "/routes", t: "/traces", f: "/findings", b: "/budget", p: "/processes", o: "/policies", e: "/events", s: "/status", m: "/map" })) {
      await clicks(page, "g", key);
      await page.waitForFunction((p) => location.pathname === p, path);
    }
    await settled(page);
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "search");
    await page.keyboard.type("gr");
    assert.match(page.url(), /\/map\?q=gr/, "keys are typed where something is typed");
    await clicks(page, "Escape", "p");
    assert.equal(await page.locator("button.live").getAttribute("aria-pressed"), "true");
    await clicks(page, "p", "t");
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.keyboard.press("t");
    await sound(page, "keys");
  });

  await t.test("time is in the URL", async () => {
    await visit("/routes?from=2h&to=1h");
    assert.match(await text(page, "main"), /Nothing came in this time/);
    assert.match(await text(page, "button.live"), /fixed/);
    await page.getByLabel("Time range").selectOption("1h");
    await page.waitForFunction(() => location.search === "?from=1h");
    await page.locator("tr[data-route]").first().waitFor();
    await page.getByRole("link", { name: "Findings" }).click();
    await page.waitForFunction(() => location.pathname === "/findings" && location.search === "?from=1h");
    await page.goBack();
    await page.waitForFunction(() => location.pathname === "/routes");
    await visit("/routes?from=yesterday");
    assert.match(await text(page, "main [role=alert]"), /is neither a time/);
    page.complaints.length = 0; // of the 400
  });

  await t.test("what is not there is said", async () => {
    await visit("/trace/0123456789abcdef0123456789abcdef");
    assert.match(await text(page, "h1"), /not kept/);
    await visit("/route/0123456789abcdef");
    assert.match(await text(page, "main"), /no route|not called/i);
    page.complaints.length = 0; // of the 404s
  });

  await page.context().close();
});

test("a hub that is killed is told of, and one that comes again is asked, on each page", async () => {
  const again = await newHub("again", "--otlp-grpc", "127.0.0.1:0");
  await report(again);
  const quote = async () => (await again.ask("brief?from=1h")).routes.find((r) => r.transport === "unix-stream");
  const { id } = await until(quote);
  await until(async () => (await again.ask("traces?from=1h")).kept > 0);
  const process = (await until(async () => (await again.ask("load?from=1h")).processes.find((p) => p.service === "gateway"))).id;
  const calls = async () => `${en((await quote()).calls)} calls`;
  const shop = async () => (await again.ask("policies")).sources.find((s) => s.source.startsWith("/etc/"));
  const bad = async () => (await again.ask("burn?target=0.999")).routes.find((r) => r.id === id).times.at(-1);
  await seen(again);
  await survive(browser, again, {
    map: { path: "/map?from=1h", shows: "a.edge", says: async () => `gateway → pricing: ${await calls()}` },
    chosen: { path: "/map?from=1h&at=service:pricing", shows: "aside a", says: calls },
    routes: { path: "/routes?from=1h", shows: "tr[data-route]", says: async () => `title="${await calls()}"` },
    route: { path: `/route/${id}?from=1h`, shows: "[data-fact=calls]", says: async () => `<small>${en((await quote()).calls)}</small>` },
    traces: { path: "/traces?from=1h", shows: "tbody a[href^='/trace/']", says: async () => `Of ${en((await again.ask("traces?from=1h")).seen)} traces` },
    trace: { path: "/traces?from=1h", by: "tbody a[href^='/trace/']", shows: "[role=treegrid] [role=row]", same: () => "Spans" },
    findings: { path: "/findings?from=1h", shows: "table.paths", says: async () => `${en((await again.ask("brief?from=1h")).paths[0].traces)} traces` },
    budget: { path: "/budget", shows: "tr[data-route]", says: async () => `title="${en((await bad()).bad)} of ${en((await bad()).calls)}"` },
    processes: { path: "/processes", shows: "tr[data-process='4242']", same: () => "gateway" },
    process: { path: `/process/${process}?from=1h`, shows: "figure canvas", same: () => "4242" },
    policies: { path: "/policies", shows: "section[data-source] tr[data-process]", same: async () => `In force in ${en((await shop()).processes)} processes` },
    diff: { path: "/policies", by: "a:has-text('diff to')", shows: "tr[data-change]", same: () => "changes of" },
    events: { path: "/events?from=1h", shows: "main li", says: async () => `${en((await again.ask("events?from=1h&limit=500")).events.length)} events` },
    status: { path: "/status", shows: "[data-fact=windows]", says: async () => en((await again.ask("status")).intake.spans) },
  }, () => report(again, 2));
});

test("what no exporter should send is shown as it is", async () => {
  const hub = await newHub("odd");
  const batch = new Batch(random(5));
  odd(batch, Date.now());
  await fed(hub, batch);
  const again = new Batch(random(6));
  odd(again, Date.now());
  await fed(hub, again);
  const page = await newPage(browser);
  const brief = await hub.ask("brief?from=1h");
  for (const path of ["/map", "/routes", "/traces", "/findings", "/budget", "/processes", "/policies", "/events", "/status", "/trace/00000000000000000000000000000ddd", ...brief.routes.map((r) => `/route/${r.id}`)]) {
    await page.goto(`${hub.url}${path}?from=1h`);
    await page.locator("h1").first().waitFor();
    await settled(page);
    await sound(page, path);
  }
  await page.goto(`${hub.url}/trace/00000000000000000000000000000ddd`);
  const rows = page.locator("[role=treegrid] [role=row]");
  const want = await hub.ask("trace?id=00000000000000000000000000000ddd");
  await rows.first().waitFor();
  assert.equal(await rows.count(), want.spans.length);
  await rows.first().focus();
  for (let i = 1; i < want.spans.length; i++) await page.keyboard.press("ArrowDown");
  assert.equal(await page.locator("[role=row][aria-selected=true]").getAttribute("aria-rowindex"), String(want.spans.length));
  await page.goto(`${hub.url}/map?from=1h`);
  await page.locator("a.node").first().waitFor();
  for (const n of brief.nodes) assert.equal(await page.locator("a.node").evaluateAll((all, name) => all.filter((a) => a.getAttribute("aria-label").startsWith(`${name}, `)).length, named(n)), 1, n.name);
  assert.equal(await page.locator("main img").count(), 0);
  await page.context().close();
});

test("what processes count", async (t) => {
  await until(async () => (await counted.ask("brief?from=1h")).routes.some((r) => r.sources.length === 2));
  const page = await newPage(browser);
  await agree(t, page, counted);
  await page.context().close();
});

test("a hub with tokens, and nothing yet", async () => {
  const tokens = join(dir, "tokens");
  const secret = "0123456789abcdef0123456789abcdef";
  writeFileSync(tokens, `read ${secret}\nwrite ${secret.split("").reverse().join("")}\n`);
  chmodSync(tokens, 0o600);
  const hub = await newHub("guarded", "--tokens", tokens);
  const page = await newPage(browser);
  await page.goto(`${hub.url}/map`);
  await page.locator("#token").waitFor();
  await page.locator("#token").fill("wrong");
  await page.keyboard.press("Enter");
  await page.locator("[role=alert]", { hasText: "does not take" }).waitFor();
  await page.locator("#token").fill(secret);
  await page.keyboard.press("Enter");
  await page.locator("main", { hasText: "Nothing came in this time" }).waitFor();
  await page.screenshot({ path: join(shots, "empty-1280-light.png") });
  for (const path of ["/processes", "/policies", "/events"]) {
    await page.goto(hub.url + path);
    await page.locator("main", { hasText: "STILE_HUB=localhost:4317" }).waitFor();
    await accessible(page, `${path}, of none`);
    await page.screenshot({ path: join(shots, `empty-${path.slice(1)}-1280-light.png`) });
  }
  assert.equal(await page.evaluate(() => localStorage.length), 0, "tokens are not kept for longer than the tab");
  const other = await newPage(browser);
  await other.goto(`${hub.url}/status`);
  await other.locator("#token").waitFor();
  assert.equal((await fetch(`${hub.url}/api/v1/status`)).status, 401);
  assert.deepEqual(page.complaints.filter((c) => !c.includes("401")), []);
  await page.context().close();
  await other.context().close();
});
