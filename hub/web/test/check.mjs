// What is asked of each page, and how what it shows is read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const mostShift = 0.05;

export const text = (page, selector) => page.locator(selector).first().innerText();

// ns reads a duration that is shown.
function ns(shown) {
  const [, n, unit] = /^([\d.]+)\s(ns|µs|ms|s|min|h)$/.exec(shown.replaceAll("\u00a0", " ").trim()) ?? assert.fail(`${shown} is no duration`);
  return Number(n) * { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9, min: 60e9, h: 3600e9 }[unit];
}

export function near(shown, want, what) {
  if (want === 0) return assert.equal(shown.trim(), "0", what);
  assert.ok(Math.abs(ns(shown) - want) <= 0.0051 * want, `${what}: ${shown}, want ${want} ns`);
}

export async function sound(page, what) {
  assert.deepEqual(page.complaints, [], `${what}: the console`);
  const { shift, policy, over } = await page.evaluate(() => ({ shift: window.shift, policy: window.policy, over: document.documentElement.scrollWidth - document.documentElement.clientWidth }));
  assert.deepEqual(policy, [], `${what}: what the policy forbids`);
  assert.ok(shift <= mostShift, `${what}: things jump by ${shift}`);
  assert.ok(over <= 0, `${what}: it is ${over} pixels wider than the screen`);
}

const axe = readFileSync(resolve(import.meta.dirname, "../node_modules/axe-core/axe.min.js"), "utf8");

// accessible asks axe, which knows WCAG's rules as far as a program can.
export async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], resultTypes: ["violations"] }));
  const all = found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.any[0]?.message ?? ""}`).join("; ")}`);
  assert.deepEqual(all, [], what);
}

export const en = (n) => n.toLocaleString("en");

export const clicks = (page, ...keys) => keys.reduce((p, k) => p.then(() => page.keyboard.press(k)), Promise.resolve());

const patience = 4; // minutes

// until asks until there is something, or for so long that there is something wrong.
export async function until(ask) {
  const began = Date.now();
  const from = new Error(`it was not so within ${patience} minutes: ${ask}`); // with who waits
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() - began > patience * 60e3) throw from;
    await new Promise((done) => setTimeout(done, 200));
  }
}
