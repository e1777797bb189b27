package routemap

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/telemetry"
)

// packedVersion is the first byte of what is stored of a route, and of the rest.
const packedVersion = 1

func appendUints(b []byte, all ...uint64) []byte {
	for _, n := range all {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// appendTimes appends ns, which are not negative.
func appendTimes(b []byte, all ...int64) []byte {
	for _, n := range all {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func readTime(r *packed.Reader) int64 {
	u := r.Uint()
	if u > math.MaxInt64 {
		r.Fail()
		return 0
	}
	return int64(u)
}

// readCount reads how many follow, of so many bytes each at least, and no more than a map has.
func readCount(r *packed.Reader, least, most int) int {
	n := r.Count(least)
	if n > most {
		r.Fail()
		return 0
	}
	return n
}

// appendPacked appends all that is known of a route. A field that is new comes at the end, and is read if there is more.
func (s *Stats) appendPacked(b []byte) []byte {
	b = appendUints(append(b, packedVersion), s.Calls, s.Paired, s.Retries, s.Repeats, s.Known, s.Roots, s.Traced, s.Looked, s.Busy, s.sampled, s.Switches, s.Wakes, s.Waits.Calls, s.Carried.Calls, s.Carried.Same,
		s.Carried.Request, s.Carried.RequestRepeated, s.Carried.Response, s.Carried.ResponseRepeated, uint64(s.Sources))
	b = appendTimes(b, s.Critical, s.Through, s.Alone, s.Callers, s.Waits.ClientQueue, s.Waits.Transport, s.Waits.ServerQueue, s.Waits.Handler, s.RunQueue, s.Spin)
	b = appendCounts(b, s.Errors)
	for _, h := range s.histograms() {
		b = h.AppendPacked(b)
	}
	b = appendEvidence(b, s.Evidence)
	b = appendTimes(appendUints(b, uint64(len(s.Samples))), s.Samples...)
	return s.appendLater(b)
}

// appendLater appends what earlier programs did not store.
func (s *Stats) appendLater(b []byte) []byte {
	return s.Open.appendPacked(appendUints(s.Left.AppendPacked(b), s.Decisions.Counts()...))
}

// readLater reads it, if it is there.
func (s *Stats) readLater(r *packed.Reader) {
	s.Open = Open{}
	if r.Len() == 0 {
		s.Left, s.Decisions = telemetry.Histogram{}, Decisions{}
		return
	}
	s.Left.ReadPacked(r)
	for _, n := range s.Decisions.fields() {
		*n = r.Uint()
	}
	if r.Len() > 0 { // later still
		s.Open = Open{Looks: r.Uint(), Time: readTime(r), Seen: r.Uint(), Most: r.Uint()}
	}
}

func (o *Open) appendPacked(b []byte) []byte {
	return appendUints(b, o.Looks, uint64(o.Time), o.Seen, o.Most)
}

// readPacked reads what appendPacked has written, in place of what s has, of which it uses the room; and no more than so many traces that show it.
func (s *Stats) readPacked(data []byte, evidence int) error {
	r := packed.NewReader(data)
	if r.Below(packedVersion+1) != packedVersion {
		r.Fail()
	}
	for _, n := range []*uint64{&s.Calls, &s.Paired, &s.Retries, &s.Repeats, &s.Known, &s.Roots, &s.Traced, &s.Looked, &s.Busy, &s.sampled, &s.Switches, &s.Wakes, &s.Waits.Calls, &s.Carried.Calls, &s.Carried.Same,
		&s.Carried.Request, &s.Carried.RequestRepeated, &s.Carried.Response, &s.Carried.ResponseRepeated} {
		*n = r.Uint()
	}
	s.Sources = Sources(r.Below(1 << len(sourceNames)))
	for _, n := range []*int64{&s.Critical, &s.Through, &s.Alone, &s.Callers, &s.Waits.ClientQueue, &s.Waits.Transport, &s.Waits.ServerQueue, &s.Waits.Handler, &s.RunQueue, &s.Spin} {
		*n = readTime(&r)
	}
	s.Errors = readCounts(&r)
	for _, h := range s.histograms() {
		h.ReadPacked(&r)
	}
	s.Evidence = readEvidence(&r, evidence)
	s.Samples = s.Samples[:0]
	if n := readCount(&r, 1, maxSamples); n > 0 {
		s.Samples = slices.Grow(s.Samples, n)
		for range n {
			s.Samples = append(s.Samples, readTime(&r))
		}
	}
	s.readLater(&r)
	return r.End()
}

func appendCounts(b []byte, counts map[string]uint64) []byte {
	b = appendUints(b, uint64(len(counts)))
	for name, n := range counts {
		b = appendUints(packed.AppendString(b, name), n)
	}
	return b
}

func readCounts(r *packed.Reader) map[string]uint64 {
	n := readCount(r, 2, maxClasses+1)
	if n == 0 {
		return nil
	}
	counts := make(map[string]uint64, n)
	for range n {
		name := r.String()
		counts[name] = r.Uint()
	}
	return counts
}

func appendEvidence(b []byte, all []Evidence) []byte {
	b = appendUints(b, uint64(len(all)))
	for _, e := range all {
		b = binary.LittleEndian.AppendUint64(packed.AppendID(b, e.Trace), uint64(e.Span))
	}
	return b
}

// readEvidence reads what there is, and returns no more than most of it.
func readEvidence(r *packed.Reader, most int) (all []Evidence) {
	for range readCount(r, 9, maxEvidence) {
		if len(all) < most {
			all = append(all, Evidence{r.ID(), SpanHex(r.Uint64())})
			continue
		}
		r.SkipID()
		r.Uint64()
	}
	return all
}

func appendNode(b []byte, n Node) []byte {
	return packed.AppendString(packed.AppendString(b, string(n.Kind)), n.Name)
}

func readNode(r *packed.Reader) Node { return Node{NodeKind(r.String()), r.String()} }

// leastNode is how many bytes a node has, at least.
const leastNode = 2

// appendRest appends the rest of a map: nodes, numbers, paths, records, chains, what stands out.
func (m *Map) appendRest(b []byte) []byte {
	b = appendUints(append(b, packedVersion), uint64(len(m.nodes)))
	for n, s := range m.nodes {
		b = appendTimes(appendUints(appendNode(b, n), s.Spans), s.Critical)
	}
	b = appendCounts(appendUints(b, m.traces, m.whole, m.spans, m.nameless), m.faults)
	b = m.paths.appendPacked(b, some(m.rand, m.paths.kept, storedRecords))
	b = appendUints(b, uint64(len(m.chains)))
	for _, c := range m.chains {
		b = appendUints(packed.AppendString(b, c.Root), c.Traces, c.sum, uint64(c.Depth), uint64(len(c.Steps)))
		for _, s := range c.Steps {
			b = packed.AppendString(b, s)
		}
		b = appendEvidence(b, []Evidence{c.Evidence})
	}
	b = appendUints(b, uint64(len(m.plusOnes)))
	for k, p := range m.plusOnes {
		b = packed.AppendString(packed.AppendString(appendNode(appendNode(b, k.from), k.to), k.operation), k.within)
		b = appendTimes(appendUints(b, p.groups, p.calls, uint64(p.most)), p.took)
		b = appendEvidence(b, p.evidence)
	}
	b = appendHosts(b, m.hosts)
	b = appendUints(b, uint64(len(m.carried)))
	for _, c := range m.carried {
		b = c.appendPacked(b)
	}
	b = appendUints(b, uint64(len(m.follows)))
	for k, f := range m.follows {
		b = f.appendPacked(k.appendPacked(b))
	}
	return m.appendLater(b)
}

// appendLater appends what earlier programs did not store.
func (m *Map) appendLater(b []byte) []byte {
	b = appendCounts(b, m.beyond)
	stand := 0 // nodes that stand for processes
	for _, s := range m.nodes {
		if len(s.seen) > 0 {
			stand++
		}
	}
	b = appendUints(b, uint64(stand))
	for n, s := range m.nodes {
		if len(s.seen) > 0 {
			b = appendUints(appendUints(appendNode(b, n), uint64(len(s.seen))), s.seen...)
		}
	}
	return b
}

// readLater reads it, if it is there.
func (m *Map) readLater(r *packed.Reader) {
	if r.Len() == 0 {
		return
	}
	m.beyond = readCounts(r)
	for range r.Count(leastNode + 2) {
		n, all := readNode(r), []uint64(nil)
		for range readCount(r, 1, maxLeast) {
			all = append(all, r.Uint())
		}
		m.node(n).seen.add(all...)
	}
}

// readRest reads the rest into a map that is empty.
func (m *Map) readRest(data []byte) error {
	r := packed.NewReader(data)
	readNodes(&r, func(n Node, s NodeStats) { m.nodes[n] = &s })
	for _, n := range []*uint64{&m.traces, &m.whole, &m.spans, &m.nameless} {
		*n = r.Uint()
	}
	m.faults = readCounts(&r)
	m.paths.readPacked(&r)
	for range r.Count(6) {
		c := &Chain{Root: r.String(), Traces: r.Uint(), sum: r.Uint(), Depth: r.Below(maxTraceSpans + 1)}
		for range readCount(&r, 1, maxSteps) {
			c.Steps = append(c.Steps, r.String())
		}
		if e := readEvidence(&r, maxEvidence); len(e) == 1 {
			c.Evidence = e[0]
		} else {
			r.Fail()
		}
		m.chains[c.Root] = c
	}
	for range r.Count(2*leastNode + 6) {
		k := plusOneKey{readNode(&r), readNode(&r), r.String(), r.String()}
		m.plusOnes[k] = &plusOne{groups: r.Uint(), calls: r.Uint(), most: r.Below(maxTraceSpans + 1), took: readTime(&r), evidence: readEvidence(&r, maxEvidence)}
	}
	readHosts(&r, m.hosts)
	for range r.Count(2*leastNode + 6) {
		c := readCarried(&r)
		m.carried[chainKey(c.chain)] = c
	}
	for range r.Count(3*leastNode + 10) {
		k := readFollowKey(&r)
		m.follows[k] = readFollow(&r)
	}
	m.readLater(&r)
	return r.End()
}

func readNodes(r *packed.Reader, found func(Node, NodeStats)) {
	if r.Below(packedVersion+1) != packedVersion {
		r.Fail()
	}
	for range r.Count(leastNode + 2) {
		n := readNode(r)
		found(n, NodeStats{Spans: r.Uint(), Critical: readTime(r)})
	}
}

// StoredNodes calls found for each node of the rest of a map, as Store has returned it.
func StoredNodes(rest []byte, found func(Node)) error {
	r := packed.NewReader(rest)
	readNodes(&r, func(n Node, _ NodeStats) { found(n) })
	return r.Err()
}

// appendPacked appends paths, parents before children, and records of them.
func (p *paths) appendPacked(b []byte, records []record) []byte {
	b = appendUints(b, uint64(len(p.names)))
	for _, n := range p.names {
		b = packed.AppendString(b, n)
	}
	b = appendUints(b, uint64(len(p.all)))
	for i, n := range p.all {
		b = appendTimes(appendUints(b, uint64(n.parent+1), uint64(n.label)), p.sums[int32(i)])
		if sum := p.roots[int32(i)]; sum != nil {
			b = appendTimes(appendUints(b, sum.traces+1), sum.duration)
		} else {
			b = appendUints(b, 0)
		}
	}
	b = appendUints(b, p.seen, uint64(len(records)))
	for _, rec := range records {
		b = appendUints(appendTimes(appendUints(b, uint64(rec.root)), rec.duration), uint64(len(rec.parts)))
		for _, of := range rec.parts {
			b = appendTimes(appendUints(b, uint64(of.path)), of.took)
		}
	}
	return b
}

// readPacked reads what was stored, into paths that are empty and are only merged with others then.
func (p *paths) readPacked(r *packed.Reader) {
	for range r.Count(1) {
		p.names = append(p.names, r.String())
	}
	for i := range r.Count(4) {
		p.all = append(p.all, pathNode{parent: int32(r.Below(i+1)) - 1, label: int32(r.Below(len(p.names)))})
		if took := readTime(r); took != 0 {
			p.sums[int32(i)] = took
		}
		if traces := r.Uint(); traces > 0 {
			p.roots[int32(i)] = &rootSum{traces - 1, readTime(r)}
		}
	}
	p.seen = r.Uint()
	for range readCount(r, 3, maxRecords) {
		rec := record{root: int32(r.Below(len(p.all))), duration: readTime(r)}
		for range r.Count(2) {
			rec.parts = append(rec.parts, part{int32(r.Below(len(p.all))), readTime(r)})
		}
		p.kept = append(p.kept, rec)
	}
}
