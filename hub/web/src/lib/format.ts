// Numbers for people: three digits or so, with a unit, and a space that does not break.

const space = "\u00a0";

function digits(v: number): string {
  const a = Math.abs(v);
  return v.toFixed(a >= 99.95 ? 0 : a >= 9.995 ? 1 : 2);
}

export function duration(ns: number | undefined): string {
  if (ns === undefined || !Number.isFinite(ns)) return "–";
  if (ns === 0) return "0";
  const a = Math.abs(ns);
  if (a < 999.5) return `${Math.round(ns)}${space}ns`;
  if (a < 999.5e3) return `${digits(ns / 1e3)}${space}µs`;
  if (a < 999.5e6) return `${digits(ns / 1e6)}${space}ms`;
  if (a < 119.5e9) return `${digits(ns / 1e9)}${space}s`;
  if (a < 7170e9) return `${digits(ns / 60e9)}${space}min`;
  if (a < 172e12) return `${digits(ns / 3600e9)}${space}h`;
  return `${digits(ns / 86400e9)}${space}d`;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// count is exact up to 99,999, and has three digits above.
export function count(n: number): string {
  if (n < 100_000) return whole.format(n);
  return scaled(n);
}

export function exact(n: number): string {
  return whole.format(n);
}

function scaled(n: number): string {
  for (const [unit, of] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const) {
    if (n >= of * 0.9995) return `${digits(n / of)}${space}${unit}`;
  }
  return digits(n);
}

// roughly is a count for a small place.
export function roughly(n: number): string {
  return n < 1000 ? String(n) : scaled(n);
}

export function rate(calls: number, seconds: number): string {
  if (!(seconds > 0)) return "–";
  const v = calls / seconds;
  if (v === 0) return "0";
  if (v >= 999.5) return `${scaled(v)}/s`;
  if (v >= 0.095) return `${digits(v)}/s`;
  if (v * 60 >= 0.095) return `${digits(v * 60)}/min`;
  return `${digits(v * 3600)}/h`;
}

export function share(v: number): string {
  if (!Number.isFinite(v)) return "–";
  if (v === 0) return `0${space}%`;
  if (v < 0.0001) return `<${space}0.01${space}%`;
  if (v < 1 && v > 0.9995) return `>${space}99.9${space}%`;
  const p = 100 * v;
  return `${p >= 99.95 ? p.toFixed(0) : p >= 9.995 ? p.toFixed(1) : p.toFixed(2)}${space}%`;
}

export function bytes(n: number | undefined): string {
  if (n === undefined) return "–";
  if (n < 1024) return `${n}${space}B`;
  for (const [unit, of] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const) {
    if (n >= of) return `${digits(n / of)}${space}${unit}`;
  }
  return `${n}${space}B`;
}

const two = (n: number) => String(n).padStart(2, "0");

export function clock(t: string | number | Date): string {
  const d = new Date(t);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function day(t: string | number | Date): string {
  const d = new Date(t);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

export function moment(t: string | number | Date): string {
  return `${day(t)} ${clock(t)}`;
}

// stretch is a window in as few words as tell it.
export function stretch(w: { from: string; to: string }): string {
  return day(w.from) === day(w.to) ? `${moment(w.from)} – ${clock(w.to)}` : `${moment(w.from)} – ${moment(w.to)}`;
}

export function seconds(w: { from: string; to: string }): number {
  return (Date.parse(w.to) - Date.parse(w.from)) / 1000;
}

export function node(n: { kind: string; name: string }): string {
  return n.kind === "service" || n.kind === "" ? n.name : `${n.kind} ${n.name}`;
}

export function plural(n: number, one: string, many = one + "s"): string {
  return `${exact(n)} ${n === 1 ? one : many}`;
}

// shortened cuts the middle out of a name.
export function shortened(text: string, most: number): string {
  const r = [...text];
  if (r.length <= most) return text;
  return r.slice(0, Math.ceil(most / 2)).join("") + "…" + r.slice(r.length - Math.floor((most - 1) / 2)).join("");
}

// halves are an RPC's service and its method, with the slash; of other names there is but the second.
export function halves(operation: string): [service: string, method: string] {
  const [, service = "", method = operation] = /^([\w.]+)(\/\w+)$/.exec(operation) ?? [];
  return [service, method];
}

// readDuration reads Go's durations, as 1h30m and 250ms; NaN if it is none.
export function readDuration(text: string): number {
  const units: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return NaN;
  let total = 0;
  for (const [, n, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) total += Number(n) * units[unit!]!;
  return total;
}

// length is a duration that is a round one.
export function length(ns: number): string {
  for (const [unit, of] of [["d", 86400e9], ["h", 3600e9], ["min", 60e9], ["s", 1e9]] as const) {
    if (ns >= of && ns % of === 0) return `${ns / of}${space}${unit}`;
  }
  return duration(ns);
}

// tick is a duration without zeros at its end.
export function tick(ns: number): string {
  return duration(ns).replace(/(\.\d*?)0+(?=\D)/, "$1").replace(/\.(?=\D)/, "");
}
