// The map as a graph: the busiest nodes, what lies between them, and where all of it is drawn.

import type { Outline, Spot } from "./layout";
import { node as nameOf, rate, share } from "./format";
import type { Brief, Named, Route } from "./types";

export type Place = "local" | "remote" | "";

export interface Edge {
  id: string;
  from: string;
  to: string;
  async: boolean;
  calls: number;
  failed: number;
  through: number;
  place: Place;
  transports: string[];
  routes: Route[];
  marks: string[]; // kinds of findings
}

export interface Vertex extends Named {
  id: string;
  calls: number; // in and out
  critical: number;
  spans: number;
}

export interface Graph {
  vertices: Vertex[];
  edges: Edge[];
}

export const idOf = (n: Named) => `${n.kind}:${n.name}`;

export function placeOf(transport: string | undefined): Place {
  switch (transport) {
    case undefined:
    case "":
      return "";
    case "tcp":
    case "broker":
      return "remote";
  }
  return "local";
}

export function graphOf(m: Brief): Graph {
  const vertices = new Map<string, Vertex>();
  const vertex = (n: Named) => {
    let v = vertices.get(idOf(n));
    if (!v) vertices.set(idOf(n), (v = { id: idOf(n), kind: n.kind, name: n.name, calls: 0, critical: 0, spans: 0 }));
    return v;
  };
  for (const n of m.nodes) Object.assign(vertex(n), { critical: n.critical, spans: n.spans });
  const edges = new Map<string, Edge>();
  const byEnds = new Map<string, Edge[]>();
  for (const r of m.routes) {
    const async = r.mode === "async";
    const place = placeOf(r.transport);
    const ends = JSON.stringify([idOf(r.from), idOf(r.to)]);
    const id = JSON.stringify([idOf(r.from), idOf(r.to), async, place]);
    let e = edges.get(id);
    if (!e) {
      e = { id, from: idOf(r.from), to: idOf(r.to), async, calls: 0, failed: 0, through: 0, place, transports: [], routes: [], marks: [] };
      edges.set(id, e);
      byEnds.set(ends, [...(byEnds.get(ends) ?? []), e]);
    }
    e.calls += r.calls;
    e.failed += r.failed;
    e.through += r.through;
    if (r.transport && !e.transports.includes(r.transport)) e.transports.push(r.transport);
    e.routes.push(r);
    vertex(r.from).calls += r.calls;
    vertex(r.to).calls += r.calls;
  }
  for (const f of m.findings) {
    for (const e of byEnds.get(JSON.stringify([idOf(f.from), idOf(f.to)])) ?? []) {
      if (!e.marks.includes(f.kind) && e.routes.some((r) => r.operation === f.operation)) e.marks.push(f.kind);
    }
  }
  return { vertices: [...vertices.values()].sort((a, b) => b.calls - a.calls || (a.id < b.id ? -1 : 1)), edges: [...edges.values()] };
}

// busiest are the nodes that match and their neighbours, or, if nothing is looked for, the busiest of all; and what lies between them.
export function busiest(g: Graph, most: number, sought: string, focus: string): Graph {
  const shown = new Set<string>();
  const add = (id: string) => shown.size < most && shown.add(id);
  const near = (to: Set<string>) => {
    for (const e of [...g.edges].sort((a, b) => b.calls - a.calls)) {
      if (to.has(e.from)) add(e.to);
      if (to.has(e.to)) add(e.from);
    }
  };
  const lower = sought.toLowerCase();
  if (focus) shown.add(focus);
  if (sought) {
    for (const v of g.vertices) if (matches(v, lower)) add(v.id);
    near(new Set(shown));
  } else {
    if (focus) near(new Set(shown));
    for (const v of g.vertices) add(v.id);
  }
  return { vertices: g.vertices.filter((v) => shown.has(v.id)), edges: g.edges.filter((e) => shown.has(e.from) && shown.has(e.to)) };
}

// thinned leaves the busiest edges, and of each node its busiest; what fails before what does not. Without, a mesh in which all call all is a black square.
export function thinned(g: Graph, most: number): Graph {
  if (g.edges.length <= most) return g;
  const kept = new Set<Edge>();
  const reached = new Set<string>();
  const byCalls = [...g.edges].sort((a, b) => b.calls - a.calls || b.failed - a.failed || (a.id < b.id ? -1 : 1));
  for (const e of byCalls) {
    if (reached.has(e.from) && reached.has(e.to)) continue;
    reached.add(e.from).add(e.to);
    kept.add(e);
  }
  for (const e of byCalls) if (kept.size < most) kept.add(e);
  return { vertices: g.vertices, edges: g.edges.filter((e) => kept.has(e)) };
}

export function matches(v: Named, lower: string): boolean {
  return nameOf(v).toLowerCase().includes(lower);
}

// mostLabels is how many edges have labels at most.
export const mostLabels = 160;

const f = (v: number) => v.toFixed(1);

// curve goes through points, level where it leaves and reaches them.
export function curve(points: Spot[], short: number): string {
  const p = points.slice();
  const last = p[p.length - 1]!;
  const before = p[p.length - 2]!;
  const level = forward(points);
  const d = level ? 1 : Math.hypot(last.x - before.x, last.y - before.y) || 1;
  p[p.length - 1] = level ? { x: last.x - short, y: last.y } : { x: last.x - ((last.x - before.x) / d) * short, y: last.y - ((last.y - before.y) / d) * short };
  let path = `M${f(p[0]!.x)} ${f(p[0]!.y)}`;
  if (!level) return path + rounded(p);
  for (let i = 1; i < p.length; i++) {
    const [q, r] = [p[i - 1]!, p[i]!];
    const middle = (q.x + r.x) / 2;
    path += `C${f(middle)} ${f(q.y)} ${f(middle)} ${f(r.y)} ${f(r.x)} ${f(r.y)}`;
  }
  return path;
}

// rounded goes on from the first point to the last, past those between.
function rounded(p: Spot[]): string {
  let path = p.length === 2 ? `L${f(p[1]!.x)} ${f(p[1]!.y)}` : "";
  for (let i = 1; i < p.length - 1; i++) {
    const [q, next] = [p[i]!, p[i + 1]!];
    const end = i === p.length - 2 ? next : { x: (q.x + next.x) / 2, y: (q.y + next.y) / 2 };
    path += `Q${f(q.x)} ${f(q.y)} ${f(end.x)} ${f(end.y)}`;
  }
  return path;
}

// forward tells whether points go from left to right.
function forward(points: Spot[]): boolean {
  return points.every((p, i) => i === 0 || p.x > points[i - 1]!.x);
}

// head is an arrow's, of a length.
export function head(points: Spot[], long: number, half: number): string {
  const tip = points[points.length - 1]!;
  const before = forward(points) ? { x: tip.x - 1, y: tip.y } : points[points.length - 2]!;
  const d = Math.hypot(tip.x - before.x, tip.y - before.y) || 1;
  const u = { x: (tip.x - before.x) / d, y: (tip.y - before.y) / d };
  const back = { x: tip.x - u.x * long, y: tip.y - u.y * long };
  return `M${f(tip.x)} ${f(tip.y)}L${f(back.x - u.y * half)} ${f(back.y + u.x * half)}L${f(back.x + u.y * half)} ${f(back.y - u.x * half)}Z`;
}

export type Health = "well" | "some" | "many";

export function health(calls: number, failed: number): Health {
  if (failed === 0) return "well";
  return failed < 0.05 * calls ? "some" : "many";
}

// label is what is written at an edge.
export function label(e: Edge, long: number): string {
  const failing = e.failed ? ` · ${share(e.failed / e.calls)}` : "";
  return rate(e.calls, long) + failing + (health(e.calls, e.failed) === "many" ? " ▲" : "");
}

// outline is what a layout depends on.
export function outline(g: Graph, long: number): Outline {
  const labelled = g.edges.length <= mostLabels;
  return {
    nodes: g.vertices.map((v) => v.id).sort(),
    edges: g.edges.map((e) => ({ id: e.id, from: e.from, to: e.to, label: labelled ? labelLong(e, long) : 0, lines: e.marks.length ? 2 : 1 })).sort((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

// labelLong is how long a label is, in pixels.
export function labelLong(e: Edge, long: number): number {
  return 6.1 * label(e, long).length + 4;
}
