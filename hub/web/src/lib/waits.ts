import { duration } from "./format";
import type { Waits } from "./types";

export interface Part {
  name: string;
  ns: number;
  colour: string;
  term?: string;
}

// places are where calls wait, in the order in which they come there.
export const places: { name: string; key: Exclude<keyof Waits, "calls">; colour: string }[] = [
  { name: "client queue", key: "clientQueue", colour: "c2" },
  { name: "transport", key: "transport", colour: "c3" },
  { name: "server queue", key: "serverQueue", colour: "c4" },
  { name: "handler", key: "handler", colour: "c1" },
];

// means are those of a call.
export function means(w: Waits): Part[] {
  return places.map((p) => ({ name: p.name, ns: w[p.key] / w.calls, colour: p.colour, term: p.name }));
}

export function told(w: Waits): string {
  return means(w).map((p) => `${p.name} ${duration(p.ns)}`).join(", ");
}
