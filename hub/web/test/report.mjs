// What processes report to a hub, by gRPC. Fields are those of hub/hubpb/hub.proto.

import { createHash } from "node:crypto";
import { connect } from "node:http2";

function varint(n) {
  const out = [];
  for (n = BigInt(Math.round(n)); n > 127n; n >>= 7n) out.push(Number(n & 127n) | 128);
  return Buffer.from([...out, Number(n)]);
}

// message is one of fields by their number: numbers, texts, bytes, messages that are encoded, lists of them, doubles as { double }.
function message(fields) {
  const out = [];
  for (const [number, value] of Object.entries(fields)) {
    for (const v of Array.isArray(value) ? value : [value]) out.push(field(Number(number), v));
  }
  return Buffer.concat(out);
}

function field(number, v) {
  if (v === undefined) return Buffer.alloc(0);
  if (typeof v === "number" || typeof v === "boolean") return Buffer.concat([varint(number * 8), varint(Number(v))]);
  if (v.double !== undefined) {
    const eight = Buffer.alloc(8);
    eight.writeDoubleLE(v.double);
    return Buffer.concat([varint(number * 8 + 1), eight]);
  }
  const bytes = Buffer.from(v);
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

// histogram has values that are all the same.
function histogram(value, count) {
  if (!value || !count) return undefined;
  const e = Math.max(0, Math.floor(Math.log2(value)) - 5);
  return message({ 1: value < 32 ? value : 32 * e + Math.floor(value / 2 ** e), 2: count, 3: { double: value * count }, 4: value, 5: value });
}

function route(r) {
  const calls = r.calls - (r.failed ?? 0);
  const time = r.waits?.reduce((n, w) => n + w, 0) ?? r.time;
  const codes = [[0, calls], [14, r.failed ?? 0]].filter(([, n]) => n > 0).map(([code, n]) => message({ 1: code, 2: n }));
  const [client, transport, server, handler] = (r.waits ?? []).map((w) => w * r.calls);
  return message({
    1: 1, 2: "/" + r.method, 4: r.transport, 5: r.peer, 6: r.address, 7: codes, 8: histogram(time, r.calls), 9: histogram(time, r.failed), 12: histogram(r.sizes?.[0], r.calls), 13: histogram(r.sizes?.[1], r.calls),
    14: r.waits && message({ 1: r.calls, 2: client, 3: transport, 4: server, 5: handler }),
    18: r.decisions && message(r.decisions), 19: histogram(r.left, r.calls),
    17: r.carried && message({ 1: r.carried.calls, 2: r.carried.same, 3: r.carried.request, 4: r.carried.requestRepeated, 5: r.carried.response, 6: r.carried.responseRepeated }),
    21: r.wakes ?? 0, 22: r.spin ?? 0,
  });
}

function event(e, now) {
  const at = (now - e.ago) * 1e6;
  return message({ 1: e.kind, 2: e.subject, 3: e.detail, 4: e.trace, 5: e.error ?? false, 6: at, 7: at, 8: e.count ?? 1 });
}

// samples are of 200 ms each: of() is what was used in one, in processors and a second.
function samples(of, now, n = 300) {
  const end = Math.floor(now / 200) * 200;
  const all = Array.from({ length: n }, (_, i) => of(i));
  const column = (f) => Buffer.concat(all.map((s) => varint(f(s))));
  const cell = 200_000;
  const names = { 3: "user", 4: "system", 5: "gc", 6: "runQueue", 14: "hostUser", 15: "hostSystem", 16: "hostIdle", 17: "hostSteal" };
  const rates = { 7: "voluntary", 8: "involuntary", 9: "made", 10: "served" };
  return message({
    1: (end - 200 * n) * 1e6, 2: column(() => cell), 13: 4,
    ...Object.fromEntries(Object.entries(names).map(([number, name]) => [number, column((s) => (s[name] ?? 0) * cell)])),
    ...Object.fromEntries(Object.entries(rates).map(([number, name]) => [number, column((s) => (s[name] ?? 0) / 5)])),
    11: column((s) => s.openMade ?? 0), 12: column((s) => s.openServed ?? 0),
  });
}

export const policyID = (text) => createHash("sha256").update(text).digest().subarray(0, 16);

function policy(p, now) {
  return message({
    1: p.source, 2: p.from ?? "file", 3: p.version, 4: policyID(p.text), 5: (now - p.ago) * 1e6, 6: p.changed ?? false, 7: p.refused, 8: p.keep === false ? undefined : p.text, 9: p.alike ?? 1,
    10: (p.controls ?? []).map((c) => message({ 1: c.kind, 2: c.method, 3: c.target, 4: c.state, 5: c.limit ?? 0, 6: c.most ?? 0, 7: c.inFlight ?? 0, 8: c.pending ?? 0 })),
  });
}

export function identity(n) {
  return Buffer.alloc(16, n);
}

function report(p, now, sequence, hub) {
  const l = p.load;
  return message({
    1: message({ 1: identity(p.id), 2: p.service, 3: p.pid, 4: (now - 3600e3) * 1e6, 5: "/usr/bin/" + p.pid, 6: p.host, 7: p.boot ?? "boot", 8: p.listens ?? [], 9: "0.1.0", 10: "go1.26" }),
    2: sequence, 3: (now - 10_000) * 1e6, 4: now * 1e6, 5: p.routes.map(route),
    6: message({ 1: l.user, 2: l.system, 3: l.voluntary, 4: l.involuntary, 5: l.runQueue, 7: 4, 8: l.doorbells }), 7: p.dropped ?? 0, 8: hub, 9: p.events.map((e) => event(e, now)), 13: p.samples && sequence > 0 ? samples(p.samples, now) : undefined, 15: (p.policies ?? []).map((one) => policy(one, now)),
  });
}

// call makes a call of gRPC, and returns its answer.
function call(client, body) {
  return new Promise((done, fail) => {
    const stream = client.request({ ":method": "POST", ":path": "/stile.hub.v1.Agents/Report", "content-type": "application/grpc", te: "trailers" });
    const parts = [];
    let status = {};
    stream.on("response", (h) => (status = h));
    stream.on("trailers", (h) => (status = h));
    stream.on("data", (d) => parts.push(d));
    stream.on("error", fail);
    stream.on("end", () => (status["grpc-status"] === "0" ? done(Buffer.concat(parts).subarray(5)) : fail(new Error(`report: ${status["grpc-status"]} ${status["grpc-message"]}`))));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    stream.end(Buffer.concat([head, body]));
  });
}

// hello has processes say that they are there, and nothing else.
export async function hello(at, processes, now = Date.now()) {
  const client = connect(`http://${at}`);
  try {
    for (const p of processes) await call(client, report({ ...p, routes: [], events: [], policies: [] }, now, 0));
  } finally {
    client.close();
  }
}

// send has processes report a window each, their first or a later one: the hub first says who it is, which the report has to say.
export async function send(at, processes, sequence = 1, now = Date.now()) {
  const client = connect(`http://${at}`);
  try {
    for (const p of processes) {
      const said = await call(client, report({ ...p, routes: [], events: [], policies: [] }, now, 0));
      await call(client, report(p, now, sequence, said.subarray(2, 18)));
    }
  } finally {
    client.close();
  }
}
