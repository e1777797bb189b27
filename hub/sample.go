package hub

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Bounds of the traces that are kept of a window.
const (
	sampleTraces = 256    // of which each is as likely as any other
	sampleSpans  = 20_000 // of these
	sampleTrace  = 5_000  // spans of a trace that may be kept
	extremeEach  = 2      // the slowest, and as many that failed, of each root operation
	extremeRoots = 250
	extremeSpans = 20_000
)

// candidate is a trace that may be kept, by a number that was drawn for it.
type candidate struct {
	rank uint64
	t    *routemap.Trace
	took int64 // of its root
}

// ranks is a heap, the largest rank on top.
type ranks []candidate

func (r ranks) Len() int           { return len(r) }
func (r ranks) Less(i, j int) bool { return r[i].rank > r[j].rank }
func (r ranks) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *ranks) Push(x any)        { *r = append(*r, x.(candidate)) }
func (r *ranks) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

type rootKey struct {
	service   routemap.Node
	operation string
}

// extremes are the slowest of a root operation, and of those that failed the ones of the least ranks.
type extremes struct{ slow, failed []candidate }

// sample chooses which traces of a window are kept: those of the least ranks, all that have less than one that had no room. So none is kept because it is short, or fast.
type sample struct {
	seen  uint64
	kept  ranks
	below uint64
	spans int

	byRoot map[rootKey]*extremes
	extra  int // spans of extremes
}

func newSample() *sample {
	return &sample{below: math.MaxUint64, byRoot: map[rootKey]*extremes{}}
}

func (s *sample) add(t *routemap.Trace) {
	s.seen++
	if t.Len() == 0 || t.Len() > sampleTrace {
		return
	}
	service, operation, took := t.Root()
	c := candidate{rand.Uint64(), t, took}
	s.take(c)
	s.takeExtreme(rootKey{service, operation}, c)
}

func (s *sample) take(c candidate) {
	if c.rank >= s.below {
		return
	}
	heap.Push(&s.kept, c)
	s.spans += c.t.Len()
	s.fit()
}

func (s *sample) fit() {
	for len(s.kept) > 0 && (len(s.kept) > sampleTraces || s.spans > sampleSpans || s.kept[0].rank >= s.below) {
		out := heap.Pop(&s.kept).(candidate)
		s.below = min(s.below, out.rank)
		s.spans -= out.t.Len()
	}
}

func (s *sample) takeExtreme(k rootKey, c candidate) {
	e := s.byRoot[k]
	if e == nil {
		if len(s.byRoot) >= extremeRoots {
			return
		}
		e = &extremes{}
		s.byRoot[k] = e
	}
	e.slow = s.insert(e.slow, c, func(a, b candidate) bool { return a.took > b.took })
	if c.t.Failed() {
		e.failed = s.insert(e.failed, c, func(a, b candidate) bool { return a.rank < b.rank })
	}
}

// insert puts a candidate among the first of its kind, if it is one of them and there is room.
func (s *sample) insert(all []candidate, c candidate, before func(a, b candidate) bool) []candidate {
	if slices.ContainsFunc(all, func(has candidate) bool { return has.t == c.t }) {
		return all
	}
	at := 0
	for at < len(all) && !before(c, all[at]) {
		at++
	}
	room := extremeSpans - s.extra
	if len(all) == extremeEach {
		room += all[extremeEach-1].t.Len()
	}
	if at == extremeEach || c.t.Len() > room {
		return all
	}
	if len(all) == extremeEach {
		s.extra -= all[extremeEach-1].t.Len()
		all = all[:extremeEach-1]
	}
	s.extra += c.t.Len()
	return slices.Insert(all, at, c)
}

// merge adds those of another window.
func (s *sample) merge(o *sample) {
	s.seen += o.seen
	s.below = min(s.below, o.below)
	s.fit()
	for _, c := range o.kept {
		s.take(c)
	}
	for k, e := range o.byRoot {
		for _, c := range slices.Concat(e.slow, e.failed) {
			s.takeExtreme(k, c)
		}
	}
}

// traces returns what is kept, named as on the map, of which what can be is shown by them then.
func (s *sample) traces(m *routemap.Map) *store.Traces {
	why := map[*routemap.Trace]store.Why{}
	var all []*routemap.Trace
	note := func(c candidate, w store.Why) {
		if why[c.t] == 0 {
			all = append(all, c.t)
		}
		why[c.t] |= w
	}
	for _, c := range s.kept {
		note(c, store.Sampled)
	}
	for _, e := range s.byRoot {
		for _, c := range e.slow {
			note(c, store.Slow)
		}
		for _, c := range e.failed {
			note(c, store.Failed)
		}
	}
	m.Prefer(all)
	out := &store.Traces{Seen: s.seen}
	for _, t := range all {
		out.Kept = append(out.Kept, store.Kept{Timeline: m.Timeline(t), Why: why[t]})
	}
	return out
}
