// A hub with a folder of its own, which can be ended and begun again where it was.

import { once } from "node:events";
import { begin } from "./child.mjs";

export class Hub {
  constructor(program, dir) {
    this.program = program;
    this.dir = dir;
    this.at = { http: "127.0.0.1:0", otlp: "127.0.0.1:0" };
    this.more = [];
  }

  async start() {
    const args = ["hub", "--dir", this.dir, "--otlp-grpc", "off", "--otlp-http", this.at.otlp, "--http", this.at.http, "--json", ...this.more];
    this.child = begin(this.program, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.ended = once(this.child, "exit");
    let text = "";
    for await (const part of this.child.stdout) {
      text += part;
      try {
        this.urls = JSON.parse(text);
        break;
      } catch {
        // not all of it yet
      }
    }
    if (!this.urls) throw new Error(`the hub has not begun: ${text}`);
    this.url = this.urls.API;
    this.at = { http: new URL(this.urls.API).host, otlp: new URL(this.urls["OTLP/HTTP"]).host, grpc: this.urls["OTLP/gRPC"]?.replace(/^\w+:\/\//, "") ?? "off" };
  }

  // stop ends it, so that it keeps all that it has.
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    await this.ended;
    this.urls = undefined;
  }

  async feed(batch, headers = {}) {
    const r = await fetch(`http://${this.at.otlp}/v1/traces`, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: batch.body() });
    if (!r.ok) throw new Error(`feed: ${r.status} ${await r.text()}`);
  }

  async ask(path, headers = {}) {
    const r = await fetch(`http://${this.at.http}/api/v1/${path}`, { headers });
    if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`);
    return r.json();
  }
}
