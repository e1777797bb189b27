// What is asked of the hub, again and again while the page is live.

import { untrack } from "svelte";
import { follows } from "./place.svelte";

const tokenName = "stile-token";

class Hub {
  token = $state(sessionStorage.getItem(tokenName) ?? "");
  wantsToken = $state(false);
  refused = $state(false); // the token that was given
  lost = $state(0); // since when it does not answer
  paused = $state(false);
  tick = $state(0); // goes up when all is to be asked again
  heard = $state(0); // when it last answered

  use(token: string) {
    sessionStorage.setItem(tokenName, token);
    this.token = token;
    this.wantsToken = false;
    this.tick++;
  }
}

export const hub = new Hub();

// Unreachable: there was no answer, or none of a hub.
class Unreachable extends Error {}

export class Refusal extends Error {
  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message);
  }
}

// operates is what a request has to have that acts, or reads messages.
const operates = { "X-Stile-Operate": "dashboard" };

async function fetchJSON<T>(url: string, signal: AbortSignal, more: RequestInit = {}): Promise<T> {
  let response: Response;
  let text: string;
  const token = hub.token;
  try {
    response = await fetch(url, { ...more, signal, headers: { ...(more.headers as Record<string, string>), ...(token ? { Authorization: `Bearer ${token}` } : {}) }, cache: "no-store" });
    text = await response.text();
  } catch (e) {
    if (signal.aborted) throw e;
    throw new Unreachable("the hub does not answer");
  }
  if (response.status === 401) {
    if (token === hub.token) {
      hub.refused = token !== "";
      hub.wantsToken = true;
    }
    throw new Refusal("this hub wants a token", 401);
  }
  if (!response.ok) {
    let message = text.trim() || response.statusText;
    try {
      message = (JSON.parse(text) as { error: string }).error;
    } catch {
      // it was told in plain text
    }
    throw new Refusal(message, response.status);
  }
  hub.heard = Date.now();
  hub.lost = 0;
  return JSON.parse(text) as T;
}

// act has the hub do something.
export function act<T>(path: string, body: unknown): Promise<T> {
  return fetchJSON<T>(`/api/v1/${path}`, AbortSignal.timeout(120_000), { method: "POST", body: JSON.stringify(body), headers: { ...operates, "Content-Type": "application/json" } });
}

const least = 5_000; // ms from an answer to the next question

export class Asked<T> {
  data = $state.raw<T | undefined>();
  error = $state.raw<Refusal | undefined>();
  url = $state("");
  loading = $state(false);

  // stale: what is shown answers another question than the one that is asked now.
  stale = $state(false);
}

export interface Options {
  once?: boolean; // it does not change with time
  least?: number; // ms from an answer to the next question
  operates?: boolean; // it is for who may act
}

// ask keeps asking while the component is there. An empty URL asks nothing.
export function ask<T>(url: () => string, options: Options = {}): Asked<T> {
  const asked = new Asked<T>();
  let answered = -1;
  let earliest = 0;
  let wait = 1000;
  let again: ReturnType<typeof setTimeout> | undefined;
  let last = "";
  let flight: AbortController | undefined;
  let tried = $state(0);

  async function run(to: string, tick: number) {
    flight?.abort();
    const mine = (flight = new AbortController());
    const began = performance.now();
    asked.loading = true;
    try {
      const data = await fetchJSON<T>(to, mine.signal, options.operates ? { headers: operates } : {});
      if (mine.signal.aborted) return;
      asked.data = data;
      asked.error = undefined;
      asked.url = to;
      asked.stale = false;
      answered = tick;
      wait = 1000;
      const took = performance.now() - began;
      earliest = performance.now() + Math.max(options.least ?? least, 4 * took);
    } catch (e) {
      if (mine.signal.aborted) return;
      answered = -1;
      if (e instanceof Refusal && e.code === 401) return; // a token brings the next tick
      if (e instanceof Refusal && e.code !== 429 && e.code < 500) {
        asked.error = e;
        asked.data = undefined;
        asked.stale = false;
        answered = tick;
        return;
      }
      if (e instanceof Refusal) asked.error = e;
      else if (hub.lost === 0) hub.lost = Date.now();
      again = setTimeout(() => tried++, wait);
      wait = Math.min(wait * 2, 5000);
    } finally {
      if (flight === mine) {
        flight = undefined;
        asked.loading = false;
      }
    }
  }

  $effect(() => {
    const to = url();
    const tick = hub.tick;
    void tried;
    if (hub.wantsToken) return;
    untrack(() => {
      if (to === "") {
        flight?.abort();
        clearTimeout(again);
        asked.data = undefined;
        asked.error = undefined;
        last = "";
        return;
      }
      const changed = to !== last;
      if (!changed && (flight || answered === tick || (answered >= 0 && (options.once || (performance.now() < earliest && !forced))))) return;
      clearTimeout(again);
      if (changed) {
        asked.stale = true;
        asked.error = undefined;
      }
      last = to;
      void run(to, tick);
    });
  });
  $effect(() => () => {
    flight?.abort();
    clearTimeout(again);
  });
  return asked;
}

let forced = false;

// refresh asks all again, now.
export function refresh() {
  forced = true;
  hub.tick++;
  queueMicrotask(() => setTimeout(() => (forced = false)));
}

// keepLive asks again as time goes on.
export function keepLive(every = 5000): () => void {
  const timer = setInterval(() => {
    if (!hub.paused && !document.hidden && follows()) hub.tick++;
  }, every);
  const seen = () => {
    if (!document.hidden && !hub.paused && follows()) hub.tick++;
  };
  document.addEventListener("visibilitychange", seen);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}
