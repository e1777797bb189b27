// What words mean, as the hub has them.

import { hub } from "./hub.svelte";
import type { Term } from "./types";

class Terms {
  all = $state.raw(new Map<string, string>());
  open = $state(false); // all definitions of the page
}

export const terms = new Terms();

export async function loadTerms() {
  if (terms.all.size > 0) return;
  try {
    const r = await fetch("/api/v1/terms", { headers: hub.token ? { Authorization: `Bearer ${hub.token}` } : {} });
    if (r.ok) terms.all = new Map(((await r.json()) as Term[]).map((t) => [t.name, t.definition]));
  } catch {
    // it is tried again with the next tick
  }
}
