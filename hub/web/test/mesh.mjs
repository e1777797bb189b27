// A mesh of services that calls itself, as OTLP JSON, the same for the same seed.

export const hostile = '<script>alert("x")</script>';

// random is mulberry32.
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const kinds = { internal: 1, server: 2, client: 3, producer: 4, consumer: 5 };

// Batch gathers spans by service, and counts the calls of each route and those that fail.
export class Batch {
  spans = new Map();
  calls = new Map();
  traces = 0;
  count = 0;

  constructor(rand) {
    this.rand = rand;
  }

  id(bytes) {
    let out = "";
    for (let i = 0; i < bytes; i++) out += Math.floor(this.rand() * 256).toString(16).padStart(2, "0");
    return /^0+$/.test(out) ? this.id(bytes) : out;
  }

  span(service, span) {
    if (!this.spans.has(service)) this.spans.set(service, []);
    this.spans.get(service).push(span);
    this.count++;
    return span;
  }

  // called counts a call of a route.
  called(from, to, operation, failed) {
    const key = `${from} → ${to} ${operation}`;
    const now = this.calls.get(key) ?? { calls: 0, failed: 0 };
    now.calls++;
    if (failed) now.failed++;
    this.calls.set(key, now);
  }

  // parts are bodies of so many spans each, or somewhat more.
  *parts(most) {
    let some = [];
    let n = 0;
    for (const one of this.spans) {
      some.push(one);
      if ((n += one[1].length) >= most) {
        yield this.body(some);
        [some, n] = [[], 0];
      }
    }
    if (n > 0) yield this.body(some);
  }

  body(spans = this.spans) {
    const resourceSpans = [...spans].map(([service, spans]) => ({
      resource: { attributes: attributes({ "service.name": service }) },
      scopeSpans: [{ spans }],
    }));
    return JSON.stringify({ resourceSpans });
  }
}

export function attributes(of) {
  return Object.entries(of).map(([key, v]) => ({ key, value: typeof v === "number" ? { intValue: String(v) } : { stringValue: v } }));
}

const ms = 1e6;

function times(start, took) {
  return { startTimeUnixNano: String(Math.round(start)), endTimeUnixNano: String(Math.round(start + took)) };
}

// Call is a span that goes on, and makes calls one after the other or at once.
class Call {
  constructor(batch, trace, service, span, now) {
    Object.assign(this, { batch, trace, service, span, now });
  }

  work(took) {
    this.now += took * (0.6 + 0.8 * this.batch.rand()) * ms;
    return this;
  }

  // call makes both spans of a call; inside does what the other service does.
  call(to, operation, { way = {}, fails = 0, sizes, slow = 0 } = {}, inside = () => {}) {
    const b = this.batch;
    const failed = b.rand() < fails;
    const gap = way["network.transport"] === "tcp" ? 0.4 : 0.03;
    const cut = operation.lastIndexOf("/");
    const [service, method] = [operation.slice(0, cut), operation.slice(cut + 1)];
    const rpc = { "rpc.system": "grpc", "rpc.service": service, "rpc.method": method, ...(failed ? { "rpc.grpc.status_code": 14 } : {}), ...(sizes ? { "rpc.request.size": sizes[0], "rpc.response.size": sizes[1] } : {}) };
    const client = { traceId: this.trace, spanId: b.id(8), parentSpanId: this.span, kind: kinds.client, name: operation, attributes: attributes({ ...rpc, ...way }) };
    const server = { traceId: this.trace, spanId: b.id(8), parentSpanId: client.spanId, kind: kinds.server, name: operation, attributes: attributes(rpc) };
    const begin = this.now;
    const callee = new Call(b, this.trace, to, server.spanId, begin + gap * ms);
    if (slow && b.rand() < 0.04) callee.work(slow);
    inside(callee);
    if (callee.now === begin + gap * ms) callee.work(0.2);
    Object.assign(server, times(begin + gap * ms, callee.now - begin - gap * ms));
    this.now = callee.now + gap * ms;
    Object.assign(client, times(begin, this.now - begin));
    if (failed) {
      client.status = { code: 2 };
      server.status = { code: 2 };
    }
    b.span(this.service, client);
    b.span(to, server);
    b.called(this.service, to, operation, failed);
    return this;
  }

  // ask calls what has no spans of its own.
  ask(peer, operation, took, more = {}) {
    const b = this.batch;
    const begin = this.now;
    this.work(took);
    b.span(this.service, { traceId: this.trace, spanId: b.id(8), parentSpanId: this.span, kind: kinds.client, name: operation, attributes: attributes(more), ...times(begin, this.now - begin) });
    b.called(this.service, `external ${peer}`, operation, false);
    return this;
  }

  // publish sends a message that another service handles later.
  publish(topic, to, inside) {
    const b = this.batch;
    const producer = b.span(this.service, { traceId: this.trace, spanId: b.id(8), parentSpanId: this.span, kind: kinds.producer, name: `publish ${topic}`, attributes: attributes({ "messaging.system": "kafka", "messaging.destination.name": topic, "messaging.message.body.size": 700 }), ...times(this.now, 0.3 * ms) });
    this.now += 0.3 * ms;
    const consumer = { traceId: this.trace, spanId: b.id(8), parentSpanId: producer.spanId, kind: kinds.consumer, name: `process ${topic}`, attributes: attributes({ "messaging.system": "kafka", "messaging.destination.name": topic }) };
    const begin = this.now + 4 * ms;
    const handler = new Call(b, this.trace, to, consumer.spanId, begin);
    inside(handler);
    b.span(to, { ...consumer, ...times(begin, handler.now - begin) });
    return this;
  }
}

// request is a trace from its root on.
function request(batch, service, name, start, inside) {
  const span = { traceId: batch.id(16), spanId: batch.id(8), kind: kinds.server, name, attributes: attributes({ "http.request.method": name.split(" ")[0], "http.route": name.split(" ")[1] }) };
  const root = new Call(batch, span.traceId, service, span.spanId, start);
  root.work(0.4);
  inside(root);
  root.work(0.3);
  batch.span(service, { ...span, ...times(start, root.now - start) });
  batch.traces++;
}

const unix = { "network.transport": "unix" };
const loopback = { "network.transport": "tcp", "server.address": "127.0.0.1", "server.port": 50051 };
const remote = { "network.transport": "tcp", "server.address": "10.0.3.17", "server.port": 50051 };

// shop adds traces of a shop that has what the dashboard shows: failures, N+1, messages, a chain, a slow tail.
export function shop(batch, traces, now) {
  for (let i = 0; i < traces; i++) {
    const start = (now - 1000 - batch.rand() * 900) * ms;
    const pick = batch.rand();
    if (pick < 0.55) request(batch, "gateway", "GET /products/{id}", start, product);
    else if (pick < 0.75) request(batch, "gateway", "GET /search", start, search);
    else if (pick < 0.9) request(batch, "gateway", "POST /orders", start, order);
    else request(batch, "gateway", "GET /account", start, account);
  }
}

function product(g) {
  g.call("users", "shop.v1.Users/Session", { way: loopback }, (u) => u.ask("redis", "GET", 0.15, { "db.system": "redis", "db.operation": "GET" }));
  g.call("catalog", "shop.v1.Catalog/Get", { way: unix, sizes: [40, 2100], slow: 60 }, (c) => c.work(0.5).ask("postgresql catalog", "SELECT", 1.2, { "db.system": "postgresql", "db.name": "catalog", "db.operation": "SELECT" }));
  for (let n = 0; n < 8; n++) g.call("pricing", "shop.v1.Pricing/Quote", { way: unix, fails: 0.012, sizes: [60, 90] }, (p) => p.work(0.7));
  g.call(hostile, `${hostile}/Get`, { way: remote }, (h) => h.work(0.3));
}

function search(g) {
  g.call("search", "shop.v1.Search/Query", { way: remote, fails: 0.03, sizes: [120, 30000], slow: 200 }, (s) => {
    s.work(6);
    s.call("ranking", "shop.v1.Ranking/Score", { way: remote }, (r) => r.work(4).call("features", "shop.v1.Features/Load", { way: remote }, (f) => f.work(1).call("vectors", "shop.v1.Vectors/Near", { way: remote }, (v) => v.work(2))));
  });
}

function order(g) {
  g.call("orders", "shop.v1.Orders/Place", { way: loopback, sizes: [900, 120] }, (o) => {
    o.call("inventory", "shop.v1.Inventory/Reserve", { way: unix, fails: 0.09 }, (i) => i.work(1.5));
    o.call("payments", "shop.v1.Payments/Charge", { way: remote, slow: 400 }, (p) => p.ask("bank", "Charge", 25, { "peer.service": "bank" }));
    o.ask("postgresql orders", "INSERT orders", 2, { "db.system": "postgresql", "db.name": "orders", "db.operation": "INSERT" });
    o.publish("orders.placed", "mailer", (m) => m.work(12));
  });
}

function account(g) {
  g.call("users", "shop.v1.Users/Get", { way: loopback, sizes: [30, 800] }, (u) => u.work(0.8));
  g.call("orders", "shop.v1.Orders/List", { way: loopback, sizes: [30, 9000] }, (o) => o.ask("postgresql orders", "SELECT orders", 3, { "db.system": "postgresql", "db.name": "orders", "db.operation": "SELECT" }));
}

// many adds one trace for each of so many routes between so many services, which call three others, and those that all call.
export function many(batch, services, routes, now) {
  const name = (n) => `team-${String(n % 37).padStart(2, "0")}.service-${String(n).padStart(4, "0")}`;
  for (let i = 0; i < routes; i++) {
    const from = i % services;
    const to = i % 7 === 0 ? services - 1 - (i % 5) : (3 * from + 1 + Math.floor(i / services) % 3) % services;
    request(batch, name(from), "GET /", (now - 2000) * ms, (c) => c.call(name(to), `api.v${i % 3}.Service${i % 11}/Method${i}`, { fails: 0.02 }, (t) => t.work(1)));
  }
}

// odd adds what no exporter should send, and some do: a name for each way to be strange, spans with the same ID, a trace in two parts.
export function odd(batch, now) {
  for (const name of ["", " ", "a\nb", "\u202egnp.exe", "x".repeat(300), "__proto__", "constructor", "a:b,c", "👩‍👩‍👧", '"><img src=x onerror=alert(1)>', "{{7*7}}${7*7}"]) {
    request(batch, `odd ${name}`, "GET /", (now - 2000) * ms, (c) => c.call(name, "odd.Odd/Get"));
  }
  for (let i = 0; i < 2; i++) {
    const [traceId, spanId] = ["00000000000000000000000000000ddd", "00000000000000dd"];
    const span = { traceId, spanId, kind: kinds.server, name: "twice", ...times((now - 2000) * ms, ms * (i + 1)) };
    batch.span("twin", span);
    batch.span("twin", { ...span, parentSpanId: spanId, spanId: "00000000000000de", name: "below" });
    batch.span("twin", { ...span, parentSpanId: spanId, spanId: "00000000000000de", name: "below, too" });
  }
}

// dense adds a trace for each pair of services, of which each calls all that come after it.
export function dense(batch, services, now) {
  const name = (n) => `all-${String(n).padStart(3, "0")}`;
  for (let from = 0; from < services; from++) {
    for (let to = from + 1; to < services; to++) request(batch, name(from), "GET /", (now - 2000) * ms, (c) => c.call(name(to), "all.All/Get"));
  }
}
