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
  spin?: number;
  switches?: number;
  runQueue?: number;
  sources?: string[];
  decisions?: Decisions;
  deadlineLeft?: Quantity;
  open?: Open;
  inconsistent?: boolean;
}

// Open is how many calls processes saw open at moments: looks of them, in time ns of all.
export type Open = Record<"looks" | "time" | "seen" | "most", number>;

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
  steps?: string[];
  evidence: Evidence[] | null;
  text: string;
}

export interface NodeReport extends Named {
  spans: number;
  critical: number;
  processes?: number; // that do not report, and that it stands for
}

export interface Brief {
  window: Window;
  traces: number;
  whole: number;
  spans: number;
  nameless: number;
  faults: Record<string, number> | null;
  leftOut: Record<string, number> | null;
  folded?: Record<string, number>;
  hosts?: Others[];
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
  waits?: SpanWaits;
  call?: SpanCall;
  weight?: number;
}

// SpanWaits is where a call waited that Stile has traced, ns.
export type SpanWaits = Record<"clientQueue" | "transport" | "serverQueue" | "handler", number>;

// SpanCall is what else Stile has noted of it; what is not said is 0. Times are ns after the span's start.
export interface SpanCall {
  sent?: number;
  handling?: number;
  handled?: number;
  over?: number;
  limit?: number;
  slot?: number;
  window?: number;
  admission?: number;
  try?: number;
  end?: string;
  cause?: string;
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
  agents?: { lost: number; unsampled: number; leftOut: number; spansLost: number; noRoom: number; routesLost?: number; unrecorded?: number };
  metrics?: { points: number; others: number; leftOut: Record<string, number> | null; series: number; together?: number };
  totals?: { routes: number; most: number; gone: number; together: number };
  folded?: Record<string, number> | null;
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

export type Column = (number | null)[]; // of each step; null: nothing is known of it

export interface ProcessLoad {
  id: string;
  service: string;
  pid: number;
  host: string;
  hostId: string;
  user: Column; // processors
  system: Column;
  gc: Column;
  runQueue: Column; // threads
  voluntarySwitches: Column; // a second
  involuntarySwitches: Column;
  made: Column;
  served: Column;
  openMade: Column; // at most
  openServed: Column;
  threads: Column;
}

export interface HostLoad {
  id: string;
  name: string;
  user: Column; // processors
  system: Column;
  idle: Column;
  steal: Column;
  known: Column;
}

export interface Loads {
  window: Window;
  step: number; // ns
  steps: number;
  processes: ProcessLoad[];
  all: number;
  hosts: HostLoad[];
}

// Others is what was used of a host by what does not report.
export interface Others {
  host: string;
  windows: number;
  contaminated: number;
  time: number; // ns
  used: number;
  most: number; // processors
}

export interface Process {
  id: string;
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

export interface QueueStats {
  windows: number;
  messages: number;
  bytes: number;
  maxBytes: number;
  delayed: number;
  lag: number;
  inFlight: number;
  retrying: number;
  dead: number;
  oldest: number;
  mostLag: number;
  measured: number;
  published: number;
  handled: number;
  blocked: number;
  told: number;
  refused: number;
  in: number;
  out: number;
}

export interface Queue extends QueueStats {
  id: string;
  topic: string;
  group: string;
  created: string;
  where: string;
  host: string;
  seen: string;
  untilFull: number;
}

export interface QueuePoint extends QueueStats {
  from: string;
  to: string;
}

export interface Queues {
  window: Window;
  queues: Queue[];
  all: number;
  points: QueuePoint[];
  damaged: number;
}

export interface DeadLetter {
  sequence: number;
  id: string;
  type: string;
  key: string;
  reason: string;
  error: string;
  attempts: number;
  published: string;
  died: string;
  size: number;
  data: string;
}

export interface DeadLetters {
  queue: string;
  letters: DeadLetter[];
  dead: number;
  last: number; // those that die later have a higher sequence
}

export interface Acted {
  done: number;
  left: number;
  error?: string;
}

export interface PolicyVersion {
  id: string;
  version: string;
  first: string;
  seen: string;
  processes: number;
  kept: boolean;
}

export interface PolicySource {
  source: string;
  service?: string;
  newest?: string;
  since?: string;
  processes: number;
  lagging: number;
  refusing: number;
  versions: PolicyVersion[];
}

export interface PolicyControl {
  kind: string;
  method: string;
  target: string;
  state?: string;
  limit: number;
  most: number;
  inFlight: number;
  pending: number;
}

export interface PolicyReport {
  source: string;
  service: string;
  pid: number;
  host: string;
  seen: string;
  id: string;
  version: string;
  from: string;
  since: string;
  refused?: string;
  alike: number;
  lags?: number;
  controls: PolicyControl[];
}

export interface Policies {
  sources: PolicySource[];
  policies: PolicyReport[];
  all: number;
}

export interface PolicyText {
  id: string;
  version: string;
  text: string;
  fault?: string;
}

export interface PolicyDiff {
  from: PolicyText;
  to: PolicyText;
  changes: { name: string; what: string; before: string; after: string; note?: string }[];
}

export interface Decisions {
  retries?: number;
  hedges?: number;
  breaker?: number;
  limit?: number;
  budget?: number;
  admission?: number;
  cacheHits?: number;
  coalesced?: number;
  fallbacks?: number;
  late?: number;
}
