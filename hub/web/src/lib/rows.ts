import type { Route } from "./types";
import { node } from "./format";

export const columns = ["route", "calls", "errors", "p50", "p99", "through"] as const;
export type Column = (typeof columns)[number];

const errors = (r: Route) => (r.calls ? r.failed / r.calls : 0);

const values: Record<Exclude<Column, "route">, (r: Route) => number> = {
  calls: (r) => r.calls,
  errors,
  p50: (r) => r.duration?.p50 ?? -1,
  p99: (r) => r.duration?.p99 ?? -1,
  through: (r) => r.through,
};

export const text = (r: Route) => `${node(r.from)} → ${node(r.to)} ${r.operation}`;

export function sorted(all: Route[], by: Column, up: boolean): Route[] {
  const out = all.slice();
  if (by === "route") {
    const names = new Map(out.map((r) => [r, text(r)]));
    out.sort((a, b) => (names.get(a)! < names.get(b)! ? -1 : 1));
    if (!up) out.reverse();
    return out;
  }
  const value = values[by];
  return out.sort((a, b) => (up ? value(a) - value(b) : value(b) - value(a)));
}

// filtered are those that have each word; -word takes away.
export function filtered(all: Route[], query: string): Route[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return all;
  return all.filter((r) => {
    const t = `${text(r)} ${r.mode} ${r.transport ?? ""} ${r.failed ? "failing" : ""}`.toLowerCase();
    return words.every((w) => (w.length > 1 && w.startsWith("-") ? !t.includes(w.slice(1)) : t.includes(w)));
  });
}
