// Pictures of each page of a hub that runs: node test/shots.mjs URL [PAGES]

import { mkdirSync } from "node:fs";
import { newPage, open, settled } from "./browser.mjs";

const [url, only] = process.argv.slice(2);
mkdirSync("shots", { recursive: true });
const brief = await (await fetch(`${url}/api/v1/brief`)).json();
const id = (operation) => brief.routes.find((r) => r.operation.includes(operation))?.id;
const kept = await (await fetch(`${url}/api/v1/traces?limit=50`)).json().catch(() => ({}));
const trace = kept.traces?.toSorted((a, b) => b.spans - a.spans)[0]?.id ?? "0";
const pages = {
  map: "/map",
  chosen: "/map?at=service:gateway",
  routes: "/routes",
  route: `/route/${id("Quote") ?? brief.routes[0]?.id}`,
  traces: "/traces",
  trace: `/trace/${trace}`,
  findings: "/findings",
  budget: "/budget?slower=20ms",
  policies: "/policies",
  status: "/status",
};
const browser = await open();
for (const theme of ["light", "dark"]) {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    const page = await newPage(browser, { width, height, theme });
    for (const [name, path] of Object.entries(pages)) {
      if (only && !only.split(",").includes(name)) continue;
      await page.goto(url + path);
      await settled(page);
      await page.waitForTimeout(150);
      await page.screenshot({ path: `shots/${name}-${width}-${theme}.png`, fullPage: !name.startsWith("trace") });
    }
    for (const c of page.complaints) console.log(theme, width, c);
    await page.context().close();
  }
}
await browser.close();
