// Where the page is: path and query, of which all that a page shows can be told.

class Place {
  path = $state(location.pathname);
  query = $state.raw(new URLSearchParams(location.search));

  get(name: string): string {
    return this.query.get(name) ?? "";
  }
}

export const place = new Place();

function read() {
  place.path = location.pathname;
  place.query = new URLSearchParams(location.search);
}

// kept are the parameters that go along from page to page.
const kept = ["from", "to"];

export type Changes = Record<string, string | number | undefined>;

function search(query: URLSearchParams): string {
  const text = query.toString().replaceAll("%3A", ":").replaceAll("%2F", "/");
  return text === "" ? "" : "?" + text;
}

// href is a link to a page, of the same time.
export function href(path: string, params: Changes = {}): string {
  const query = new URLSearchParams();
  for (const name of kept) {
    if (place.get(name)) query.set(name, place.get(name));
  }
  return path + search(changed(query, params));
}

function changed(query: URLSearchParams, params: Changes): URLSearchParams {
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  return query;
}

// here is a link to this page, changed.
export function here(params: Changes): string {
  return place.path + search(changed(new URLSearchParams(place.query), params));
}

// go moves on; quietly, so that going back does not stop here.
export function go(to: string, quietly = false) {
  if (to === location.pathname + location.search) return;
  const other = new URL(to, location.href).pathname !== location.pathname;
  if (quietly) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  read();
  if (other) {
    scrollTo(0, 0);
    document.getElementById("main")?.focus({ preventScroll: true });
  }
}

// follow makes links to other pages move on without loading.
export function follow(event: MouseEvent) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const a = (event.target as Element).closest?.("a");
  const to = a?.getAttribute("href");
  if (!a || !to || !to.startsWith("/") || to.startsWith("/api/") || to.startsWith("/assets/") || a.getAttribute("target")) return;
  event.preventDefault();
  go(to);
}

addEventListener("popstate", read);

// Ranges that can be chosen, as the API has them.
export const ranges: [string, string][] = [
  ["5m", "5 minutes"],
  ["15m", "15 minutes"],
  ["1h", "hour"],
  ["6h", "6 hours"],
  ["24h", "day"],
  ["168h", "week"],
  ["720h", "30 days"],
];

export const defaultRange = "15m";

// range is the time that was asked for.
export function range(): { from: string; to: string } {
  return { from: place.get("from") || defaultRange, to: place.get("to") };
}

// follows tells whether the time goes on.
export function follows(): boolean {
  const { from, to } = range();
  return to === "" && !/^\d{4}-/.test(from);
}

export function timed(path: string, params: Changes = {}): string {
  const { from, to } = range();
  return `/api/v1/${path}${search(changed(new URLSearchParams(), { from, to, ...params }))}`;
}
