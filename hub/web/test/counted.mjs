// What some processes of a shop count, and what happens to them.

import { Batch, hostile, random, shop } from "./mesh.mjs";
import { hello, identity, send } from "./report.mjs";

const us = 1000;
const load = (n) => ({ user: 2.5e9 * n, system: 0.5e9 * n, voluntary: 41_000 * n, involuntary: 350 * n, runQueue: 120e6 * n, doorbells: 9000 * n });

// wave goes up and down around 1, and is far off now and then.
const wave = (i) => 1 + 0.4 * Math.sin(i / 20) + (i % 97 === 5 ? 1 : 0);

// host is node-a of 4 processors, of which others use 0.7 of a processor.
const host = (i) => ({ hostUser: 0.5 + 0.9 * wave(i), hostSystem: 0.2, hostIdle: 4 - 0.85 - 0.9 * wave(i), hostSteal: 0.15 });

const rules = (version, timeout, more = {}) => JSON.stringify({ methodConfig: [{ name: [{ service: "shop.v1.Catalog" }], timeout, ...more }], "x-stile": { version } }, null, 2) + "\n";
const old = rules("2026-11-20", "1s");
const newest = rules("2026-11-28", "0.25s", { waitForReady: true });
const path = "/etc/shop/policy.yaml";
const held = [
  { kind: "breaker", method: "/shop.v1.Catalog/Get", target: "dns:///catalog:50051", state: "open" },
  { kind: "limit", method: "/shop.v1.Catalog/Get", target: "dns:///catalog:50051", limit: 14, most: 200, inFlight: 9, pending: 2 },
];

// processes are those that report: kept is a trace that the hub keeps.
function processes(kept) {
  const [gateway, catalog, pricing, odd] = [1, 2, 3, 4];
  return [
    {
      id: gateway, service: "gateway", pid: 4242, host: "node-a", boot: "boot a", load: load(2), dropped: 3,
      samples: (i) => ({ user: 0.5 * wave(i), system: 0.1 * wave(i), gc: 0.05, runQueue: 0.3, voluntary: 8000, involuntary: 70, made: 1300 * wave(i), openMade: i % 7, ...host(i) }),
      routes: [
        { method: "shop.v1.Catalog/Get", transport: "shm", peer: identity(catalog), calls: 4000, failed: 12, sizes: [40, 2100], wakes: 5200, spin: 30e6, waits: [3 * us, 11 * us, 240 * us, 480 * us], left: 190e6, decisions: { 1: 31, 3: 7, 7: 12_345, 10: 2 }, carried: { calls: 1024, same: 870, request: 40_960, requestRepeated: 36_000, response: 2_150_400, responseRepeated: 1_800_000 } },
        { method: "shop.v1.Pricing/Quote", transport: "unix-stream", peer: identity(pricing), calls: 9000, sizes: [60, 90], spin: 18e6, waits: [350 * us, 30 * us, 5 * us, 90 * us], carried: { calls: 1500, same: 20, request: 90_000, requestRepeated: 1200, response: 135_000, responseRepeated: 1800 } },
        { method: `${hostile}/Get`, transport: "tcp", address: "10.0.0.9:443", calls: 70, time: 4e6 },
      ],
      policies: [{ source: path, version: "2026-11-20", text: old, ago: 3000e3, refused: `/etc/shop/policy.yaml:4:12: methodConfig[0].timeout: "250ms" is not how gRPC writes durations: write "0.25s"`, controls: held }, { source: "", version: "", from: "api", text: "{}\n", ago: 3000e3, alike: 2 }],
      events: [
        { kind: "breaker moved", subject: "shop.v1.Catalog/Get", detail: "closed to open: 12 of 40 calls failed", error: true, ago: 130_000, trace: kept, count: 2 },
        { kind: "limit moved", subject: "shop.v1.Pricing/Quote", detail: "20 to 14", ago: 70_000, trace: "0123456789abcdef0123456789abcdef" },
        { kind: "connection began", subject: "catalog", detail: "shm", ago: 69_000 },
      ],
    },
    { id: catalog, service: "catalog", pid: 4243, host: "node-a", boot: "boot a", load: load(1), samples: (i) => ({ user: 0.2 * wave(i), system: 0.1 * wave(i), runQueue: 0.1, voluntary: 4000, served: 1300 * wave(i), openServed: i % 5, ...host(i) }), routes: [], policies: [{ source: path, version: "2026-11-28", text: newest, ago: 400e3, changed: true, controls: [{ kind: "admission", limit: 40, most: 64, inFlight: 3 }] }], events: [{ kind: "connection began", subject: "gateway", detail: "shm", ago: 69_500 }, { kind: "connection ended", subject: "gateway", detail: "the peer is gone", error: true, ago: 5_000 }] },
    { id: pricing, service: "pricing", pid: 77, host: "node-b.eu-west.example", boot: "boot b", load: load(0.1), samples: (i) => ({ user: 0.03, served: i < 150 ? 900 : 0 }), routes: [], policies: [{ source: path, version: "2026-11-20", text: old, ago: 3000e3, from: "last good copy" }], events: [{ kind: "dead message", subject: "orders.placed", detail: "handed out 5 times, the last error: the mailbox is full", error: true, ago: 66_000, count: 31 }] },
    { id: odd, service: hostile, pid: 1, host: `${hostile}.${"x".repeat(120)}`, load: load(0), routes: [], policies: [{ source: `${hostile}.yaml`, version: hostile, text: `${hostile}\n"><img src=x onerror=alert(1)>`, ago: 60e3, refused: hostile, controls: [{ kind: "limit", method: hostile, target: hostile, limit: 1, most: 1 }] }], events: [{ kind: hostile, subject: `"><img src=x onerror=alert(1)>`, detail: "y".repeat(250), ago: 64_000 }] },
  ];
}

// seen has those processes seen again: of who has not reported for a minute it is not known whether it lags.
export const seen = (hub) => hello(hub.at.grpc, processes(""));

// report sends a hub traces, and what processes count in their first window, or a later one. It has both some 20 s later.
export async function report(hub, sequence = 1) {
  const batch = new Batch(random(10 + sequence));
  shop(batch, 60, Date.now());
  await hub.feed(batch);
  await send(hub.at.grpc, processes(batch.spans.get("gateway")[0].traceId), sequence);
}
