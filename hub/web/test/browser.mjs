// Debian's browser, and pages that tell what went wrong on them.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export async function open() {
  const path = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((p) => existsSync(p));
  if (!path) throw new Error("there is no Chromium here: apt-get install chromium, or set CHROMIUM");
  return chromium.launch({ executablePath: path, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

// newPage counts what the browser complains of, and how far things jump.
export async function newPage(browser, { width = 1280, height = 800, theme = "light", ...more } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, ...more });
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (m) => {
    if (m.type() === "error" || m.type() === "warning") page.complaints.push(`${m.type()}: ${m.text()}`);
  });
  page.on("pageerror", (e) => page.complaints.push(`uncaught: ${e.message}`));
  page.on("dialog", (d) => {
    page.complaints.push(`a dialog: ${d.message()}`);
    void d.dismiss();
  });
  await page.addInitScript(() => {
    window.shift = 0;
    window.long = 0;
    window.policy = [];
    new PerformanceObserver((list) => {
      for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value;
    }).observe({ type: "layout-shift", buffered: true });
    new PerformanceObserver((list) => {
      for (const e of list.getEntries()) window.long = Math.max(window.long, e.duration);
    }).observe({ type: "longtask", buffered: true });
    document.addEventListener("securitypolicyviolation", (e) => window.policy.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  return page;
}

// settled waits until the hub has answered and nothing is awaited.
export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector("main .wait[role=status]") && !document.querySelector("main [aria-busy=true]"));
}
