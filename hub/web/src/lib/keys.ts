// Keys that work on every page. Where something is typed, none does.

import { go, href } from "./place.svelte";

export const pages: [key: string, path: string, name: string][] = [
  ["m", "/map", "Map"],
  ["r", "/routes", "Routes"],
  ["t", "/traces", "Traces"],
  ["f", "/findings", "Findings"],
  ["b", "/budget", "Budget"],
  ["q", "/queues", "Queues"],
  ["p", "/processes", "Processes"],
  ["o", "/policies", "Policies"],
  ["e", "/events", "Events"],
  ["s", "/status", "Status"],
];

export interface Actions {
  help(): void;
  pause(): void;
  refresh(): void;
  theme(): void;
  define(): void;
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");
}

export function keyboard(actions: Actions): (event: KeyboardEvent) => void {
  let going = 0;
  return (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) {
      if (event.key === "Escape") (event.target as HTMLElement).blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (going && performance.now() - going < 2000) {
      going = 0;
      const page = pages.find(([key]) => key === event.key);
      if (page) {
        event.preventDefault();
        go(href(page[1]));
      }
      return;
    }
    const act: Record<string, () => void> = {
      "g": () => (going = performance.now()),
      "?": actions.help,
      "/": search,
      "p": actions.pause,
      "r": actions.refresh,
      "t": actions.theme,
      "d": actions.define,
    };
    const f = act[event.key];
    if (f) {
      event.preventDefault();
      f();
    }
  };
}

function search() {
  const field = document.getElementById("search") as HTMLInputElement | null;
  if (field) {
    field.focus();
    field.select();
  } else {
    go(href("/routes"));
    requestAnimationFrame(() => document.getElementById("search")?.focus());
  }
}
