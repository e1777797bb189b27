// What processes use, over time.

import type { Loads, Window } from "./types";

// LoadPoint is a step of a load.
export interface LoadPoint extends Window {
  i: number;
}

export function pointsOf(l: Loads): LoadPoint[] {
  const from = Date.parse(l.window.from);
  const at = (i: number) => new Date(from + (i * l.step) / 1e6).toISOString();
  return Array.from({ length: l.steps }, (_, i) => ({ i, from: at(i), to: at(i + 1) }));
}

// added is the sum of two columns, where anything is known.
export function added(a: (number | null)[], b: (number | null)[]): (number | null)[] {
  return a.map((v, i) => (v === null && b[i] == null ? null : (v ?? 0) + (b[i] ?? 0)));
}
