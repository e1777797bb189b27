package routemap

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// What is beyond a map's bounds, in [Report.Folded].
const (
	FoldedRoutes   = "routes"
	FoldedNodes    = "nodes"
	FoldedHosts    = "hosts"
	FoldedPaths    = "paths"
	FoldedSteps    = "steps of paths"
	FoldedChains   = "root operations"
	FoldedPlusOnes = PlusOne
	FoldedCarried  = CarriedOn
	FoldedBlobs    = "bodies' pieces"
	FoldedFollows  = Serial + " and " + Unused
)

// entry is one of what a map tells apart.
type entry[K comparable, V any] struct {
	key K
	of  V
}

// held is how many of what a map tells apart it holds. That is an eighth more than it shows, so that they are not compared each time that one comes, and one that came late may have
// become one of those that cost most.
func held(most int, shown bool) int {
	if shown {
		return most
	}
	return most + most/8
}

// fold takes out what comes last by an order, beyond most, if a map holds too many, and calls into with it. What stands for others stays.
func fold[K comparable, V any](m *Map, what string, all map[K]V, most int, shown bool, rest func(K, V) bool, order func(a, b entry[K, V]) int, into func(K, V)) {
	if len(all) <= held(most, shown) {
		return
	}
	sorted := make([]entry[K, V], 0, len(all))
	for k, v := range all {
		if !rest(k, v) {
			sorted = append(sorted, entry[K, V]{k, v})
		}
	}
	if len(sorted) <= most {
		return
	}
	slices.SortFunc(sorted, order)
	for _, e := range sorted[most:] {
		delete(all, e.key)
	}
	for _, e := range sorted[most:] {
		into(e.key, e.of)
	}
	m.fell(what, uint64(len(sorted)-most))
}

// fell counts what was beyond a bound.
func (m *Map) fell(what string, n uint64) {
	if n == 0 {
		return
	}
	if m.beyond == nil {
		m.beyond = map[string]uint64{}
	}
	m.beyond[what] += n
}

// fit folds what is beyond the map's bounds; shown, all that is.
func (m *Map) fit(shown bool) {
	m.fitRoutes(shown)
	fold(m, FoldedNodes, m.nodes, maxNodes, shown, func(n Node, _ *NodeStats) bool { return n.Name == other }, costlierNode, func(n Node, s *NodeStats) { m.node(Node{n.Kind, other}).merge(s) })
	fold(m, FoldedHosts, m.hosts, maxHosts, shown, isOther[*Others], worseHost, func(_ string, o *Others) { m.host(other).merge(o) })
	fold(m, FoldedChains, m.chains, maxNotable, shown, isOther[*Chain], deeperChain, func(_ string, c *Chain) { m.chain(other).merge(c) })
	fold(m, FoldedPlusOnes, m.plusOnes, maxNotable, shown, func(k plusOneKey, _ *plusOne) bool { return k == otherPlusOne }, costlierPlusOne, func(_ plusOneKey, p *plusOne) { m.plusOne(otherPlusOne).merge(p) })
	fold(m, FoldedCarried, m.carried, maxNotable, shown, func(string, *carried) bool { return false }, largerCarried, func(string, *carried) {})
	m.fitFollows(shown)
	m.fell(FoldedPaths, m.paths.fit(m.rand, shown))
	m.fell(FoldedSteps, m.paths.cut)
	m.paths.cut = 0
}

func (m *Map) fitRoutes(shown bool) {
	before := len(m.routes)
	fold(m, FoldedRoutes, m.routes, maxRoutes, shown, func(k Key, _ *Stats) bool { return k == otherRoute(k.Mode) }, costlierRoute, func(k Key, s *Stats) { m.route(otherRoute(k.Mode)).merge(m.rand, s) })
	if len(m.routes) < before {
		maps.DeleteFunc(m.folded, func(_, to Key) bool { return m.routes[to] == nil })
	}
}

// fitFollows has room for as many that show something as for those that do not: without the latter they would be found.
func (m *Map) fitFollows(shown bool) {
	if len(m.follows) <= held(2*maxNotable, shown) {
		return
	}
	gone := func(followKey, *follow) {}
	fold(m, FoldedFollows, m.follows, maxNotable, true, func(_ followKey, f *follow) bool { return f.disproved() }, moreSaved, gone)
	fold(m, FoldedFollows, m.follows, maxNotable, true, func(_ followKey, f *follow) bool { return !f.disproved() }, moreSeen, gone)
}

// Folded is how much was beyond the map's bounds, by what it was.
func (m *Map) Folded() map[string]uint64 {
	all := map[string]uint64{}
	maps.Copy(all, m.beyond)
	return all
}

func isOther[V any](name string, _ V) bool { return name == other }

// otherRoute stands for routes of a mode.
func otherRoute(mode Mode) Key {
	return Key{From: Node{Service, other}, To: Node{Service, other}, Operation: other, Mode: mode}
}

// otherPlusOne stands for calls in a row of any.
var otherPlusOne = plusOneKey{Node{Service, other}, Node{Service, other}, other, other}

// The orders in which what a map tells apart is kept: the costliest first, as it is shown.

func costlierRoute(a, b entry[Key, *Stats]) int {
	x, y := Route{a.key, a.of}, Route{b.key, b.of}
	if c := cmp.Or(cmp.Compare(y.Cost(), x.Cost()), cmp.Compare(y.Calls, x.Calls)); c != 0 {
		return c
	}
	return a.key.compare(b.key)
}

func (k Key) compare(o Key) int {
	return cmp.Or(k.From.compare(o.From), k.To.compare(o.To), cmp.Compare(k.Operation, o.Operation), cmp.Compare(k.Transport, o.Transport), cmp.Compare(k.Mode, o.Mode))
}

func (n Node) compare(o Node) int {
	return cmp.Or(cmp.Compare(n.Name, o.Name), cmp.Compare(n.Kind, o.Kind))
}

func costlierNode(a, b entry[Node, *NodeStats]) int {
	return cmp.Or(cmp.Compare(b.of.Critical, a.of.Critical), cmp.Compare(b.of.Spans, a.of.Spans), a.key.compare(b.key))
}

func worseHost(a, b entry[string, *Others]) int {
	return cmp.Or(cmp.Compare(b.of.Contaminated, a.of.Contaminated), cmp.Compare(b.of.Windows, a.of.Windows), cmp.Compare(a.key, b.key))
}

func deeperChain(a, b entry[string, *Chain]) int {
	return cmp.Or(cmp.Compare(b.of.Depth, a.of.Depth), cmp.Compare(b.of.Traces, a.of.Traces), cmp.Compare(a.key, b.key))
}

func costlierPlusOne(a, b entry[plusOneKey, *plusOne]) int {
	return cmp.Or(cmp.Compare(b.of.took, a.of.took), a.key.from.compare(b.key.from), a.key.to.compare(b.key.to), cmp.Compare(a.key.operation, b.key.operation), cmp.Compare(a.key.within, b.key.within))
}

func largerCarried(a, b entry[string, *carried]) int {
	return cmp.Or(cmp.Compare(b.of.bytes, a.of.bytes), cmp.Compare(b.of.traces, a.of.traces), cmp.Compare(a.key, b.key))
}

func moreSaved(a, b entry[followKey, *follow]) int {
	return cmp.Or(cmp.Compare(b.of.saved, a.of.saved), a.key.compare(b.key))
}

func moreSeen(a, b entry[followKey, *follow]) int {
	return cmp.Or(cmp.Compare(b.of.seen, a.of.seen), cmp.Compare(b.of.against, a.of.against), a.key.compare(b.key))
}

func (k followKey) compare(o followKey) int {
	return cmp.Or(k.from.compare(o.from), cmp.Compare(k.within, o.within), k.first.compare(o.first), k.last.compare(o.last))
}

func (s step) compare(o step) int {
	return cmp.Or(s.to.compare(o.to), cmp.Compare(s.operation, o.operation))
}

// fit folds the paths on which the least was spent, with what is below them, into those above them, if there are too many, and returns how many. Roots become one, other.
func (p *paths) fit(r *rand.Rand, shown bool) uint64 {
	if len(p.all) <= held(maxPaths, shown) {
		return 0
	}
	spent := make([]int64, len(p.all)) // there and below
	for i, n := range slices.Backward(p.all) {
		if spent[i] = plus(spent[i], p.sums[int32(i)]); n.parent >= 0 {
			spent[n.parent] = plus(spent[n.parent], spent[i])
		}
	}
	order := make([]int32, len(p.all))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(spent[b], spent[a]), cmp.Compare(a, b)) }) // parents before children
	gone := order[maxPaths-1:]                                                                                         // other is one, too
	folds := make([]bool, len(p.all))
	for _, i := range gone {
		folds[i] = true
	}
	fresh := newPaths()
	at := make([]int32, len(p.all))
	for i, n := range p.all {
		parent, label := int32(-1), p.names[n.label]
		if n.parent >= 0 {
			parent = at[n.parent]
		}
		switch {
		case !folds[i]:
			at[i] = fresh.id(parent, label)
		case parent >= 0:
			at[i] = parent
		default:
			at[i] = fresh.id(-1, other)
		}
	}
	fresh.add(r, p, at)
	*p = fresh
	return uint64(len(gone))
}
