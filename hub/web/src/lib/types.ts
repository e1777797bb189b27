// What the hub's API answers. Durations are ns, times RFC 3339.

export interface Named {
  kind: string;
  name: string;
}

export interface Key {
  from: Named;
  to: Named;
  transport?: string;
  operation: string;
  mode: string;
}

export interface Quantity {
  count: number;
  sum: number;
  min: number;
  max: number;
  p50: number;
  p90: number;
  p99: number;
}

export interface Evidence {
  trace: string;
  span?: string;
}

export interface Waits {
  calls: number;
  clientQueue: number;
  transport: number;
  serverQueue: number;
  handler: number;
}

export interface Carried {
  calls: number;
  same: number;
  request: number;
  requestRepeated: number;
  response: number;
  responseRepeated: number;
}

export interface Route extends Key {
  id: string;
  calls: number;
  paired: number;
  failed: number;
  errors?: Record<string, number>;
  retries?: number;
  duration?: Quantity;
  client?: Quantity;
  server?: Quantity;
  failures?: Quantity;
  gap?: Quantity;
  request?: Quantity;
  response?: Quantity;
  critical: number;
  through: number;
  alone: number;
  callers: number;
  repeats?: number;
  known?: number;
  roots: number;
  busy?: number;
  evidence?: Evidence[];
  waits?: Waits;
  carried?: Carried;
  wakes?: number;
  switches?: number;
  sources?: string[];
}

export interface Window {
  from: string;
  to: string;
}

export interface HotPath {
  root: string;
  steps: string[] | null;
  traces: number;
  share: number;
  tail: number;
  each: number;
  hot: boolean;
}

export interface Blocking extends Key {
  id: string;
  callers: number;
  share: number;
  flagged: boolean;
  counted: boolean;
}

export interface Chain {
  root: string;
  traces: number;
  depth: number;
  mean: number;
  steps: string[] | null;
  evidence: Evidence;
}

export interface Finding {
  kind: string;
  from: Named;
  to: Named;
  operation: string;
  within?: string;
  cost: number;
  values: Record<string, number>;
  evidence: Evidence[] | null;
  text: string;
}

export interface NodeReport extends Named {
  spans: number;
  critical: number;
}

export interface Brief {
  window: Window;
  traces: number;
  whole: number;
  spans: number;
  nameless: number;
  faults: Record<string, number> | null;
  leftOut: Record<string, number> | null;
  windows: number;
  damaged: number;
  nodes: NodeReport[];
  routes: Route[];
  paths: HotPath[];
  blocking: Blocking[];
  chains: Chain[];
  findings: Finding[];
  all: Record<string, number>;
  spent: number;
}

export interface Point {
  from: string;
  to: string;
  calls: number;
  failed: number;
  duration?: Quantity & { buckets: [number, number, number][] };
}

export interface Series {
  window: Window;
  route: Key & { id: string };
  points: Point[];
}

export interface KeptTrace {
  id: string;
  service: string;
  name: string;
  start: string;
  duration: number;
  spans: number;
  failed: boolean | number;
  why?: string[];
  call?: number; // the longest of the route's, if one was asked for
}

export interface Traces {
  window: Window;
  traces: KeptTrace[] | null;
  kept: number;
  seen: number;
}

export interface Span {
  id: string;
  parent: string;
  service: string;
  name: string;
  kind: string;
  start: number;
  duration: number;
  error: string;
  route: string;
  critical: [number, number][] | null;
}

export interface Trace {
  id: string;
  start: string;
  duration: number;
  spans: Span[];
  window: Window;
}

export interface BurnTime {
  ns: number;
  calls: number;
  bad: number;
  burn: number;
}

export interface Burn extends Key {
  id: string;
  alert: string;
  times: BurnTime[];
}

export interface Burns {
  objective: { target: number; slower: number };
  routes: Burn[];
}

export interface Status {
  began: string;
  addrs: Record<string, string>;
  intake: { requests: number; refused: Record<string, number> | null; spans: number; leftOut: Record<string, number> | null; held: number };
  metrics?: { points: number; others: number; leftOut: Record<string, number> | null; series: number };
  store: { windows: number; bytes: number; most: number; traces?: number; tracesSeen?: number };
  failing?: string;
  untidy?: string;
}

export interface Stretch {
  start: string;
  ns: number;
  bytes: number;
}

export interface Term {
  name: string;
  definition: string;
}

export interface Process {
  service: string;
  pid: number;
  host: string;
  seen: string;
  window: number;
  calls: number;
  cpu: number;
  voluntarySwitches: number;
  involuntarySwitches: number;
  runQueue: number;
  doorbells: number;
  threads: number;
  dropped: number;
}

export interface Event {
  first: string;
  last: string;
  count: number;
  service: string;
  host: string;
  pid: number;
  kind: string;
  subject: string;
  detail: string;
  trace?: string;
  error: boolean;
}

export interface Events {
  window: Window;
  events: Event[];
}
