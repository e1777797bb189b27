import type { Span, Trace } from "./types";

export interface Row {
  span: Span;
  depth: number;
  children: number; // below it, in all
  parent: number; // row, -1: none
  critical: number; // ns
}

// tree is a trace's spans as a list, parents before children, the earliest first.
export function tree(t: Trace): Row[] {
  const byID = new Map(t.spans.map((s) => [s.id, s]));
  const below = new Map<string, Span[]>();
  const roots: Span[] = [];
  for (const s of t.spans) {
    if (s.parent && s.parent !== s.id && byID.has(s.parent)) below.set(s.parent, [...(below.get(s.parent) ?? []), s]);
    else roots.push(s);
  }
  const rows: Row[] = [];
  const seen = new Set<Span>();
  const add = (from: Span[]) => {
    const steps = from.sort(latest).map((span) => ({ span, depth: 0, parent: -1 }));
    while (steps.length > 0) {
      const { span, depth, parent } = steps.pop()!;
      if (seen.has(span)) continue;
      seen.add(span);
      const at = rows.length;
      rows.push({ span, depth, parent, children: 0, critical: (span.critical ?? []).reduce((n, [a, b]) => n + b - a, 0) });
      for (const c of (below.get(span.id) ?? []).sort(latest)) steps.push({ span: c, depth: depth + 1, parent: at });
    }
  };
  add(roots);
  add(t.spans.filter((s) => !seen.has(s))); // whose parents go in a circle
  for (let i = rows.length - 1; i >= 0; i--) {
    const p = rows[i]!.parent;
    if (p >= 0) rows[p]!.children += rows[i]!.children + 1;
  }
  return rows;
}

const latest = (a: Span, b: Span) => b.start - a.start || (a.id < b.id ? 1 : -1);

// open are the rows that nothing above hides.
export function open(rows: Row[], closed: ReadonlySet<number>): number[] {
  const out: number[] = [];
  for (let i = 0; i < rows.length; i++) {
    out.push(i);
    if (closed.has(i)) i += rows[i]!.children;
  }
  return out;
}
