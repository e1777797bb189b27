package routemap

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"
)

// Bounds of a map, whatever is put into it. Of more than it tells apart, what costs least is counted together under the name other; paths count for what is above them, and what is carried on
// and what follows is left out. [Report.Folded] says how many these were.
const (
	maxRoutes  = 20_000
	maxNodes   = 5_000
	maxNotable = 5_000 // root operations, and of each kind what stands out
	maxPaths   = 50_000
	maxSteps   = 64    // of a path
	maxRecords = 5_000 // whole traces' critical paths
	maxClasses = 64    // of a route's errors
	maxHops    = 16    // of what is carried on
	maxBlobs   = 4096  // of a trace
	maxParts   = 32    // of a handler, in each other
	other      = "other"
)

// Map is what is known of all routes. It is not safe for concurrent use.
type Map struct {
	rand     *rand.Rand
	routes   map[Key]*Stats
	nodes    map[Node]*NodeStats
	paths    paths
	chains   map[string]*Chain
	plusOnes map[plusOneKey]*plusOne
	hosts    map[string]*Others
	carried  map[string]*carried // by chainKey
	follows  map[followKey]*follow
	folded   map[Key]Key // routes of traces, and those that are counted
	beyond   map[string]uint64

	traces, whole, spans uint64
	nameless             uint64 // clients' spans that say nothing of who is called
	faults               map[string]uint64
	first, last          int64 // ns since 1970; of spans, or as it was set
	fixed                bool

	spare Stats // what is loaded is read into it
}

// NodeStats is what is known of an end of routes.
type NodeStats struct {
	Spans    uint64 `json:"spans"`
	Critical int64  `json:"critical"` // ns on critical paths that it has worked itself

	Processes uint64 `json:"processes,omitempty"` // of a report: how many it stands for that do not report; above 256, about
	seen      leastNumbers
}

func (s *NodeStats) merge(o *NodeStats) {
	s.Spans, s.Critical = s.Spans+o.Spans, plus(s.Critical, o.Critical)
	s.seen.add(o.seen...)
}

// made returns what there is of a key, which is made if nothing is.
func made[K comparable, V any](all map[K]*V, k K) *V {
	v := all[k]
	if v == nil {
		v = new(V)
		all[k] = v
	}
	return v
}

// New returns a map that is empty.
func New() *Map {
	return &Map{
		rand: rand.New(rand.NewPCG(0x5713e, 1)), routes: map[Key]*Stats{}, nodes: map[Node]*NodeStats{}, paths: newPaths(),
		chains: map[string]*Chain{}, plusOnes: map[plusOneKey]*plusOne{}, carried: map[string]*carried{}, follows: map[followKey]*follow{}, faults: map[string]uint64{}, hosts: map[string]*Others{},
	}
}

// Between sets the time that the map is of, from now on whatever its spans say: their clocks may be far off.
func (m *Map) Between(from, to time.Time) {
	m.fixed, m.first, m.last = true, from.UnixNano(), to.UnixNano()
}

// route returns a route's stats.
func (m *Map) route(k Key) *Stats { return made(m.routes, k) }

func (m *Map) node(n Node) *NodeStats { return made(m.nodes, n) }

// Add takes in a trace.
func (m *Map) Add(t *Trace) {
	if t.Len() == 0 {
		return
	}
	m.traces++
	m.spans += uint64(t.Len())
	if t.whole && len(t.roots) == 1 {
		m.whole++
	}
	for name, n := range t.faults {
		m.faults[name] += uint64(n)
	}
	for i := range t.nodes {
		n := &t.nodes[i]
		m.node(t.self(i)).Spans++
		m.extend(n.start, n.end)
	}
	v := viewOf(t)
	m.nameless += uint64(v.nameless)
	m.addCalls(v)
	m.addCritical(v)
	m.addPlusOnes(v)
	if slices.ContainsFunc(t.nodes, func(n node) bool { return n.Bodies != nil }) {
		m.addCarried(v)
		m.addFollows(v)
	}
	m.fit(false)
}

// view is a trace with what the parts of a map want to know of it.
type view struct {
	*Trace
	calls    []call
	nameless int
	// By span:
	into  []int // the call that it is the waiting span of, or else the server's; -1: none
	root  []int
	depth []int // synchronous calls from the root to it
	order []int // parents before children

	unseen uint64 // pieces of bodies for which there was no room
}

func viewOf(t *Trace) *view {
	calls, nameless := t.calls()
	v := &view{Trace: t, calls: calls, nameless: nameless, into: make([]int, t.Len()), root: make([]int, t.Len()), depth: make([]int, t.Len())}
	for i := range v.into {
		v.into[i] = -1
	}
	for i := range calls {
		v.into[calls[i].waits()] = i
	}
	v.order = append(v.order, t.roots...)
	for at := 0; at < len(v.order); at++ {
		i := v.order[at]
		n := &t.nodes[i]
		v.root[i] = i
		if n.parent >= 0 {
			v.root[i], v.depth[i] = v.root[n.parent], v.depth[n.parent]
		}
		if c := v.into[i]; c >= 0 && calls[c].key.Mode == Sync {
			v.depth[i]++
		}
		v.order = append(v.order, n.children...)
	}
	return v
}

func (m *Map) addCalls(v *view) {
	counts := map[Key]int{}
	asked := map[Key]map[uint64]bool{}
	for i := range v.calls {
		c := &v.calls[i]
		s := m.route(c.key)
		s.Calls++
		s.Traced++
		s.Sources |= FromTraces
		counts[c.key]++
		if c.again {
			s.Retries++
		}
		said := v.nodes[c.waits()]
		s.show(v.ID, said.ID)
		class, took := said.Class, int64(-1)
		if c.client >= 0 {
			took = v.nodes[c.client].end - v.nodes[c.client].start
			s.Client.Record(took)
			s.sample(m.rand, took)
		}
		if c.server >= 0 {
			served := v.nodes[c.server].end - v.nodes[c.server].start
			s.Server.Record(served)
			if c.client < 0 {
				took = served
				s.sample(m.rand, took)
			} else {
				s.Paired++
			}
			if class == "" {
				class = v.nodes[c.server].Class
			}
		}
		if c.gap >= 0 {
			s.Gap.Record(c.gap)
		}
		if class != "" && took >= 0 {
			s.Failures.Record(took)
		}
		s.fail(class)
		m.addSizes(s, v, c)
		m.addPrint(s, v, c, asked)
	}
	for k, n := range counts {
		s := m.route(k)
		s.Roots++
		if n >= chattyCalls {
			s.Busy++
		}
	}
	m.addWaits(v)
}

// addSizes takes sizes from either side.
func (m *Map) addSizes(s *Stats, v *view, c *call) {
	request, response := int64(-1), int64(-1)
	for _, side := range []int{c.client, c.server} {
		if side >= 0 {
			request, response = max(request, v.nodes[side].Request), max(response, v.nodes[side].Response)
		}
	}
	if request >= 0 {
		s.Request.Record(request)
	}
	if response >= 0 {
		s.Response.Record(response)
	}
}

// addPrint looks whether the trace has asked for the same before.
func (m *Map) addPrint(s *Stats, v *view, c *call, asked map[Key]map[uint64]bool) {
	p := v.nodes[c.waits()].Print
	if p == 0 || c.again {
		return
	}
	s.Known++
	of := asked[c.key]
	if of == nil {
		of = map[uint64]bool{}
		asked[c.key] = of
	}
	if of[p] {
		s.Repeats++
	}
	of[p] = true
}

// addWaits adds, for each span that calls, how long it waited for each call and for nothing else.
func (m *Map) addWaits(v *view) {
	seen := map[Key]int{} // the last caller that was counted
	for i := range v.nodes {
		n := &v.nodes[i]
		made := false
		for _, c := range n.children {
			made = made || v.into[c] >= 0 && v.calls[v.into[c]].key.Mode == Sync
		}
		if !made {
			continue
		}
		alone := v.alone(i)
		for j, c := range n.children {
			if v.into[c] < 0 || v.calls[v.into[c]].key.Mode != Sync {
				continue
			}
			k := v.calls[v.into[c]].key
			s := m.route(k)
			s.Alone = plus(s.Alone, v.times(i, alone[j]))
			if last, counted := seen[k]; !counted || last != i {
				seen[k] = i
				s.Callers = plus(s.Callers, v.times(i, n.end-n.start))
			}
		}
	}
}

// alone is how long each child of a span was all that the span waited for.
func (v *view) alone(span int) []int64 {
	type event struct {
		at    int64
		child int
		begin bool
	}
	n := &v.nodes[span]
	out := make([]int64, len(n.children))
	var events []event
	for j, c := range n.children {
		if k := v.nodes[c]; !k.async {
			if start, end := max(k.start, n.start), min(k.end, n.end); start < end {
				events = append(events, event{start, j, true}, event{end, j, false})
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int {
		switch {
		case a.at != b.at:
			return int(min(max(a.at-b.at, -1), 1))
		case a.begin == b.begin:
			return 0
		case a.begin:
			return 1
		}
		return -1
	})
	running, sum, since := 0, 0, int64(0) // how many run; the sum of their numbers, which is the number of the only one
	for _, e := range events {
		if running == 1 {
			out[sum] += e.at - since
		}
		since = e.at
		if e.begin {
			running, sum = running+1, sum+e.child
		} else {
			running, sum = running-1, sum-e.child
		}
	}
	return out
}

// weight is how many traces like a span's there were, of which it is the one that was chosen: what it says of times counts as often. Calls are those that were seen.
func (v *view) weight(span int) uint64 { return uint64(max(v.nodes[v.root[span]].Weight, 1)) }

// times is a time of a span, as often as its trace counts.
func (v *view) times(span int, took int64) int64 { return often(took, v.weight(span)) }

func often(took int64, n uint64) int64 {
	if over, low := bits.Mul64(uint64(took), n); over == 0 && low <= math.MaxInt64 {
		return int64(low)
	}
	return math.MaxInt64
}

// plus adds times, which are not negative, as far as there are numbers.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// addCritical adds the critical path of each root.
func (m *Map) addCritical(v *view) {
	path := m.paths.of(v)
	behind := make([]int64, v.Len()) // ns on critical paths, of each span and what is below it
	for _, r := range v.roots {
		byPath := map[int32]int64{}
		critical := v.CriticalPath(r)
		for _, s := range critical {
			took := s.End - s.Start
			behind[s.Span] += took
			byPath[path[s.Span]] += took
			if c := v.into[s.Span]; c >= 0 && v.calls[c].client == s.Span {
				of := m.route(v.calls[c].key)
				of.Critical = plus(of.Critical, v.times(r, took))
			} else {
				of := m.node(v.self(s.Span))
				of.Critical = plus(of.Critical, v.times(r, took))
			}
		}
		m.paths.keep(m.rand, path[r], v.nodes[r].end-v.nodes[r].start, v.weight(r), byPath)
		m.addChain(v, r, v.deepest(r, critical))
	}
	for _, i := range slices.Backward(v.order) {
		if c := v.into[i]; c >= 0 {
			of := m.route(v.calls[c].key)
			of.Through = plus(of.Through, v.times(i, behind[i]))
		}
		if p := v.nodes[i].parent; p >= 0 {
			behind[p] += behind[i]
		}
	}
}
