// Drives a browser through the pages of queues: a process has one with dead letters, and a hub acts on them.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import test, { after, before } from "node:test";
import { newPage, open, settled } from "./browser.mjs";
import { begin, watchdog } from "./child.mjs";
import { queueIs } from "./shown.mjs";
import { accessible, en, sound, text, until } from "./check.mjs";
import { Hub } from "./hub.mjs";
import { still, survive } from "./pages.mjs";

const root = resolve(import.meta.dirname, "../../..");
const program = resolve(root, process.env.STILE ?? "bin/stile");
const shots = resolve(import.meta.dirname, "../shots");
const reads = "0123456789abcdef0123456789abcdef";
const operates = "fedcba9876543210fedcba9876543210";

watchdog();

let browser;
let dir;
let child;
const hubs = {};

before(async () => {
  mkdirSync(shots, { recursive: true });
  dir = mkdtempSync(join(shots, "run-"));
  browser = await open();
  execFileSync("go", ["build", "-o", join(dir, "queues"), "./hub/web/testdata/queues"], { cwd: root });
  for (const name of ["free", "empty"]) {
    hubs[name] = new Hub(program, join(dir, name));
    hubs[name].more = ["--otlp-grpc", "127.0.0.1:0"];
    await hubs[name].start();
    hubs[name].more = ["--otlp-grpc", hubs[name].at.grpc]; // where processes find it again
  }
  child = begin(join(dir, "queues"), [hubs.free.at.grpc, join(dir, "q")], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
});

after(async () => {
  await browser?.close();
  if (child) {
    child.stdin.end();
    await once(child, "exit");
  }
  for (const h of Object.values(hubs)) if (h.urls) await h.stop("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

const billing = async () => (await hubs.free.ask("queues")).queues.find((q) => q.group === "billing");

test("queues", async (t) => {
  await until(async () => (await billing())?.dead === 7);
  for (let i = 0; i < 300; i++) child.stdin.write(`good ${i} ${"x".repeat(150)}\n`);
  const q = await until(async () => {
    const now = await billing();
    return now.published >= 100 && now.lag + now.inFlight === 0 && now;
  });
  const audit = (await hubs.free.ask("queues")).queues.find((a) => a.group === "audit");
  assert.ok(audit.lag > 0 && audit.inFlight > 0 && audit.oldest > 0);

  for (const [width, height] of [[1280, 800], [390, 844]]) {
    await t.test(`pages load, ${width} px, light and dark`, async () => {
      const page = await newPage(browser, { width, height });
      for (const [name, path, title] of [["queues", "/queues", "Queues"], ["queue", `/queues/${q.id}`, "orders.placed → billing"], ["queue-findings", "/findings", "Findings"]]) {
        await page.goto(hubs.free.url + path);
        await page.locator("h1", { hasText: title }).waitFor();
        await page.waitForLoadState("networkidle");
        await settled(page);
        for (const theme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme: theme });
          await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
          await page.screenshot({ path: join(shots, `${name}-${width}-${theme}.png`), fullPage: true });
          await sound(page, `${name}, ${theme}, ${width} px`);
          await accessible(page, `${name}, ${theme}, ${width} px`);
        }
        await page.emulateMedia({ colorScheme: "light" });
      }
      await page.context().close();
    });
  }

  await t.test("nothing jumps, in whichever order answers come", async () => {
    await still(browser, { queues: ["/queues", "Queues", hubs.free], queue: [`/queues/${q.id}`, "orders.placed → billing", hubs.free] });
  });

  await t.test("a hub that is killed is told of, and one that comes again is asked", async () => {
    const messages = async () => (await billing()).messages;
    await survive(browser, hubs.free, {
      queues: { path: "/queues", shows: "tr[data-queue]", says: async () => `${en(await messages())} messages` },
      queue: { path: `/queues/${q.id}`, shows: "li[data-letter]", says: async () => `data-fact="messages">${en(await messages())}<`, bears: /status of 404/ }, // until the process has told of the queue again
    }, () => child.stdin.write("news\n"));
  });

  const page = await newPage(browser);

  await t.test("the table says what the API says", async () => {
    await page.goto(`${hubs.free.url}/queues`);
    await page.locator(`tr[data-queue='${q.id}']`).waitFor();
    await page.locator("body").press("p");
    await settled(page);
    const all = (await hubs.free.ask("queues")).queues;
    assert.deepEqual((await page.locator("tr[data-queue]").evaluateAll((rows) => rows.map((r) => r.dataset.queue))).sort(), all.map((a) => a.id).sort());
    for (const a of all) {
      const cell = (of) => page.locator(`tr[data-queue='${a.id}'] td[data-of=${of}]`).innerText();
      if (a.group) assert.equal(await cell("dead"), en(a.dead));
      if (a.group) assert.equal(await cell("lag"), en(a.lag));
      assert.match(await page.locator(`tr[data-queue='${a.id}'] th`).innerText(), new RegExp(a.group || "nobody has subscribed"));
    }
    await page.locator("#search").fill("audit");
    assert.equal(await page.locator("tr[data-queue]").count(), 1);
    await page.locator("#search").fill("no such");
    await page.locator(".empty").waitFor();
    await page.locator("#search").fill("");
    await page.getByRole("button", { name: "Lag" }).click();
    assert.equal(await page.locator("tr[data-queue]").first().getAttribute("data-queue"), audit.id);
    assert.match(page.url(), /sort=lag/);
    await page.locator("body").press("p");
    await sound(page, "queues");
  });

  await t.test("one queue says what the API says", async () => {
    const from = new Date(Date.now() - 600e3).toISOString();
    let to; // the end of a window that is kept, so that what is there stays what it is
    const { queues: [one], points } = await until(async () => {
      to = new Date(Math.floor((Date.now() - 2e3) / 10e3) * 10e3).toISOString();
      const told = await hubs.free.ask(`queues?queue=${audit.id}&from=${from}&to=${to}`);
      return told.points.length > 1 && told;
    });
    await page.goto(`${hubs.free.url}/queues/${audit.id}?from=${from}&to=${to}`);
    await page.locator("[data-fact=lag]").waitFor();
    await settled(page);
    await queueIs(page, one);
    assert.ok(points.length > 1 && points.reduce((n, p) => n + p.published, 0) === one.published);
    assert.equal(await page.locator(".charts canvas").count(), 4);
    await page.locator("section", { hasText: "There is none." }).waitFor();
    await sound(page, "queue");
  });

  await t.test("backpressure is found", async () => {
    await page.goto(`${hubs.free.url}/findings`);
    const found = await until(async () => (await hubs.free.ask("brief")).findings.find((f) => f.kind === "backpressure"));
    await page.locator("section", { hasText: "backpressure" }).locator("td", { hasText: "full or more in" }).first().waitFor();
    assert.match(found.text, /full or more in/);
    await page.locator("a[href*='/queues?q=unread']").first().click();
    await page.waitForFunction(() => document.querySelectorAll("tr[data-queue]").length === 1);
  });

  await t.test("dead letters are redriven and discarded, after a question", async () => {
    await page.goto(`${hubs.free.url}/queues/${q.id}`);
    const rows = page.locator("li[data-letter]");
    await rows.first().waitFor();
    assert.equal(await rows.count(), 7);
    const first = await rows.first().innerText();
    assert.match(first, /bad address/);
    assert.match(first, /<img src=x onerror="alert\(1\)">/);
    assert.match(first, /bad 0 <script>alert\(1\)<\/script> ··/);
    assert.equal(await page.locator("main img, main script").count(), 0);
    await sound(page, "seven dead letters");
    await page.getByRole("button", { name: "Discard all 7 dead letters" }).click();
    await page.locator("dialog[open]", { hasText: "for ever" }).waitFor();
    await accessible(page, "the question");
    await page.screenshot({ path: join(shots, "queue-question-1280-light.png") });
    await page.keyboard.press("Enter"); // which is Cancel
    await page.locator("dialog[open]").waitFor({ state: "detached" });
    assert.equal((await hubs.free.ask(`queues/dead?queue=${q.id}`, { "X-Stile-Operate": "1" })).letters.length, 7);

    await page.getByRole("button", { name: "Discard all 7 dead letters" }).click();
    for (let i = 0; i < 7; i++) child.stdin.write(`bad, and later ${i}\n`);
    await page.waitForFunction(() => document.querySelectorAll("li[data-letter]").length === 14); // they are shown, and it was not asked of them
    assert.equal(await text(page, "dialog[open] h2"), "Discard all 7 dead letters?");
    await page.getByRole("button", { name: "Discard for ever" }).click();
    await page.locator("section .result", { hasText: "7 discarded; 7 left." }).waitFor();
    await page.waitForFunction(() => document.querySelectorAll("li[data-letter]").length === 7);
    for (const said of await rows.allInnerTexts()) assert.match(said, /bad, and later \d/);

    const oldest = await rows.first().getAttribute("data-letter");
    await rows.first().getByRole("checkbox").check();
    await page.getByRole("button", { name: "Discard 1 dead letter" }).click();
    await page.getByRole("button", { name: "Discard for ever" }).click();
    await page.locator("section .result", { hasText: "1 discarded; 6 left." }).waitFor();
    await page.waitForFunction(() => document.querySelectorAll("li[data-letter]").length === 6);
    assert.notEqual(await rows.first().getAttribute("data-letter"), oldest);

    await page.getByRole("button", { name: "Redrive all 6 dead letters" }).click();
    await page.getByRole("button", { name: "Redrive", exact: true }).click();
    await page.locator("section .result", { hasText: "6 redriven" }).waitFor();
    await until(async () => (await hubs.free.ask(`queues/dead?queue=${q.id}`, { "X-Stile-Operate": "1" })).letters.length === 6); // they died again
    child.stdin.write("mend\n");
    await page.locator("body").press("r");
    await page.waitForFunction(() => document.querySelectorAll("li[data-letter]").length === 6);
    await rows.nth(1).getByRole("checkbox").check();
    await rows.nth(2).getByRole("checkbox").check();
    await page.getByRole("button", { name: "Redrive 2 dead letters" }).click();
    await page.getByRole("button", { name: "Redrive", exact: true }).click();
    await page.locator("section .result", { hasText: "2 redriven; 4 left." }).waitFor();
    await page.getByRole("button", { name: /^Redrive all/ }).click();
    await page.getByRole("button", { name: "Redrive", exact: true }).click();
    await page.locator("section .result", { hasText: "4 redriven; none is left." }).waitFor();
    await page.locator("section", { hasText: "There is none." }).waitFor();
    await until(async () => (await billing()).dead === 0);
    await page.waitForFunction(() => document.querySelector("[data-fact=dead]")?.textContent === "0");
    const events = (await hubs.free.ask("events?service=stile%20hub")).events.map((e) => `${e.kind} ${e.subject} ${e.detail}`);
    for (const want of [/discard begun orders.placed billing all up to sequence \d+ by uid \d+$/, /discarded orders.placed billing 7 by uid \d+$/, /discarded orders.placed billing 1 by uid \d+$/, /redriven orders.placed billing 6 by/, /redriven orders.placed billing 4 by/]) assert.ok(events.some((e) => want.test(e)), `${want} in ${events}`);
    await page.evaluate(() => { window.shift = 0; }); // what an act takes away lets the rest move up, and on a slow machine that is no longer "soon after a click"
    await sound(page, "dead letters");
  });
  await page.context().close();
});

test("without the right it is told what is needed, and where there is nothing, how there is", async () => {
  const page = await newPage(browser);
  await page.goto(`${hubs.empty.url}/queues`);
  await page.locator("main", { hasText: "No process told of a queue in this time" }).waitFor();
  await accessible(page, "no queues");
  await page.screenshot({ path: join(shots, "queues-empty-1280-light.png") });
  await page.goto(`${hubs.empty.url}/queues/0123456789abcdef`);
  await page.locator("[role=alert]", { hasText: "no queue of the ID" }).waitFor();
  await page.context().close();

  const tokens = join(dir, "tokens");
  writeFileSync(tokens, `read ${reads}\noperate ${operates} alice\n`);
  chmodSync(tokens, 0o600);
  const q = await billing();
  const guarded = (hubs.guarded = hubs.free);
  await guarded.stop();
  guarded.more.push("--tokens", tokens);
  await guarded.start();
  const other = await newPage(browser);
  await other.goto(`${guarded.url}/queues/${q.id}`);
  await other.locator("#token").fill(reads);
  await other.keyboard.press("Enter");
  await other.locator("section [role=alert]", { hasText: "takes a token of the role operate, and yours is for reading" }).waitFor();
  await other.screenshot({ path: join(shots, "queue-refused-1280-light.png"), fullPage: true });
  await accessible(other, "no right");
  await other.locator("#operate").fill(operates);
  await other.keyboard.press("Enter");
  await other.locator("section [role=alert]", { hasText: "no process has told of a queue" }).waitFor(); // who tells has no token
  await other.context().close();
});
