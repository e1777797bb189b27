package routemap

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bodies is what a process has seen of messages as they were on the wire.
type Bodies struct {
	Request  []Blob // of the call, as is Response
	Response []Blob
	Asked    []Asked // the calls that its handler made
}

// Blob is a piece of a body, of 1 KiB or more.
type Blob struct {
	Hash [16]byte // the same wherever the trace has the same bytes
	Size int64
}

// Asked is a call that a handler made, and what came of its answer.
type Asked struct {
	Span   uint64   // at its client
	Looked bool     // at all of its request and its answer: else the rest says little
	Uses   []uint64 // the handler's earlier calls, by span, of whose answers something is in the request
	Used   bool     // something of its answer is in a later request or in the handler's answer, or that cannot be known
}

// What they take, in bytes.
const (
	blobBytes  = 24
	askedBytes = 48 // without Uses, of 8 each
)

// bytes is how many it takes, about.
func (b *Bodies) bytes() (n int) {
	if b == nil {
		return 0
	}
	n = (len(b.Request)+len(b.Response))*blobBytes + len(b.Asked)*askedBytes
	for i := range b.Asked {
		n += 8 * len(b.Asked[i].Uses)
	}
	return n
}

// takeNotes takes out what is only told of others' spans.
func takeNotes(spans []Span) (rest, notes []Span) {
	rest = spans[:0]
	for _, s := range spans {
		if s.Note {
			notes = append(notes, s)
		} else {
			rest = append(rest, s)
		}
	}
	return rest, notes
}

// putBodies gives spans what was seen of them elsewhere: blobs by notes, and by handlers what came of the answers.
func (t *Trace) putBodies(notes []Span) {
	ask := func(b *Bodies) {
		for i := range b.Asked {
			if at, known := t.byID[b.Asked[i].Span]; known && t.nodes[at].asked == nil {
				t.nodes[at].asked = &b.Asked[i]
			}
		}
	}
	for _, n := range notes {
		if n.Bodies == nil {
			continue
		}
		ask(n.Bodies)
		if i, known := t.byID[n.ID]; known && (t.nodes[i].Bodies == nil || len(t.nodes[i].Bodies.Request)+len(t.nodes[i].Bodies.Response) == 0) {
			t.nodes[i].Bodies = n.Bodies
		}
	}
	for i := range t.nodes {
		if b := t.nodes[i].Bodies; b != nil {
			ask(b)
		}
	}
}

// bodies is what is known of a call's; nil: nobody has looked.
func (v *view) bodies(c *call) *Bodies {
	for _, side := range []int{c.client, c.server} {
		if side >= 0 && v.nodes[side].Bodies != nil {
			return v.nodes[side].Bodies
		}
	}
	return nil
}

// hop is a route on which a blob went, whatever the way.
type hop struct {
	from, to  Node
	operation string
	answer    bool // not the request
}

func (h hop) String() string {
	way := ""
	if h.answer {
		way = " (answer)"
	}
	return fmt.Sprintf("%s → %s %s%s", h.from, h.to, h.operation, way)
}

// route is the hop, whichever way the bytes go.
func (h hop) route() hop {
	h.answer = false
	return h
}

// carried is what went on the same routes in a trace.
type carried struct {
	chain    []hop // in order of time
	traces   uint64
	bytes    uint64
	evidence []Evidence
}

// chainKey names the routes of a chain, in whatever order and direction they were seen.
func chainKey(chain []hop) string {
	var names []string
	for _, h := range chain {
		h.answer = false
		names = append(names, h.String())
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

func compareChains(a, b []hop) int {
	return slices.CompareFunc(a, b, func(x, y hop) int { return cmp.Compare(x.String(), y.String()) })
}

// sighting is a blob on a route.
type sighting struct {
	hop
	at   int64
	span int
}

// compare puts sightings in order of time. Names are made only where nothing else decides: a trace may have thousands of one moment.
func (s sighting) compare(o sighting) int {
	if c := cmp.Or(cmp.Compare(s.at, o.at), cmp.Compare(s.span, o.span)); c != 0 {
		return c
	}
	return cmp.Compare(s.hop.String(), o.hop.String())
}

func (m *Map) addCarried(v *view) {
	looked := map[Key]bool{}
	for i := range v.calls {
		c := &v.calls[i]
		if v.bodies(c) != nil && !looked[c.key] {
			looked[c.key] = true
			m.route(c.key).Looked++
		}
	}
	v.carried(func(c *carried) { m.carriedBy(c.chain).merge(c) })
	m.fell(FoldedBlobs, v.unseen)
}

// carried finds the blobs that go on two routes or more, by these.
func (v *view) carried(found func(*carried)) {
	seen, sizes := v.sightings()
	chains := map[string]*carried{}
	for hash, all := range seen {
		if len(all) < 2 {
			continue
		}
		slices.SortFunc(all, sighting.compare)
		var chain []hop
		last := 0
		for _, s := range all {
			same := slices.ContainsFunc(chain, func(h hop) bool { return h.from == s.from && h.to == s.to && h.operation == s.operation })
			if !same && len(chain) < maxHops {
				chain, last = append(chain, s.hop), s.span
			}
		}
		if len(chain) < carriedRoutes {
			continue
		}
		key := chainKey(chain)
		c := chains[key]
		if c == nil {
			c = &carried{chain: chain, traces: 1, evidence: []Evidence{{v.ID, SpanHex(v.nodes[last].ID)}}}
			chains[key] = c
		}
		if c.bytes += uint64(len(all)) * uint64(sizes[hash]); compareChains(chain, c.chain) < 0 {
			c.chain = chain
		}
	}
	for _, c := range chains {
		found(c)
	}
}

// sightings is where each blob was seen, and how long it is.
func (v *view) sightings() (seen map[[16]byte][]sighting, sizes map[[16]byte]int64) {
	for i := range v.calls {
		c := &v.calls[i]
		b := v.bodies(c)
		if b == nil || c.again || len(b.Request)+len(b.Response) == 0 {
			continue
		}
		if seen == nil {
			seen, sizes = map[[16]byte][]sighting{}, map[[16]byte]int64{}
		}
		waits := &v.nodes[c.waits()]
		for answer, blobs := range map[bool][]Blob{false: b.Request, true: b.Response} {
			at := waits.start
			if answer {
				at = waits.end
			}
			for _, blob := range blobs {
				if len(seen) >= maxBlobs && seen[blob.Hash] == nil {
					v.unseen++
					continue
				}
				seen[blob.Hash] = append(seen[blob.Hash], sighting{hop{c.key.From, c.key.To, c.key.Operation, answer}, at, c.waits()})
				sizes[blob.Hash] = blob.Size
			}
		}
	}
	return seen, sizes
}

// carriedBy returns what is known of a chain.
func (m *Map) carriedBy(chain []hop) *carried {
	c := made(m.carried, chainKey(chain))
	if len(c.chain) == 0 {
		c.chain = chain
	}
	return c
}

func (c *carried) merge(o *carried) {
	c.traces, c.bytes = c.traces+o.traces, c.bytes+o.bytes
	if len(c.chain) == 0 || compareChains(o.chain, c.chain) < 0 {
		c.chain = slices.Clone(o.chain)
	}
	c.evidence = evidence(c.evidence, o.evidence)
}

// settleCarried takes those for services that are known to be some.
func (m *Map) settleCarried() {
	for _, key := range slices.Sorted(maps.Keys(m.carried)) {
		c := m.carried[key]
		settled := slices.Clone(c.chain)
		for i := range settled {
			if to, is := m.service(settled[i].to); is {
				settled[i].to = to
			}
		}
		if !slices.Equal(settled, c.chain) {
			delete(m.carried, key)
			c.chain = settled
			m.carriedBy(settled).merge(c)
		}
	}
}

// maxCarriedFound is how many chains are looked at, those with the most bytes: each is compared with all others.
const maxCarriedFound = 300

// foundCarried are the chains that stand out, but for those that are parts of others, and how many were not looked at.
func (m *Map) foundCarried() (all []Finding, left int) {
	looked := m.lookedAt()
	var long []*carried
	keys, shares := map[*carried]string{}, map[*carried]float64{}
	for key, c := range m.carried {
		of := max(c.traces, looked[c.chain[len(c.chain)-1].route()])
		if share := float64(c.traces) / float64(of); c.traces >= carriedTraces && share >= carriedShare {
			long = append(long, c)
			keys[c], shares[c] = key, share
		}
	}
	slices.SortFunc(long, func(a, b *carried) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(keys[a], keys[b]))
	})
	left = max(len(long)-maxCarriedFound, 0)
	long = long[:len(long)-left]
	slices.SortStableFunc(long, func(a, b *carried) int { return cmp.Compare(len(b.chain), len(a.chain)) })
	for i, c := range long {
		if slices.ContainsFunc(long[:i], func(o *carried) bool { return c.partOf(o) }) {
			continue
		}
		last, each := c.chain[len(c.chain)-1], float64(c.bytes)/float64(c.traces)
		f := Finding{
			Kind: CarriedOn, From: last.from, To: last.to, Operation: last.operation, Evidence: c.evidence,
			Values: map[string]float64{"traces": float64(c.traces), "routes": float64(len(c.chain)), "bytes": each, "share": shares[c]},
		}
		for _, h := range c.chain {
			f.Steps = append(f.Steps, h.String())
		}
		f.Text = fmt.Sprintf("the same bytes go over %d routes of a trace, %.0f bytes in all, in %d traces (%.0f %% of those that have the last route): %s. Send where they are, and let who needs them ask",
			len(c.chain), each, c.traces, 100*shares[c], strings.Join(f.Steps, ", "))
		all = append(all, f)
	}
	return all, left
}

// lookedAt is how many of the traces with a route were looked at, at its messages.
func (m *Map) lookedAt() map[hop]uint64 {
	all := map[hop]uint64{}
	for k, s := range m.routes {
		h := hop{from: k.From, to: k.To, operation: k.Operation}
		all[h] = max(all[h], s.Looked)
	}
	return all
}

// partOf reports whether another chain has all of these routes, and not much less often.
func (c *carried) partOf(o *carried) bool {
	if len(c.chain) >= len(o.chain) || c.traces > 2*o.traces {
		return false
	}
	for _, h := range c.chain {
		if !slices.ContainsFunc(o.chain, func(x hop) bool { return x.from == h.from && x.to == h.to && x.operation == h.operation }) {
			return false
		}
	}
	return true
}
