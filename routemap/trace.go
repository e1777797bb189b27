package routemap

import (
	"cmp"
	"slices"
)

// What is wrong with traces is counted under these names.
const (
	FaultDuplicate = "duplicate span"        // one of two with an ID is left out
	FaultCycle     = "cycle of parents"      // it is cut
	FaultOrphan    = "parent is missing"     // the span is a root, and its trace is not whole
	FaultBackwards = "ends before it begins" // it has no duration
	FaultSkew      = "clock skew"            // the span and what is below are moved into their parent
)

// Trace is the spans of a trace as trees. It is not changed any more, and safe for concurrent use.
type Trace struct {
	ID     string
	nodes  []node
	roots  []int
	byID   map[uint64]int // of a call whose halves share an ID, the client's
	faults map[string]int
	whole  bool

	services map[string]bool
}

// node is a span in its tree.
type node struct {
	*Span
	start, end int64  // on the root's clock
	parent     int    // -1: it is a root
	children   []int  // by start
	async      bool   // its parent does not wait for it
	asked      *Asked // what its handler told of it; nil: nothing
}

// NewTrace makes the trees of a trace's spans, which it keeps.
func NewTrace(spans []Span) *Trace {
	t := &Trace{faults: map[string]int{}, whole: true, services: map[string]bool{}}
	if len(spans) > 0 {
		t.ID = spans[0].Trace
	}
	spans, notes := takeNotes(spans)
	spans = t.distinct(spans)
	t.nodes = make([]node, len(spans))
	t.byID = make(map[uint64]int, len(spans))
	served := map[uint64]int{} // server halves of spans that both sides have
	for i := range spans {
		s := &spans[i]
		if s.End < s.Start {
			s.End = s.Start
			t.faults[FaultBackwards]++
		}
		t.nodes[i] = node{Span: s, start: s.Start, end: s.End, parent: -1}
		t.services[s.Service] = true
		if other, both := t.byID[s.ID]; both { // distinct leaves such only
			client, server := other, i
			if s.Kind == Client {
				client, server = i, other
			}
			t.byID[s.ID], served[s.ID] = client, server
			continue
		}
		t.byID[s.ID] = i
	}
	t.putBodies(notes)
	for i := range t.nodes {
		t.findParent(i, served)
	}
	t.cutCycles()
	for i, n := range t.nodes {
		if n.parent < 0 {
			t.roots = append(t.roots, i)
		} else {
			t.nodes[n.parent].children = append(t.nodes[n.parent].children, i)
		}
	}
	t.unskew()
	for i := range t.nodes {
		n := &t.nodes[i]
		slices.SortFunc(n.children, t.byStart)
		if n.parent >= 0 {
			p := t.nodes[n.parent]
			n.async = n.Follows || n.Kind == Consumer || n.start >= p.end && n.end > p.end
		}
	}
	slices.SortFunc(t.roots, t.byStart)
	return t
}

func (t *Trace) byStart(a, b int) int {
	x, y := t.nodes[a], t.nodes[b]
	return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.end, y.end), cmp.Compare(x.ID, y.ID), cmp.Compare(x.Kind, y.Kind))
}

// distinct sorts spans, so that their order says nothing, and leaves out those whose ID another one has: but for the client's and the server's half of
// a call, which share one in Zipkin.
func (t *Trace) distinct(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(side(a.Kind), side(b.Kind)), cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End), cmp.Compare(a.Name, b.Name))
	})
	kept := spans[:0]
	for _, s := range spans {
		n := len(kept)
		same := n > 0 && kept[n-1].ID == s.ID
		if same && (side(kept[n-1].Kind) == side(s.Kind) || side(kept[n-1].Kind) == 0 || side(s.Kind) == 0) {
			t.faults[FaultDuplicate]++
			continue
		}
		kept = append(kept, s)
	}
	return kept
}

// side is 1 for a client, 2 for a server, and 0 for others.
func side(k Kind) int {
	switch k {
	case Client, Producer:
		return 1
	case Server, Consumer:
		return 2
	}
	return 0
}

// findParent finds the span above a span. Of a call whose halves share an ID, the server's is below the client's, and what the server's
// service has done below that.
func (t *Trace) findParent(i int, served map[uint64]int) {
	n := &t.nodes[i]
	if server, both := served[n.ID]; both && server == i {
		n.parent = t.byID[n.ID]
		return
	}
	if n.Parent == 0 {
		return
	}
	p, known := t.byID[n.Parent]
	if server, both := served[n.Parent]; both && t.nodes[server].Service == n.Service {
		p = server
	}
	if !known || p == i {
		t.faults[FaultOrphan]++
		t.whole = false
		return
	}
	n.parent = p
}

// cutCycles makes a root of one span of each cycle.
func (t *Trace) cutCycles() {
	const unseen, onWay, ends = 0, 1, 2
	state := make([]uint8, len(t.nodes))
	var way []int
	for i := range t.nodes {
		way = way[:0]
		j := i
		for ; j >= 0 && state[j] == unseen; j = t.nodes[j].parent {
			state[j] = onWay
			way = append(way, j)
		}
		if j >= 0 && state[j] == onWay {
			t.nodes[j].parent = -1
			t.faults[FaultCycle]++
			t.whole = false
		}
		for _, w := range way {
			state[w] = ends
		}
	}
}

// unskew moves a server's spans into the client's, where another clock has them outside although they would fit: to its middle, as nothing
// says on which way the time went.
func (t *Trace) unskew() {
	type step struct {
		at    int
		shift int64
	}
	var steps []step
	for _, r := range t.roots {
		steps = append(steps, step{r, 0})
	}
	for len(steps) > 0 {
		s := steps[len(steps)-1]
		steps = steps[:len(steps)-1]
		n := &t.nodes[s.at]
		n.start, n.end = n.start+s.shift, n.end+s.shift
		if n.parent >= 0 {
			p := t.nodes[n.parent]
			took, room := n.end-n.start, p.end-p.start
			outside := n.start < p.start || n.end > p.end
			if outside && p.Kind == Client && n.Kind == Server && otherClock(p.Span, n.Span) && took <= room && p.Class != ClassTimeout && p.Class != ClassCancel {
				move := p.start + (room-took)/2 - n.start
				n.start, n.end, s.shift = n.start+move, n.end+move, s.shift+move
				t.faults[FaultSkew]++
			}
		}
		for _, c := range n.children {
			steps = append(steps, step{c, s.shift})
		}
	}
}

// otherClock tells whether times of two spans may be of two clocks.
func otherClock(a, b *Span) bool {
	if a.Host == "" || b.Host == "" {
		return a.Service != b.Service
	}
	return a.Host != b.Host
}

// Faults tells how often what was wrong with the trace.
func (t *Trace) Faults() map[string]int { return t.faults }

// Len is how many spans the trace has.
func (t *Trace) Len() int { return len(t.nodes) }

// Span returns a span, from 0 to Len. It is the trace's.
func (t *Trace) Span(i int) *Span { return t.nodes[i].Span }

// Extent is when a span began and ended, ns since 1970, after what clocks had wrong was mended.
func (t *Trace) Extent(i int) (start, end int64) { return t.nodes[i].start, t.nodes[i].end }

// Roots are the spans without a parent, the earliest first. It is the trace's.
func (t *Trace) Roots() []int { return t.roots }
