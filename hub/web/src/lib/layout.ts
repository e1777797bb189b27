// Where the map's nodes and edges are drawn.

import { graphlib, layout } from "@dagrejs/dagre";

// Outline is what a layout depends on, in an order of its own.
export interface Outline {
  nodes: string[];
  edges: { id: string; from: string; to: string; label: number; lines: number }[]; // label: its length in pixels; 0: it has none
}

export interface Spot {
  x: number;
  y: number;
}

export interface Drawn {
  width: number;
  height: number;
  nodes: Map<string, Spot>; // their middle
  edges: Map<string, { points: Spot[]; label: Spot }>;
}

export const boxWidth = 150;
export const boxHeight = 38;

// layOut depends on which nodes and edges there are, and on nothing else, so that a map stays where it is while its numbers change.
export function layOut(g: Outline): Drawn {
  const d = new graphlib.Graph({ multigraph: true });
  d.setGraph({ rankdir: "LR", nodesep: 14, edgesep: 10, ranksep: 34, marginx: 12, marginy: 12, ranker: g.nodes.length > 100 ? "tight-tree" : "network-simplex" });
  d.setDefaultEdgeLabel(() => ({}));
  for (const id of g.nodes) d.setNode(id, { width: boxWidth, height: boxHeight });
  for (const e of g.edges) {
    if (e.from === e.to) continue;
    d.setEdge(e.from, e.to, e.label ? { width: e.label + 22, height: e.lines > 1 ? 28 : 15, labelpos: "c" } : {}, e.id);
  }
  layout(d);
  const size = d.graph() as { width?: number; height?: number };
  const out: Drawn = { width: size.width ?? 0, height: size.height ?? 0, nodes: new Map(), edges: new Map() };
  for (const id of d.nodes()) {
    const n = d.node(id) as unknown as Spot;
    out.nodes.set(id, { x: n.x, y: n.y });
  }
  for (const e of d.edges()) {
    const l = d.edge(e) as unknown as { points: Spot[]; x?: number; y?: number };
    const middle = l.points[Math.floor(l.points.length / 2)]!;
    out.edges.set(e.name!, { points: l.points, label: { x: l.x ?? middle.x, y: l.y ?? middle.y } });
  }
  for (const e of g.edges) if (e.from === e.to) out.edges.set(e.id, loop(out.nodes.get(e.from)!));
  ports(g, out);
  return out;
}

// loop is the way of an edge from a node to itself.
function loop(n: Spot): { points: Spot[]; label: Spot } {
  const [x, y] = [n.x + boxWidth / 2 - 48, n.y - boxHeight / 2];
  return { points: [{ x, y }, { x, y: y - 22 }, { x: x + 30, y: y - 22 }, { x: x + 30, y }], label: { x: x - 22, y: y - 8 } };
}

// ports has edges that go to the right leave their boxes at the right and reach them at the left, in the order of where they come from or go to.
function ports(g: Outline, d: Drawn) {
  const sides = new Map<string, { points: Spot[]; at: number; towards: number }[]>();
  for (const e of g.edges) {
    if (e.from === e.to) continue;
    const points = d.edges.get(e.id)?.points;
    const [from, to] = [d.nodes.get(e.from), d.nodes.get(e.to)];
    if (!points || !from || !to || points.length < 2 || from.x + boxWidth > to.x) continue;
    points[0] = { x: from.x + boxWidth / 2, y: from.y };
    points[points.length - 1] = { x: to.x - boxWidth / 2, y: to.y };
    for (const [side, at, towards] of [[`${e.from} out`, 0, 1], [`${e.to} in`, points.length - 1, points.length - 2]] as const) {
      if (!sides.has(side)) sides.set(side, []);
      sides.get(side)!.push({ points, at, towards });
    }
  }
  for (const all of sides.values()) {
    all.sort((a, b) => a.points[a.towards]!.y - b.points[b.towards]!.y);
    const room = Math.min(boxHeight - 8, 9 * (all.length - 1));
    all.forEach((one, i) => (one.points[one.at]!.y += all.length > 1 ? room * (i / (all.length - 1) - 0.5) : 0));
  }
}

