// The shop's six programs, as processes that tell a hub what they count and trace.

import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { begin } from "./child.mjs";

const ready = /^ready (\S+)\n/;

export class Programs {
  constructor(bin, dir, hub, policy) {
    this.bin = bin;
    this.dir = dir;
    this.all = [];
    this.env = {
      PATH: process.env.PATH, STILE: "on", STILE_DIR: join(dir, "doors"), STILE_HUB: hub, OTEL_EXPORTER_OTLP_ENDPOINT: `http://${hub}`,
      SHOP_POLICY: policy, XDG_STATE_HOME: join(dir, "state"),
    };
    mkdirSync(join(dir, "faults"), { recursive: true });
  }

  // slow has each call that a program serves take so much longer.
  slow(name, delay) {
    writeFileSync(join(this.dir, "faults", name), `delay=${delay}`);
  }

  // start returns a program that listens.
  async start(name, ...args) {
    const child = begin(join(this.bin, name), ["--listen", "127.0.0.1:0", "--drain", "5s", ...args], { env: { ...this.env, SHOP_FAULTS: join(this.dir, "faults", name) }, stdio: ["ignore", "pipe", "pipe"] });
    const p = { name, child, log: "", ended: once(child, "exit") };
    this.all.push(p);
    child.stderr.on("data", (part) => (p.log += part));
    let said = "";
    await new Promise((done) => {
      child.stdout.on("data", (part) => ready.test((said += part)) && done());
      child.once("close", done);
    });
    p.address = ready.exec(said)?.[1];
    if (!p.address) throw new Error(`${name} is not ready: ${said}${p.log}`);
    return p;
  }

  // shop starts all six, two of them twice: orders that call the mailer, and orders of which a mailer hears by a queue.
  async shop() {
    const db = (name) => ["--db", join(this.dir, `${name}.db`)];
    const [catalog, inventory, pricing, called] = [await this.start("catalog", ...db("catalog")), await this.start("inventory", ...db("inventory")), await this.start("pricing"), await this.start("mailer")];
    const both = ["--inventory", inventory.address, "--pricing", pricing.address];
    const gateway = async (orders) => `http://${(await this.start("gateway", "--catalog", catalog.address, ...both, "--orders", orders.address)).address}`;
    const calls = await gateway(await this.start("orders", ...both, "--mailer", called.address));
    const queues = await gateway(await this.start("orders", ...both, "--data", join(this.dir, "q")));
    const outbox = join(this.dir, "outbox");
    return { calls, queues, outbox, mailer: await this.start("mailer", "--queue", join(this.dir, "q", "queue"), "--outbox", outbox) };
  }

  // stop ends a program as who operates it does.
  async stop(p) {
    p.child.kill("SIGTERM");
    const [code] = await p.ended;
    this.all = this.all.filter((other) => other !== p);
    if (code !== 0) throw new Error(`${p.name} ended with ${code}: ${p.log}`);
  }

  async kill() {
    for (const p of this.all) p.child.kill("SIGKILL");
    await Promise.all(this.all.map((p) => p.ended));
  }
}
