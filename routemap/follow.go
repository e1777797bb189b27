package routemap

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// step is a call as its handler sees it.
type step struct {
	to        Node
	operation string
}

// followKey is who makes a call, and after which other one. Without a first it is about who needs the answer.
type followKey struct {
	from        Node
	within      string // the handler's operation
	first, last step
}

// follow is how often that was so, in traces that were looked at.
type follow struct {
	seen     uint64 // calls whose bodies were looked at
	used     uint64 // of them, those that used an answer, or whose answer was used
	against  uint64 // other counter-examples
	groups   uint64 // handlers that show it
	first    int64  // ns, in these: of the first call
	last     int64  // of the last call
	saved    int64  // that it would be less
	handlers int64  // of the handlers
	evidence []Evidence
}

func (m *Map) addFollows(v *view) {
	v.follows(func(k followKey, f *follow) { m.follow(k).merge(f) })
}

// follows looks how the calls of each handler follow each other, and who needs their answers.
func (v *view) follows(found func(followKey, *follow)) {
	made, looked := map[int][]int{}, false
	for i := range v.calls {
		c := &v.calls[i]
		if c.client < 0 || c.again {
			continue
		}
		if h := v.handler(c.client); h >= 0 {
			made[h] = append(made[h], i)
			looked = looked || v.nodes[c.client].asked != nil
		}
	}
	if !looked {
		return
	}
	for h := range v.nodes {
		if calls := made[h]; len(calls) > 0 {
			slices.SortFunc(calls, func(a, b int) int { return v.byStart(v.calls[a].client, v.calls[b].client) })
			v.pairs(h, calls, found)
			v.answers(h, calls, found)
		}
	}
}

// handler is the span that made a call, whatever its service calls its parts; -1: none is known.
func (v *view) handler(client int) int {
	p := v.nodes[client].parent
	for range maxParts {
		switch {
		case p < 0 || v.nodes[p].Service != v.nodes[client].Service:
			return -1
		case v.nodes[p].Kind != Internal:
			return p
		}
		p = v.nodes[p].parent
	}
	return -1
}

// waited reports whether who made a call waited for it.
func (v *view) waited(c *call) bool { return c.key.Mode == Sync && !v.nodes[c.client].async }

func (c *call) step() step { return step{c.key.To, c.key.Operation} }

// pairs are a handler's calls one after the other, of each operation the first one.
func (v *view) pairs(h int, calls []int, found func(followKey, *follow)) {
	n := &v.nodes[h]
	had := map[step]bool{}
	fresh := make([]bool, len(calls)) // the first of its operation
	until := int64(math.MinInt64)
	for j, i := range calls {
		c := &v.calls[i]
		at, key := &v.nodes[c.client], followKey{from: v.self(h), within: operation(n.Span), last: c.step()}
		fresh[j] = !had[c.step()]
		had[c.step()] = true
		for _, e := range calls[max(j-overlapsBack, 0):j] {
			if o := &v.calls[e]; v.nodes[o.client].end > at.start && o.step() != c.step() && v.waited(o) && v.waited(c) {
				key.first = o.step()
				found(key, &follow{against: 1})
				found(followKey{key.from, key.within, key.last, key.first}, &follow{against: 1})
			}
		}
		if j > 0 && fresh[j] && fresh[j-1] && at.start >= until {
			before := &v.calls[calls[j-1]]
			if a := &v.nodes[before.client]; v.waited(before) && v.waited(c) && a.looked() && at.looked() {
				key.first = before.step()
				found(key, v.pair(n, a, at))
			}
		}
		until = max(until, at.end)
	}
}

func (n *node) looked() bool { return n.asked != nil && n.asked.Looked }

func (v *view) pair(handler, first, last *node) *follow {
	if slices.Contains(last.asked.Uses, first.ID) {
		return &follow{seen: 1, used: 1}
	}
	took, then := first.end-first.start, last.end-last.start
	return &follow{seen: 1, groups: 1, first: took, last: then, saved: min(took, then), handlers: handler.end - handler.start, evidence: []Evidence{{v.ID, SpanHex(handler.ID)}}}
}

// answers is whether somebody needs the answers of a handler's calls.
func (v *view) answers(h int, calls []int, found func(followKey, *follow)) {
	n := &v.nodes[h]
	until := int64(math.MinInt64)
	for j, i := range calls {
		c := &v.calls[i]
		at := &v.nodes[c.client]
		key := followKey{from: v.self(h), within: operation(n.Span), last: c.step()}
		switch {
		case at.Class != "" && n.Class != "" && n.Class != ClassCancel && n.Class != ClassTimeout:
			found(key, &follow{against: 1})
		case !at.looked():
		case at.asked.Used:
			found(key, &follow{seen: 1, used: 1})
		case j == 0 || j < len(calls)-1 || at.start < until || !v.waited(c):
			found(key, &follow{seen: 1})
		default:
			took := at.end - at.start
			found(key, &follow{seen: 1, groups: 1, last: took, saved: took, handlers: n.end - n.start, evidence: []Evidence{{v.ID, SpanHex(at.ID)}}})
		}
		until = max(until, at.end)
	}
}

// follow returns what is known.
func (m *Map) follow(k followKey) *follow { return made(m.follows, k) }

func (f *follow) merge(o *follow) {
	f.seen, f.used, f.against, f.groups = f.seen+o.seen, f.used+o.used, f.against+o.against, f.groups+o.groups
	f.first, f.last, f.saved, f.handlers = plus(f.first, o.first), plus(f.last, o.last), plus(f.saved, o.saved), plus(f.handlers, o.handlers)
	f.evidence = evidence(f.evidence, o.evidence)
}

// settleFollows takes those for services that are known to be some.
func (m *Map) settleFollows() {
	for _, k := range slices.SortedFunc(maps.Keys(m.follows), followKey.compare) {
		f, settled := m.follows[k], k
		for _, s := range []*step{&settled.first, &settled.last} {
			if to, is := m.service(s.to); is {
				s.to = to
			}
		}
		if settled != k {
			delete(m.follows, k)
			m.follow(settled).merge(f)
		}
	}
}

// shows reports whether it was often so, never otherwise, and long enough.
func (f *follow) shows() bool {
	return f.groups >= followGroups && !f.disproved() && float64(f.last) >= followShare*float64(f.handlers)
}

// disproved reports whether there are counter-examples.
func (f *follow) disproved() bool {
	return f.against > 0 || float64(f.used) > followCoincidence*float64(f.seen)
}

// foundFollows is what stands out. A call whose answer nobody needs is not told of as the second of a pair, too.
func (m *Map) foundFollows() (all []Finding) {
	for k, f := range m.follows {
		if !f.shows() {
			continue
		}
		pair := k.first != step{}
		alone := k
		alone.first = step{}
		if o := m.follows[alone]; pair && (float64(f.first) < followShare*float64(f.handlers) || o != nil && o.shows()) {
			continue
		}
		n := int64(f.groups)
		found := Finding{
			Kind: Unused, From: k.from, To: k.last.to, Operation: k.last.operation, Within: k.within, Cost: f.saved, Evidence: f.evidence,
			Values: map[string]float64{"groups": float64(n), "ms": float64(f.saved) / float64(n) / 1e6, "share": float64(f.saved) / float64(max(f.handlers, 1))},
			Text: fmt.Sprintf("%s waits for %s at its end, and nothing of the answer was seen to be used, in %d of its calls, %s each time: answer first, or leave it to a queue. Suspected: it is not known whether its failure matters",
				k.within, k.last.operation, n, Readable(f.saved/n)),
		}
		if pair {
			found.Kind, found.Steps = Serial, []string{k.first.operation, k.last.operation}
			found.Text = fmt.Sprintf("%s waits for %s before it calls %s, and was not seen to ask with anything of the answer, in %d of its calls: both at once would take %s less. Suspected: it is not known whether the answer decides if the second call is made, nor what is computed of it",
				k.within, k.first.operation, k.last.operation, n, Readable(f.saved/n))
		}
		all = append(all, found)
	}
	return all
}
