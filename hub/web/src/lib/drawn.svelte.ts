// Lays maps out beside the page, which goes on meanwhile.

import address from "./layout.worker?worker&url";
import type { Drawn, Outline } from "./layout";

// What makes scripts of texts is forbidden on the page, but for this one.
const types = (window as { trustedTypes?: { createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string } } }).trustedTypes;
const policy = types?.createPolicy("stile-worker", { createScriptURL: () => address });

export class Layout {
  drawn = $state.raw<Drawn | undefined>();
  private shape = "";
  private worker: Worker | undefined;
  private busy = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  // draw lays out what differs in which nodes and edges there are. Numbers that change leave a map where it is.
  draw(o: Outline) {
    const shape = JSON.stringify([o.nodes, o.edges.map((e) => e.id)]);
    if (shape === this.shape) return;
    const first = this.shape === "";
    this.shape = shape;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(o), first ? 0 : 200);
  }

  private ask(o: Outline) {
    if (this.busy) this.end();
    if (!this.worker) {
      this.worker = start();
      this.worker.addEventListener("message", (e: MessageEvent<Drawn>) => {
        this.busy = false;
        this.drawn = e.data;
      });
    }
    this.busy = true;
    this.worker.postMessage(o);
  }

  end() {
    clearTimeout(this.timer);
    this.worker?.terminate();
    this.worker = undefined;
    this.busy = false;
  }
}

function start(): Worker {
  return new Worker(policy ? policy.createScriptURL(address) : address, { type: "module" });
}
