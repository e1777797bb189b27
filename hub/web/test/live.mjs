// A hub with a shop that is called, to look at: node test/live.mjs DIR [API] [OTLP]

import { Hub } from "./hub.mjs";
import { Batch, random, shop } from "./mesh.mjs";

const hub = new Hub("../../bin/stile", process.argv[2]);
hub.at = { http: process.argv[3] ?? "127.0.0.1:4319", otlp: process.argv[4] ?? "127.0.0.1:4318" };
await hub.start();
console.log(hub.url);
const rand = random(Date.now());
let n = 0;
const timer = setInterval(async () => {
  const batch = new Batch(rand);
  shop(batch, Math.round(30 + 15 * Math.sin(n++ / 20) + 10 * rand()), Date.now());
  await hub.feed(batch).catch(() => {});
}, 1000);
process.once("SIGTERM", async () => {
  clearInterval(timer);
  await hub.stop();
});
process.once("SIGINT", async () => {
  clearInterval(timer);
  await hub.stop();
});
