package routemap

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// What is found is of one of these kinds. docs/MAP.md defines them.
const (
	PlusOne      = "n+1"
	CarriedOn    = "carried"
	Serial       = "serial"
	Unused       = "unused"
	Chatty       = "chatty"
	Repeated     = "repeated"
	Blocking     = "blocking"
	Duplicated   = "duplicated"
	Backpressure = "backpressure"
)

const (
	plusOneLeast      = 5
	plusOneOverlap    = 1.05 // durations' sum to their union's
	plusOneShare      = 0.05 // of the root
	chattyCalls       = 10
	chattyBytes       = 1 << 10
	chattyGap         = 0.5
	repeatedLeast     = 0.05 // of the calls of which it is known what they ask for
	repeatedCalls     = 2
	carriedRoutes     = 2 // of a trace
	carriedTraces     = 5
	carriedShare      = 0.05 // of the traces that have the last route
	followGroups      = 5
	followShare       = 0.05 // of the handlers' time, each call
	followCoincidence = 0.01 // of the groups may use a value that is the same by chance
	overlapsBack      = 8    // calls before one that are looked at
	duplicatedShare   = 0.5  // of the calls that were looked at
	duplicatedCalls   = 10
	duplicatedBytes   = 1 << 10 // of a call
	blockedCallers    = 1.0
	blockedShare      = 0.5
)

// Finding is something that stands out, with what shows it.
type Finding struct {
	Kind      string             `json:"kind"`
	From      Node               `json:"from"`
	To        Node               `json:"to"`
	Operation string             `json:"operation"`
	Within    string             `json:"within,omitempty"` // the caller's operation
	Cost      int64              `json:"cost"`             // ns that callers waited, in all
	Values    map[string]float64 `json:"values"`           // what its definition asks for
	Evidence  []Evidence         `json:"evidence"`
	Steps     []string           `json:"steps,omitempty"` // routes or operations, in order, where there is more than one
	Text      string             `json:"text"`
}

// Chain is the deepest that synchronous calls were nested on the critical paths of a root's traces.
type Chain struct {
	Root     string   `json:"root"`
	Traces   uint64   `json:"traces"`
	Depth    int      `json:"depth"`
	Mean     float64  `json:"mean"`
	Steps    []string `json:"steps"` // of the deepest, 64 at most
	Evidence Evidence `json:"evidence"`
	sum      uint64
}

// deepest is the span of a root's critical path that the most calls lead to.
func (v *view) deepest(root int, critical []Section) int {
	deepest := root
	for _, s := range critical {
		if v.depth[s.Span] > v.depth[deepest] {
			deepest = s.Span
		}
	}
	return deepest
}

func (v *view) rootName(root int) string {
	return v.nodes[root].Service + " " + operation(v.nodes[root].Span)
}

func (m *Map) addChain(v *view, root, deepest int) {
	depth := v.depth[deepest]
	c := m.chain(v.rootName(root))
	c.Traces++
	c.sum += uint64(depth)
	if depth > c.Depth {
		c.show(v, deepest)
	}
}

// preferChain has a chain shown by a trace that is as deep as any.
func (m *Map) preferChain(v *view, root int) {
	deepest := v.deepest(root, v.CriticalPath(root))
	if c := m.chains[v.rootName(root)]; c != nil && c.Depth > 0 && v.depth[deepest] == c.Depth {
		c.show(v, deepest)
	}
}

func (c *Chain) show(v *view, deepest int) {
	c.Depth, c.Evidence, c.Steps = v.depth[deepest], Evidence{v.ID, SpanHex(v.nodes[deepest].ID)}, nil
	for i := deepest; i >= 0; i = v.nodes[i].parent {
		if k := v.into[i]; k >= 0 && v.calls[k].key.Mode == Sync {
			c.Steps = append(c.Steps, v.calls[k].key.To.String()+" "+v.calls[k].key.Operation)
		}
	}
	slices.Reverse(c.Steps)
	c.Steps = slices.Clip(c.Steps[:min(len(c.Steps), maxSteps)])
}

// chain returns a root's chain.
func (m *Map) chain(root string) *Chain {
	c := made(m.chains, root)
	c.Root = root
	return c
}

// plusOneKey is who calls whom again and again, one call after the other.
type plusOneKey struct {
	from, to  Node
	operation string
	within    string
}

type plusOne struct {
	groups   uint64
	calls    uint64
	most     int
	took     int64
	evidence []Evidence
}

func (m *Map) addPlusOnes(v *view) {
	v.plusOnes(func(k plusOneKey, p *plusOne) { m.plusOne(k).merge(p) })
}

// plusOnes looks for groups of calls of one span that do not overlap.
func (v *view) plusOnes(found func(plusOneKey, *plusOne)) {
	for i := range v.nodes {
		n := &v.nodes[i]
		if len(n.children) < plusOneLeast {
			continue
		}
		groups := map[Key][]int{} // by target, whatever the way
		for _, c := range n.children {
			if k := v.into[c]; k >= 0 && v.calls[k].key.Mode == Sync && !v.nodes[c].async {
				key := v.calls[k].key
				key.Transport = ""
				groups[key] = append(groups[key], c)
			}
		}
		root := v.nodes[v.root[i]].end - v.nodes[v.root[i]].start
		for key, group := range groups {
			if len(group) < plusOneLeast {
				continue
			}
			sum, union := v.extent(group)
			if float64(sum) > plusOneOverlap*float64(union) || float64(union) < plusOneShare*float64(root) {
				continue
			}
			k := plusOneKey{key.From, key.To, key.Operation, operation(n.Span)}
			found(k, &plusOne{1, uint64(len(group)), len(group), union, []Evidence{{v.ID, SpanHex(n.ID)}}})
		}
	}
}

// plusOne returns what is known of such groups.
func (m *Map) plusOne(k plusOneKey) *plusOne { return made(m.plusOnes, k) }

// extent is the sum of spans' durations, and how long any of them ran. They are sorted by start.
func (v *view) extent(spans []int) (sum, union int64) {
	until := int64(0)
	for _, i := range spans {
		n := &v.nodes[i]
		sum += n.end - n.start
		if from := max(n.start, until); n.end > from {
			union += n.end - from
		}
		until = max(until, n.end)
	}
	return sum, union
}

// findings is what stands out, the costliest first, and how many chains of what is carried were not looked at.
func (m *Map) findings() (all []Finding, left int) {
	all = []Finding{}
	for k, p := range m.plusOnes {
		each := float64(p.calls) / float64(p.groups)
		f := Finding{
			Kind: PlusOne, From: k.from, To: k.to, Operation: k.operation, Within: k.within, Cost: p.took, Evidence: p.evidence,
			Values: map[string]float64{"groups": float64(p.groups), "calls": each, "most": float64(p.most), "ms": float64(p.took) / float64(p.groups) / 1e6},
			Text:   fmt.Sprintf("%s calls %s %.0f times in a row, in %d of its calls, %s each time: ask for all at once", k.within, k.operation, each, p.groups, Readable(p.took/int64(p.groups))),
		}
		if k == otherPlusOne {
			f.Text = fmt.Sprintf("others, each of which cost less than any that is told of: %.0f calls in a row, %d times, %s each time", each, p.groups, Readable(p.took/int64(p.groups)))
		}
		all = append(all, f)
	}
	for k, s := range m.routes {
		if k.Operation == other {
			continue
		}
		all = append(all, chatty(k, s)...)
		all = append(all, repeated(k, s)...)
		all = append(all, duplicated(k, s)...)
	}
	carried, left := m.foundCarried()
	all = append(append(all, carried...), m.foundFollows()...)
	sortFindings(all)
	return all, left
}

func sortFindings(all []Finding) {
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Kind, b.Kind), a.From.compare(b.From), a.To.compare(b.To), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Within, b.Within), slices.Compare(a.Steps, b.Steps), cmp.Compare(a.Text, b.Text))
	})
}

// chatty tells whether a route has many small calls for each trace, whose time is the way.
func chatty(k Key, s *Stats) []Finding {
	if s.Roots == 0 {
		return nil
	}
	each := float64(s.Traced) / float64(s.Roots)
	way := s.Gap.Sum() / s.Client.Sum()
	if k.Mode != Sync || each < chattyCalls || s.Gap.Count() == 0 || s.Client.Sum() == 0 || way < chattyGap {
		return nil
	}
	bytes, known := s.bytes()
	if !known || bytes >= chattyBytes {
		return nil
	}
	return []Finding{{
		Kind: Chatty, From: k.From, To: k.To, Operation: k.Operation, Cost: int64(s.Gap.Sum()), Evidence: s.Evidence,
		Values: map[string]float64{"calls": each, "bytes": float64(bytes), "way": way},
		Text:   fmt.Sprintf("%.0f calls a trace of %d bytes, %.0f %% of whose time is the way: send them together, or keep both sides on one host", each, bytes, 100*way),
	}}
}

// bytes is the median of what a call sends and receives, as far as it is said.
func (s *Stats) bytes() (int64, bool) {
	if s.Request.Count() == 0 && s.Response.Count() == 0 {
		return 0, false
	}
	return s.Request.Quantile(0.5) + s.Response.Quantile(0.5), true
}

// repeated tells whether a route's calls ask again for what their trace has asked for.
func repeated(k Key, s *Stats) []Finding {
	if s.Repeats < repeatedCalls || float64(s.Repeats) < repeatedLeast*float64(s.Known) {
		return nil
	}
	share := float64(s.Repeats) / float64(s.Known)
	return []Finding{{
		Kind: Repeated, From: k.From, To: k.To, Operation: k.Operation, Cost: int64(float64(s.Repeats) * s.Duration().Mean()), Evidence: s.Evidence,
		Values: map[string]float64{"repeats": float64(s.Repeats), "share": share},
		Text:   fmt.Sprintf("%.0f %% of the calls ask for what their trace has asked for before: suspected, as what was answered is not known", 100*share),
	}}
}

// duplicated tells whether a route's calls carry again what they have carried within the last minute.
func duplicated(k Key, s *Stats) []Finding {
	c := &s.Carried
	if c.Calls < duplicatedCalls {
		return nil
	}
	share, each := float64(c.Same)/float64(c.Calls), float64(c.Request+c.Response)/float64(c.Calls)
	if share < duplicatedShare || each < duplicatedBytes {
		return nil
	}
	again := float64(c.RequestRepeated+c.ResponseRepeated) / float64(max(c.Request+c.Response, 1))
	return []Finding{{
		Kind: Duplicated, From: k.From, To: k.To, Operation: k.Operation, Cost: int64(share * s.Client.Sum()), Evidence: s.Evidence,
		Values: map[string]float64{"share": share, "bytes": each, "repeated": again},
		Text:   fmt.Sprintf("%.0f %% of the calls ask what was asked in the minute before and get the same answer, of %.0f bytes: keep it near (x-stile.cache of a policy)", 100*share, each),
	}}
}

// BlockingPoint is a route whose callers wait for it.
type BlockingPoint struct {
	ID string `json:"id"`
	Key
	Callers float64 `json:"callers"` // that wait for it and nothing else, on average
	Share   float64 `json:"share"`   // of the time of those who call it
	Flagged bool    `json:"flagged"` // one caller or more, or half of its time
	Counted bool    `json:"counted"` // no trace tells: what callers did meanwhile is not known, nor the share
}

// blocking returns where callers wait, most first.
func (m *Map) blocking() []BlockingPoint {
	all := []BlockingPoint{}
	window := float64(max(m.last-m.first, 1))
	for k, s := range m.routes {
		b := BlockingPoint{ID: k.ID(), Key: k}
		switch {
		case s.Alone > 0 && s.Callers > 0:
			b.Callers, b.Share = float64(s.Alone)/window, float64(s.Alone)/float64(s.Callers)
		case (s.Roots == 0 || s.Sources&FromStile != 0 && s.Callers == 0) && k.Mode == Sync && s.Client.Count() > 0: // what the callers did meanwhile is not known
			b.Callers, b.Counted = s.Client.Sum()/window, true
		default:
			continue
		}
		b.Flagged = b.Callers >= blockedCallers || b.Share >= blockedShare
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b BlockingPoint) int {
		return cmp.Or(cmp.Compare(b.Callers, a.Callers), cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Readable is a duration for people, of three digits or so.
func Readable(ns int64) string {
	d := time.Duration(ns)
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
