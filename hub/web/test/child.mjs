// Processes that end with this one, however it ends, unless it is killed.

import { spawn } from "node:child_process";

const all = new Set();

process.once("exit", () => all.forEach((child) => child.kill("SIGKILL")));

export function begin(program, args, options) {
  const child = spawn(program, args, options);
  all.add(child);
  child.once("exit", () => all.delete(child));
  return child;
}

const longest = 20; // minutes; nothing is expected to take so long

// watchdog has a signal end this process and all that it began, and waits that would never end.
export function watchdog() {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  setTimeout(() => {
    console.error(`not over after ${longest} minutes`);
    process.exit(1);
  }, longest * 60e3).unref();
}
