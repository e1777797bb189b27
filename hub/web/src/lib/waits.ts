import { duration } from "./format";
import type { Span, Waits } from "./types";

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

// noted is what is to be said of a call that Stile has traced: where it waited, for which limit, which attempt it was, and why it ended without an answer.
export function noted(s: Span): string[] {
  const w = s.waits;
  const c = s.call;
  const all: string[] = [];
  const time = (name: string, ns?: number) => ns && all.push(`${name} ${duration(ns)}`);
  if (w) for (const p of places) time(p.name, w[p.key]);
  if (c) {
    time("for the policy's limit", c.limit);
    time("for a place among streams", c.slot);
    time("for a window of flow control", c.window);
    time("for admission", c.admission);
    if (c.try) all.push(`attempt ${c.try + 1}`);
    if (c.end) all.push(ends[c.end] ?? c.end);
    if (c.cause) all.push(`because: ${c.cause}`);
  }
  if (s.weight && s.weight > 1) all.push(`stands for ${s.weight} calls`);
  return all;
}

const ends: Record<string, string> = { cancelled: "cancelled by who called", deadline: "its deadline passed", lost: "no answer came" };

export function told(w: Waits): string {
  return means(w).map((p) => `${p.name} ${duration(p.ns)}`).join(", ");
}
