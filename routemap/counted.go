package routemap

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Sources tells how it is known what is known of a route.
type Sources uint8

// The sources.
const (
	FromTraces  Sources = 1 << iota // spans
	FromStile                       // processes that counted each call
	FromMetrics                     // histograms of durations, of which a value is known as far as its bucket tells
)

var sourceNames = []string{"traces", "stile", "metrics"}

// Names are the sources' names; none: an empty list.
func (s Sources) Names() []string {
	names := []string{}
	for i, name := range sourceNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// MarshalJSON writes a list of names.
func (s Sources) MarshalJSON() ([]byte, error) { return json.Marshal(s.Names()) }

// UnmarshalJSON reads what MarshalJSON has written.
func (s *Sources) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return err
	}
	*s = 0
	for _, name := range names {
		i := slices.Index(sourceNames, name)
		if i < 0 {
			return fmt.Errorf("an unknown source %q", name)
		}
		*s |= 1 << i
	}
	return nil
}

// Waits are sums of where calls waited, ns: the four are all of the calls' time.
type Waits struct {
	Calls       uint64 `json:"calls"` // of which it is known
	ClientQueue int64  `json:"clientQueue"`
	Transport   int64  `json:"transport"`
	ServerQueue int64  `json:"serverQueue"`
	Handler     int64  `json:"handler"`
}

func (w *Waits) merge(o *Waits) {
	w.Calls += o.Calls
	w.ClientQueue = plus(w.ClientQueue, o.ClientQueue)
	w.Transport = plus(w.Transport, o.Transport)
	w.ServerQueue = plus(w.ServerQueue, o.ServerQueue)
	w.Handler = plus(w.Handler, o.Handler)
}

// Carried is how much of what was looked at a route had carried before, within a minute or so.
type Carried struct {
	Calls            uint64 `json:"calls"` // looked at
	Same             uint64 `json:"same"`  // of them, those that asked what was asked before, and had the same answer
	Request          uint64 `json:"request"`
	RequestRepeated  uint64 `json:"requestRepeated"` // bytes
	Response         uint64 `json:"response"`
	ResponseRepeated uint64 `json:"responseRepeated"`
}

func (c *Carried) merge(o *Carried) {
	c.Calls, c.Same = c.Calls+o.Calls, c.Same+o.Same
	c.Request, c.RequestRepeated = c.Request+o.Request, c.RequestRepeated+o.RequestRepeated
	c.Response, c.ResponseRepeated = c.Response+o.Response, c.ResponseRepeated+o.ResponseRepeated
}

// Counted adds what processes have counted of a route. It is to be followed by Fold.
func (m *Map) Counted(k Key, s *Stats) {
	m.node(k.From)
	m.node(k.To)
	if traced := m.routes[k]; traced != nil && traced.Sources == FromTraces { // of messages traces know the way, too
		delete(m.routes, k)
		m.route(k).know(m, traced)
	}
	to := m.route(k)
	to.merge(m.rand, s)
	to.Sources |= FromStile
	m.fit(false)
}

// Measured adds what metrics tell of a route that is not known better.
func (m *Map) Measured(k Key, s *Stats) {
	m.node(k.From)
	m.node(k.To)
	to := m.route(k)
	to.merge(m.rand, s)
	to.Sources |= FromMetrics
	m.fit(false)
}

// Each calls f with each route, whose stats are the map's.
func (m *Map) Each(f func(Key, *Stats)) {
	for k, s := range m.routes {
		f(k, s)
	}
}

// Fold puts what traces tell of a route that processes count, too, with what these have counted, so that its calls are there once. counted says which
// that is of those between two nodes with an operation.
func (m *Map) Fold(counted func(from, to Node, operation string) (Key, bool)) {
	m.settle()
	for _, k := range inOrder(m.routes) {
		s := m.routes[k]
		if s.Sources&FromStile != 0 {
			continue
		}
		if to, is := counted(k.From, k.To, k.Operation); is {
			delete(m.routes, k)
			m.route(to).know(m, s)
			if m.folded == nil {
				m.folded = map[Key]Key{}
			}
			m.folded[k] = to
		}
	}
}

// know adds what only traces know.
func (s *Stats) know(m *Map, traced *Stats) {
	seen := &Stats{
		Sources: FromStile | FromTraces, Retries: traced.Retries, Critical: traced.Critical, Through: traced.Through, Alone: traced.Alone, Callers: traced.Callers,
		Repeats: traced.Repeats, Known: traced.Known, Roots: traced.Roots, Traced: traced.Traced, Looked: traced.Looked, Busy: traced.Busy, Evidence: traced.Evidence, Samples: traced.Samples, sampled: traced.sampled,
	}
	s.merge(m.rand, seen)
}

// Cost is what the routes are ranked by, ns: what was spent behind it on critical paths, or, where no trace tells, what its callers waited.
func (r Route) Cost() int64 {
	switch {
	case r.Roots > 0 || r.Mode == Async:
		return r.Through
	case r.Mode == Stream:
		return 0
	}
	return int64(r.Client.Sum())
}
