// What each page has to stand: answers in whichever order, and a hub that is away.

import assert from "node:assert/strict";
import { newPage, settled } from "./browser.mjs";
import { sound, until } from "./check.mjs";

const part = (url) => new URL(url).pathname.replace("/api/v1/", "");

async function ready(page) {
  await page.locator("h1", { hasText: /\S/ }).first().waitFor();
  await page.waitForLoadState("networkidle");
  await settled(page);
}

// still loads pages, [path, , hub], each once for each part of the API that it asks, which comes last, and sees that nothing jumps.
export async function still(browser, pages) {
  const left = Object.entries(pages).flatMap(([name, [path, , hub]]) => [1280, 390].map((width) => [name, hub.url + path, width]));
  const some = async () => {
    for (let one; (one = left.pop()); ) await inAnyOrder(browser, ...one);
  };
  await Promise.all([some(), some(), some(), some()]);
}

async function inAnyOrder(browser, name, url, width) {
  const page = await newPage(browser, { width });
  const parts = new Set();
  let slow;
  await page.route("**/api/v1/**", async (r) => {
    parts.add(part(r.request().url()));
    if (part(r.request().url()) === slow) await new Promise((done) => setTimeout(done, 400));
    await r.continue().catch(() => {}); // the page may be gone
  });
  await page.goto(url);
  await ready(page);
  await sound(page, `${name}, ${width} px`);
  assert.ok(parts.size > 0, `${name} asks nothing`);
  for (slow of parts) {
    await page.goto(url);
    await ready(page);
    await sound(page, `${name}, where ${slow} comes last, ${width} px`);
  }
  await page.context().close();
}

const cut = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE)/; // of a hub that was killed

// survive opens each page in a tab of its own, kills their hub, and begins it again with news. A page has a path; a selector of what it shows; and what it says by the API, which the news change, or
// which stays as it is (same). It tells that the hub is away, keeps what it shows, asks all again, and says the news, and nobody loads it again. A page that asks once is come to by a link (by)
// while the hub is away.
export async function survive(browser, hub, pages, news) {
  const tabs = await Promise.all(Object.entries(pages).map(([name, of]) => openTab(browser, hub, name, of)));
  await hub.stop("SIGKILL");
  await Promise.all(tabs.map(lost));
  for (const t of tabs) t.answered.clear();
  await hub.start();
  await news();
  await Promise.all(tabs.map(found));
}

async function openTab(browser, hub, name, of) {
  const page = await newPage(browser);
  const t = { name, page, asked: new Set(), answered: new Set(), ...of };
  page.on("response", (r) => r.url().includes("/api/v1/") && r.ok() && t.answered.add(part(r.url())));
  await page.goto(hub.url + of.path);
  await page.locator(of.by ?? of.shows).first().waitFor();
  await ready(page);
  await page.evaluate(() => (window.once = true));
  t.asked = new Set([...t.answered].filter((p) => p !== "terms")); // which do not change
  t.count = await page.locator(of.shows).count();
  t.said = await of.says?.();
  return t;
}

async function lost({ name, page, shows, by, count }) {
  if (by) await page.locator(by).first().click();
  else await page.keyboard.press("r");
  await page.locator("div.lost", { hasText: "has not answered since" }).waitFor();
  assert.equal(await page.locator(shows).count(), by ? 0 : count, `${name}: what it showed while the hub is away`);
}

async function found(t) {
  const { name, page } = t;
  await page.locator("div.lost").waitFor({ state: "detached" });
  await until(() => t.by || [...t.asked].every((p) => t.answered.has(p)));
  await page.locator(t.shows).first().waitFor();
  await until(async () => {
    const now = await (t.says ?? t.same)();
    return now !== t.said && (await page.locator("main").innerHTML()).replaceAll(/<!--.*?-->/g, "").includes(now);
  });
  await settled(page);
  assert.equal(await page.locator("main [role=alert]", { hasText: /\S/ }).count(), 0, `${name}: what is told to be wrong`);
  assert.equal(await page.evaluate(() => window.once), true, `${name} was loaded again`);
  assert.deepEqual(page.complaints.filter((c) => !cut.test(c) && !t.bears?.test(c)), [], `${name}: the console, after its hub was away`);
  await page.context().close();
}
