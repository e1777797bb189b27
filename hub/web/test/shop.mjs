// Drives a browser through the dashboard of a hub that the shop feeds: six programs that call each other. What it leaves are pictures in shots/.

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import test, { after, before } from "node:test";
import { newPage, open, settled } from "./browser.mjs";
import { begin, watchdog } from "./child.mjs";
import { accessible, clicks, en, sound, text, until } from "./check.mjs";
import { Hub } from "./hub.mjs";
import { budgetsAre, eventsAre, named, processIs, queueIs, routeIs, routesAre, statusIs, traceIs, waitsAre } from "./shown.mjs";
import { Programs } from "./programs.mjs";

const root = resolve(import.meta.dirname, "../../..");
const program = resolve(root, process.env.STILE ?? "bin/stile");
const bin = resolve(root, process.env.SHOP ?? "bin/shop");
const shots = resolve(import.meta.dirname, "../shots");

const bar = 1000; // ms until something is seen: told, never asserted

// What is asked of the shop. Those in the queue wait for a mailer that has ended.
const asked = { pages: 40, lists: 12, listed: 8, unknown: 4, orders: 24, queued: 24, waiting: 15 };
const placed = asked.orders + asked.queued + asked.waiting;
const traces = asked.pages + asked.lists + asked.unknown + placed;

// edges are those of TestMapFromAgents, and the mailer's that is called; each with how often.
const edges = {
  "gateway → catalog shop.catalog.v1.CatalogService/GetProduct shm": asked.pages,
  "gateway → catalog shop.catalog.v1.CatalogService/GetProducts shm": placed + asked.unknown,
  "gateway → catalog shop.catalog.v1.CatalogService/ListProducts shm": asked.lists,
  "gateway → inventory shop.inventory.v1.InventoryService/GetStock shm": asked.pages,
  "gateway → pricing shop.pricing.v1.PricingService/GetPrice shm": asked.pages + asked.listed * asked.lists,
  "gateway → orders shop.orders.v1.OrdersService/PlaceOrder shm": placed,
  "orders → inventory shop.inventory.v1.InventoryService/Reserve shm": placed,
  "orders → pricing shop.pricing.v1.PricingService/Quote shm": placed,
  "orders → mailer shop.mailer.v1.MailerService/SendOrderConfirmation shm": asked.orders,
  "orders → queue orders.placed send orders.placed broker": asked.queued + asked.waiting,
  "queue orders.placed → mailer process orders.placed broker": asked.queued,
};
const services = ["catalog", "gateway", "inventory", "mailer", "orders", "pricing"];

// planted is what is known to be wrong with the shop: examples/shop/README.md.
const planted = [
  "n+1 gateway → pricing shop.pricing.v1.PricingService/GetPrice",
  "carried orders → mailer shop.mailer.v1.MailerService/SendOrderConfirmation",
  "serial orders → pricing shop.pricing.v1.PricingService/Quote",
  "unused orders → mailer shop.mailer.v1.MailerService/SendOrderConfirmation",
];
const told = (f) => `${f.kind} ${named(f.from)} → ${named(f.to)} ${f.operation}`;

const rules = (version, most) => `x-stile: {version: "${version}", owner: team-shop}
methodConfig:
- name: [{service: shop.inventory.v1.InventoryService}]
  timeout: 10s
  x-stile:
    breaker: {slidingWindowSize: 20, minimumNumberOfCalls: 10, failureRateThreshold: 50, waitDurationInOpenState: 1s}
    limit: {maxRequests: ${most}, maxPendingRequests: 64}
- name: [{}]
  timeout: 10s
`;

let browser;
let dir;
let hub;
let shop;
let demo;
let fixed; // the time in which all of it was, with room for windows that are made longer

watchdog();

before(async () => {
  for (const p of [program, ...services.map((s) => join(bin, s))]) assert.ok(existsSync(p), `${p} is not there: make build`);
  mkdirSync(shots, { recursive: true });
  dir = mkdtempSync(join(tmpdir(), "stile-shop-")); // short, for the paths of unix sockets are
  process.once("exit", () => rmSync(dir, { recursive: true, force: true }));
  browser = await open();
  hub = new Hub(program, join(dir, "hub"));
  hub.more = ["--otlp-grpc", "127.0.0.1:0"];
  await hub.start();
  const policy = join(dir, "policy.yaml");
  writeFileSync(policy, rules(1, 32));
  shop = new Programs(bin, join(dir, "shop"), hub.at.grpc, policy);
  for (const name of ["inventory", "pricing", "mailer"]) shop.slow(name, "5ms"); // so that what waits for them is what takes time, on a busy machine, too
  await use(await shop.shop(), policy);
});

after(async () => {
  await browser?.close();
  demo?.child.kill("SIGKILL"); // whose programs end with it
  await shop?.kill();
  if (hub?.urls) await hub.stop("SIGKILL");
});

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// use asks the shop for what it has, for some 12 s, and waits until the hub has all of it.
async function use({ calls, queues, mailer, outbox }, policy) {
  const now = Date.now();
  fixed = `from=${new Date(now - 3600e3).toISOString()}&to=${new Date(now + 3600e3).toISOString()}`;
  const get = async (path) => assert.equal((await fetch(calls + path)).status, 200, path);
  let n = 0;
  const order = async (url, sku, status) => {
    const items = [{ id: sku ?? `sku-${String((++n % 200) + 1).padStart(4, "0")}`, quantity: 1 }];
    const r = await fetch(`${url}/orders`, { method: "POST", body: JSON.stringify({ customer: "ada@example.com", items }) });
    assert.equal(r.status, status, await r.text());
  };
  // change writes the policy anew once all have told of the first version, and a few seconds later they follow.
  const change = async () => {
    if ((await hub.ask("policies")).policies.length < shop.all.length) return false;
    writeFileSync(policy, rules(2, 48));
    return true;
  };
  let changed = false;
  for (let i = 0; i < asked.pages; i++) {
    await get(`/products/sku-${String(i + 1).padStart(4, "0")}`);
    if (i < asked.lists) await get(`/products?limit=${asked.listed}`);
    if (i < asked.unknown) await order(calls, "sku-9999", 404);
    if (i < asked.orders) await order(calls, undefined, 201);
    if (i < asked.queued) await order(queues, undefined, 201);
    if (!changed) changed = await change();
    await pause(300);
  }
  if (!changed) await until(change);
  await until(() => readdirSync(outbox).filter((f) => f.endsWith(".eml")).length === asked.queued);
  await shop.stop(mailer);
  for (let i = 0; i < asked.waiting; i++) await order(queues, undefined, 201);
  demo = beginDemo();
  await until(async () => {
    const { routes, whole } = await hub.ask(`brief?${fixed}`);
    const { queues: [q] } = await hub.ask(`queues?${fixed}`);
    const { policies } = await hub.ask("policies");
    const counted = Object.entries(edges).every(([key, calls]) => routes.some((r) => keyOf(r) === key && r.calls >= calls && r.sources.length === 2));
    return counted && whole === traces && q?.lag === asked.waiting && policies.every((p) => p.version === "2");
  });
}

const keyOf = (r) => `${named(r.from)} → ${named(r.to)} ${r.operation} ${r.transport}`;

// beginDemo has stile demo run the shop for its own hub, which it leaves open; for so long that one order that stands still is no large part of the time of all.
function beginDemo() {
  const child = begin(program, ["demo", "--duration", "8s", "--rate", "100", "--keep", "--json", "--shop", bin], { stdio: ["ignore", "pipe", "pipe"] });
  const d = { child, said: "", result: "", ended: once(child, "exit") };
  child.stdout.on("data", (part) => (d.result += part));
  d.open = new Promise((done, fail) => {
    child.stderr.on("data", (part) => {
      d.said += part;
      const at = /what the hub saw is at (\S+) until/.exec(d.said);
      if (at) done(at[1]);
    });
    child.once("exit", () => fail(new Error(`the demo has ended: ${d.said}`)));
  });
  d.open.catch(() => {}); // the test that waits for it tells
  return d;
}

// agreed has what is asked compared with what a page shows, again if it was another in the meantime.
async function agreed(ask, compare) {
  for (;;) {
    const answer = await ask();
    let wrong;
    await compare(answer).catch((e) => (wrong = e));
    if (JSON.stringify(await ask()) !== JSON.stringify(answer)) continue;
    if (wrong) throw wrong;
    return;
  }
}

test("the shop's hub", async (t) => {
  const brief = await hub.ask(`brief?${fixed}`);
  const by = (part) => brief.routes.find((r) => r.operation.endsWith(part));
  const order = by("/PlaceOrder");
  const shown = await exemplar(order);
  const queue = (await hub.ask(`queues?${fixed}`)).queues[0];
  const orders = (await hub.ask("processes")).processes.find((p) => p.service === "orders");
  const { versions } = (await hub.ask("policies")).sources[0];

  await t.test("what was asked of the shop is what the hub counted", () => {
    const got = Object.fromEntries(brief.routes.map((r) => [keyOf(r), r.calls]));
    assert.deepEqual(got, edges);
    assert.deepEqual(brief.nodes.filter((n) => n.kind === "service").map((n) => n.name).sort(), services);
    for (const r of brief.routes) assert.equal(r.failed, r.operation.endsWith("/GetProducts") ? asked.unknown : 0, r.operation);
    assert.equal(queue.lag, asked.waiting);
  });

  const pages = {
    map: ["/map", "Map"], "map-chosen": ["/map?at=service:orders", "Map"], routes: ["/routes", "Routes"], route: [`/route/${order.id}`, order.operation],
    traces: ["/traces", "Traces"], trace: [`/trace/${shown.trace}`, "gateway"], findings: ["/findings", "Findings"], budget: ["/budget?target=99&slower=20ms", "Budget"],
    processes: ["/processes", "Processes"], process: [`/process/${orders.id}`, "orders"], policies: ["/policies", "Policies"], "policies-diff": [`/policies?old=${versions[1].id}&new=${versions[0].id}`, "Policies"],
    queues: ["/queues", "Queues"], queue: [`/queues/${queue.id}`, "orders.placed → mailer"], events: ["/events", "Events"], status: ["/status", "Status"],
  };
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    await t.test(`pages load, ${width} px, light and dark`, async () => {
      const page = await newPage(browser, { width, height });
      for (const [name, [path, title]] of Object.entries(pages)) {
        await page.goto(hub.url + path);
        await page.locator("h1", { hasText: title }).waitFor();
        await settled(page);
        const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
        t.diagnostic(`${name} of the shop at ${width} px: first paint after ${Math.round(paint)} ms; the bar is ${bar} ms`);
        for (const theme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme: theme });
          await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))); // what is drawn is drawn again
          await page.screenshot({ path: join(shots, `shop-${name}-${width}-${theme}.png`), fullPage: name !== "trace" });
          await sound(page, `${name}, ${theme}`);
          if ((width > 390) === (theme === "dark")) await accessible(page, `${name}, ${theme}, ${width} px`);
        }
        await page.emulateMedia({ colorScheme: "light" });
      }
      await page.context().close();
    });
  }

  const page = await newPage(browser);
  const visit = async (path) => {
    await page.goto(hub.url + path);
    await page.locator("h1").first().waitFor();
    await settled(page);
  };
  const timed = (path) => `${path}${path.includes("?") ? "&" : "?"}${fixed}`;

  await t.test("the map has the six services and the edges between them", async () => {
    await visit(timed("/map"));
    await page.locator("a.node").first().waitFor();
    const labels = (of) => page.locator(`a.${of}`).evaluateAll((all) => all.map((a) => a.getAttribute("aria-label")));
    assert.deepEqual((await labels("node")).map((l) => l.split(", ")[0]).sort(), [...services, "queue orders.placed"].sort());
    const want = new Map();
    for (const r of brief.routes) {
      const key = `${named(r.from)} → ${named(r.to)}`;
      const [calls, failed, way] = want.get(key) ?? [0, 0, r.transport];
      want.set(key, [calls + r.calls, failed + r.failed, way]);
    }
    const got = await labels("edge");
    assert.equal(got.length, want.size);
    for (const [ends, [calls, failed, way]] of want) {
      const label = got.find((l) => l.startsWith(`${ends}: ${en(calls)} calls, ${en(failed)} failed`));
      assert.ok(label?.includes(way === "shm" ? "on this host (shm)" : "over the network (broker)"), `${ends} in ${got.join("\n")}`);
    }
    assert.equal(await page.locator("main a[href^='/findings']").innerText(), `${brief.findings.length} things stand out`);
    await sound(page, "map");
  });

  await t.test("each route and where its calls wait", async () => {
    await agreed(() => hub.ask(`brief?${fixed}`), async (brief) => {
      await visit(timed("/routes"));
      await routesAre(page, brief);
    });
    await sound(page, "routes");
    for (const { id, operation } of brief.routes) {
      await agreed(() => hub.ask(`brief?${fixed}&route=${id}`), async ({ routes: [r] }) => {
        await visit(timed(`/route/${id}`));
        await routeIs(page, r);
        if (r.mode === "sync") await waitsAre(page, r);
        assert.ok((await text(page, "main")).includes(`${r.mode}, ${r.transport}`), operation);
      });
      await sound(page, operation);
    }
  });

  await t.test("the planted faults are found and named", async () => {
    await agreed(() => hub.ask(`brief?${fixed}`), async ({ findings, blocking }) => {
      for (const want of planted) assert.ok(findings.some((f) => told(f) === want), `${want} in ${findings.map(told)}`);
      await visit(timed("/findings"));
      for (const f of findings) {
        const row = page.locator("section", { has: page.getByRole("button", { name: f.kind, exact: true }) }).locator("tr", { hasText: `${named(f.from)} → ${named(f.to)}` }).filter({ hasText: f.operation });
        assert.equal(await row.count(), 1, told(f));
        assert.ok((await row.innerText()).replaceAll(/\s+/g, " ").includes(f.text.replaceAll(/\s+/g, " ")), told(f));
        assert.ok(await row.locator(`a[href^='/trace/${f.evidence[0].trace}']`).count(), `${told(f)}: a trace shows it`);
      }
      assert.equal(await page.getByText("flagged", { exact: true }).count(), blocking.filter((b) => b.flagged).length);
    });
    await sound(page, "findings");
  });

  await t.test("a trace is opened from an exemplar, and has its critical path", async () => {
    await visit(`/trace/${shown.trace}?span=${shown.span}`);
    const want = await hub.ask(`trace?id=${shown.trace}`);
    await traceIs(page, want);
    const marked = await page.locator("[role=row]", { has: page.locator(".bar.critical") }).locator(".what b").allInnerTexts();
    for (const service of ["gateway", "catalog", "orders", "inventory", "pricing"]) assert.ok(marked.includes(service), `${service} in ${marked}`);
    const chosen = want.spans.find((s) => s.id === shown.span);
    assert.ok(Math.abs(chosen.duration / 1e9 - shown.took) < 1e-9, `${chosen.duration} ns, and ${shown.took} s in the bucket`);
    assert.match(await text(page, "[role=row][aria-selected=true]"), /gateway/);

    await agreed(() => hub.ask(`series?route=${order.id}&points=60&${fixed}`), async () => {
      await visit(timed(`/route/${order.id}`));
      await page.locator("canvas[role=img]").focus();
      await clicks(page, "ArrowLeft", "Enter");
      await page.waitForFunction(() => location.search.includes("cell="));
      await settled(page);
    });
    const cell = page.locator("h2#kept + div tbody a").first();
    const id = (await cell.getAttribute("href")).split(/[/?]/)[2];
    await cell.click();
    await page.waitForFunction((id) => location.pathname === `/trace/${id}`, id);
    await settled(page);
    await traceIs(page, await hub.ask(`trace?id=${id}`));
    await sound(page, "trace");
  });

  await t.test("traces and budgets are what the API says", async () => {
    await agreed(() => hub.ask(`traces?limit=100&${fixed}`), async ({ traces, seen, kept }) => {
      await visit(timed("/traces"));
      assert.deepEqual(await page.locator("main tbody tr a").evaluateAll((all) => all.map((a) => a.getAttribute("href").split(/[/?]/)[2])), traces.map((one) => one.id));
      assert.match(await text(page, "main .about"), new RegExp(`^Of ${seen} traces in this time ${kept} `));
    });
    await agreed(() => hub.ask("burn?target=0.99&slower=5ms"), async (want) => {
      await visit("/budget?target=99&slower=5ms");
      await budgetsAre(page, want);
    });
    await sound(page, "budget");
  });

  await t.test("processes, and what policy is in force in them", async () => {
    await agreed(() => hub.ask("processes"), async ({ processes }) => {
      await visit(timed("/processes"));
      assert.deepEqual([...new Set(processes.map((p) => p.service))].sort(), services);
      assert.equal(await page.locator("tr[data-process]").count(), processes.length);
      for (const p of processes) await processIs(page, p);
    });
    await sound(page, "processes");
    await agreed(() => hub.ask("policies"), async ({ sources: [source], policies }) => {
      await visit("/policies");
      assert.equal(await page.locator("section[data-source]").getAttribute("data-source"), source.source);
      assert.match(await page.locator(".sum").innerText(), new RegExp(`^In force in ${source.processes} processes; the newest, ${source.newest.slice(0, 8)}`));
      for (const p of policies) {
        const row = page.locator(`tr[data-process='${p.pid}']`);
        assert.ok((await row.innerText()).includes(`${p.id.slice(0, 8)} 2`), p.service);
        assert.equal(await row.locator("[data-of=stands]").innerText(), "newest");
      }
      await page.getByText("Breakers and limits").click();
      assert.equal(await page.locator("tr[data-control]").count(), policies.flatMap((p) => p.controls).length);
      assert.ok(await page.locator("tr[data-control=limit]", { hasText: "48 of 48" }).count(), "the second version's limit");
    });
    await sound(page, "policies");
  });

  await t.test("the queue has what no mailer has taken", async () => {
    await visit(timed("/queues"));
    assert.equal(await page.locator(`tr[data-queue='${queue.id}'] td[data-of=lag]`).innerText(), en(asked.waiting));
    await agreed(() => hub.ask(`queues?queue=${queue.id}&${fixed}`), async ({ queues: [q] }) => {
      await visit(timed(`/queues/${queue.id}`));
      await queueIs(page, q);
    });
    assert.equal(queue.messages, asked.queued + asked.waiting);
    await sound(page, "queue");
  });

  await t.test("events and the status", async () => {
    const { events } = await hub.ask(`events?limit=500&${fixed}`); // of those no more come
    const connected = events.filter((e) => e.kind === "connected" && e.detail === "over shm").map((e) => e.service);
    assert.deepEqual(connected.sort(), [...Array(4 + 2).fill("gateway"), ...Array(3 + 2).fill("orders")], "each has one connection to each that it calls");
    await visit(timed("/events"));
    await eventsAre(page, events);
    await sound(page, "events");
    await agreed(() => hub.ask("status"), async (want) => {
      await visit("/status");
      await statusIs(page, want);
    });
    await sound(page, "status");
  });

  await t.test("a hub that is killed comes back with what it had, and pages with it", async () => {
    await visit("/routes?from=1h");
    await hub.stop("SIGKILL");
    await page.keyboard.press("r");
    await page.locator("div.lost").waitFor();
    await hub.start();
    await page.locator("div.lost").waitFor({ state: "detached" });
    await agreed(() => hub.ask(`brief?${fixed}`), async (again) => {
      assert.deepEqual(Object.fromEntries(again.routes.map((r) => [keyOf(r), r.calls])), edges);
      await visit(timed("/routes"));
      await routesAre(page, again);
    });
  });
  await page.context().close();
});

// exemplar is the slowest call of a route that a bucket shows in OpenMetrics.
async function exemplar(r) {
  const answer = await fetch(`${hub.url}/metrics`, { headers: { Accept: "application/openmetrics-text; version=1.0.0" } });
  const [service, method] = r.operation.split("/");
  const buckets = (await answer.text()).split("\n").filter((l) => l.startsWith("rpc_client_call_duration_seconds_bucket") && l.includes(service) && l.includes(method));
  const slowest = buckets.map((l) => /# \{(.*)\} (\S+)/.exec(l)).filter(Boolean).at(-1);
  assert.ok(slowest, `no bucket of ${r.operation} shows a trace: ${buckets}`);
  const [, labels, took] = slowest;
  return { trace: /trace_id="(\w+)"/.exec(labels)[1], span: /span_id="(\w+)"/.exec(labels)[1], took: Number(took) };
}

test("stile demo --keep leaves a hub open that has seen the shop", async (t) => {
  const url = await demo.open;
  const ask = async (path) => (await fetch(`${url}api/v1/${path}`)).json();
  const brief = await ask("brief?from=1h");
  assert.deepEqual(brief.routes.map(keyOf).sort(), Object.keys(edges).sort());
  for (const want of planted) assert.ok(brief.findings.some((f) => told(f) === want), `${want} in ${brief.findings.map(told)}`);
  const page = await newPage(browser);
  await page.goto(`${url}routes?from=1h`);
  await page.locator("tr[data-route]").first().waitFor();
  await settled(page);
  await routesAre(page, brief);
  await page.goto(`${url}findings?from=1h`);
  await settled(page);
  for (const f of brief.findings) assert.ok((await text(page, "main")).replaceAll(/\s+/g, " ").includes(f.text), told(f));
  await sound(page, "the demo's findings");
  await page.screenshot({ path: join(shots, "demo-findings-1280-light.png"), fullPage: true });
  await page.context().close();
  demo.child.kill("SIGINT");
  assert.deepEqual(await demo.ended, [0, null], demo.said);
  assert.equal(JSON.parse(demo.result).failed, 0);
});
