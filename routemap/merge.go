package routemap

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// Merge adds what another map knows, which is as if its traces had been added; of what is sampled, a sample of both. It shares nothing with it then.
func (m *Map) Merge(o *Map) {
	for _, k := range inOrder(o.routes) {
		m.route(k).merge(m.rand, o.routes[k])
	}
	m.mergeRest(o)
}

// inOrder are routes' keys, in an order of their own: what is drawn of samples is the same then for the same maps.
func inOrder(routes map[Key]*Stats) []Key { return slices.SortedFunc(maps.Keys(routes), Key.compare) }

// Absorb merges a map that nobody uses any more, which costs less.
func (m *Map) Absorb(o *Map) {
	for _, k := range inOrder(o.routes) {
		if m.routes[k] == nil {
			m.routes[k] = o.routes[k]
		} else {
			m.route(k).merge(m.rand, o.routes[k])
		}
	}
	m.mergeRest(o)
}

func (m *Map) mergeRest(o *Map) {
	if m.folded == nil && len(o.folded) > 0 {
		m.folded = map[Key]Key{}
	}
	maps.Copy(m.folded, o.folded)
	m.traces, m.whole, m.spans, m.nameless = m.traces+o.traces, m.whole+o.whole, m.spans+o.spans, m.nameless+o.nameless
	for name, n := range o.faults {
		m.faults[name] += n
	}
	m.extend(o.first, o.last)
	for n, s := range o.nodes {
		m.node(n).merge(s)
	}
	for name, of := range o.hosts {
		m.host(name).merge(of)
	}
	m.paths.merge(m.rand, &o.paths)
	for _, c := range o.chains {
		m.chain(c.Root).merge(c)
	}
	for k, p := range o.plusOnes {
		m.plusOne(k).merge(p)
	}
	for _, c := range o.carried {
		m.carriedBy(slices.Clone(c.chain)).merge(c)
	}
	for k, f := range o.follows {
		m.follow(k).merge(f)
	}
	for what, n := range o.beyond {
		m.fell(what, n)
	}
	m.fit(false)
}

// extend widens the time that the map is of.
func (m *Map) extend(first, last int64) {
	if m.fixed {
		return
	}
	if first != 0 && (m.first == 0 || first < m.first) {
		m.first = first
	}
	m.last = max(m.last, last)
}

// Merge adds what other has.
func (s *Stats) Merge(other *Stats) { s.merge(nil, other) }

// merge is Merge, where there are samples to choose from.
func (s *Stats) merge(r *rand.Rand, other *Stats) {
	s.Calls, s.Paired, s.Retries = s.Calls+other.Calls, s.Paired+other.Paired, s.Retries+other.Retries
	s.Critical, s.Through, s.Alone, s.Callers = plus(s.Critical, other.Critical), plus(s.Through, other.Through), plus(s.Alone, other.Alone), plus(s.Callers, other.Callers)
	s.Repeats, s.Known, s.Roots, s.Busy = s.Repeats+other.Repeats, s.Known+other.Known, s.Roots+other.Roots, s.Busy+other.Busy
	for _, class := range slices.Sorted(maps.Keys(other.Errors)) { // there may be no room for the last ones
		s.failN(class, other.Errors[class])
	}
	s.Client.Merge(&other.Client)
	s.Server.Merge(&other.Server)
	s.Failures.Merge(&other.Failures)
	s.Gap.Merge(&other.Gap)
	s.Queue.Merge(&other.Queue)
	s.Waits.merge(&other.Waits)
	s.Carried.merge(&other.Carried)
	s.Traced, s.Looked = s.Traced+other.Traced, s.Looked+other.Looked
	s.Switches, s.Wakes, s.Spin, s.RunQueue = s.Switches+other.Switches, s.Wakes+other.Wakes, plus(s.Spin, other.Spin), plus(s.RunQueue, other.RunQueue)
	s.Sources |= other.Sources
	s.Request.Merge(&other.Request)
	s.Response.Merge(&other.Response)
	s.Left.Merge(&other.Left)
	s.Decisions.merge(&other.Decisions)
	s.Open.merge(&other.Open)
	s.Evidence = evidence(s.Evidence, other.Evidence)
	s.Samples = mixed(r, s.Samples, s.sampled, other.Samples, other.sampled, maxSamples)
	s.sampled += other.sampled
}

func evidence(a, b []Evidence) []Evidence {
	return append(a, b[:min(len(b), maxEvidence-len(a))]...)
}

// mixed makes of two samples, which stand for na and nb things, one in which each of all is as likely as any other, of most at most. It uses a's room.
func mixed[T any](r *rand.Rand, a []T, na uint64, b []T, nb uint64, most int) []T {
	switch {
	case nb == 0 || len(b) == 0:
		return a
	case na == 0 || len(a) == 0:
		return some(r, b, most)
	}
	share := float64(na) / float64(na+nb)
	n := min(float64(most), float64(len(a))/share, float64(len(b))/(1-share))
	fromA := min(int(n*share+r.Float64()), len(a), most)
	fromB := min(max(int(n+r.Float64())-fromA, 0), len(b), most-fromA)
	return append(thinned(r, a, fromA), some(r, b, fromB)...)
}

// some draws n of a sample, or takes all if there are no more.
func some[T any](r *rand.Rand, all []T, n int) []T {
	out := slices.Clone(all)
	if n >= len(out) {
		return out
	}
	for i := range n {
		j := i + r.IntN(len(out)-i)
		out[i], out[j] = out[j], out[i]
	}
	return slices.Clip(out[:n])
}

// thinned leaves n of a sample, or all if there are no more.
func thinned[T any](r *rand.Rand, all []T, n int) []T {
	for last := len(all) - 1; last >= max(n, 0); last-- {
		all[r.IntN(last+1)] = all[last]
	}
	return all[:min(len(all), max(n, 0))]
}

func (p *paths) merge(r *rand.Rand, o *paths) {
	ours := make([]int32, len(o.all)) // by the other's number
	for i, n := range o.all {
		parent := int32(-1)
		if n.parent >= 0 {
			parent = ours[n.parent]
		}
		ours[i] = p.id(parent, o.names[n.label])
	}
	p.add(r, o, ours)
}

// add adds what was spent on others, each of which is one of ours.
func (p *paths) add(r *rand.Rand, o *paths, ours []int32) {
	p.cut += o.cut
	for path, took := range o.sums {
		p.sums[ours[path]] = plus(p.sums[ours[path]], took)
	}
	for path, sum := range o.roots {
		to := p.root(ours[path])
		to.traces, to.duration = to.traces+sum.traces, plus(to.duration, sum.duration)
	}
	theirs := make([]record, len(o.kept))
	for i, rec := range o.kept {
		theirs[i] = record{ours[rec.root], rec.duration, make([]part, len(rec.parts))}
		for j, part := range rec.parts {
			part.path = ours[part.path]
			theirs[i].parts[j] = part
		}
		slices.SortFunc(theirs[i].parts, func(a, b part) int { return cmp.Compare(a.path, b.path) })
	}
	p.kept = mixed(r, p.kept, p.seen, theirs, o.seen, maxRecords)
	p.seen += o.seen
}

func (c *Chain) merge(o *Chain) {
	if c.Traces, c.sum = c.Traces+o.Traces, c.sum+o.sum; o.Depth > c.Depth {
		c.Depth, c.Evidence, c.Steps = o.Depth, o.Evidence, slices.Clone(o.Steps)
	}
}

func (p *plusOne) merge(o *plusOne) {
	p.groups, p.calls, p.most, p.took = p.groups+o.groups, p.calls+o.calls, max(p.most, o.most), plus(p.took, o.took)
	p.evidence = evidence(p.evidence, o.evidence)
}
