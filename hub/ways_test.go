package hub

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// TestWays: whether something else tells of a route better is what a look at all routes says, while routes come, are known better and are forgotten.
func TestWays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	w, now := newWays(), time.Unix(1e9, 0)
	names := []string{"a", "b", "c"}
	node := func(kinds ...routemap.NodeKind) routemap.Node {
		return routemap.Node{Kind: kinds[r.IntN(len(kinds))], Name: names[r.IntN(len(names))]}
	}
	seen := map[bool]int{}
	for range 5000 {
		now = now.Add(time.Duration(r.IntN(120)) * time.Second)
		from, to := node(routemap.Service), node(routemap.Service, routemap.Service, routemap.External)
		if r.IntN(3) == 0 {
			from = unknownCallers
		}
		w.note(routemap.Key{From: from, To: to, Operation: "p.S/M"}, r.IntN(10) > 0, now)
		w.forget(now)
		for _, name := range append(names, "d") {
			k := measure{client: true, service: name, operation: "p.S/M", peer: node(routemap.Service).Name}
			peer, known := w.whom(&k, directory{}, "")
			asks, serves, callers := false, false, 0
			for _, one := range w.all {
				asks = asks || !one.measured && one.key.From.Name == name && one.key.From.Kind == routemap.Service && (one.key.To == peer || !known || one.key.To.Kind == routemap.External)
				if one.key.To == (routemap.Node{Kind: routemap.Service, Name: name}) {
					serves = serves || !one.measured
					if one.key.From != unknownCallers {
						callers++
					}
				}
			}
			seen[asks]++
			if _, sure, better := w.route(&k, directory{}, nil); better != asks || sure != (asks || known) {
				t.Fatalf("%s calls %s: %v, %v; want %v, %v", name, k.peer, sure, better, known, asks)
			}
			k.client = false
			key, sure, better := w.route(&k, directory{}, nil)
			if better != (serves || callers > 1) || sure != (serves || callers > 0) || !better && sure != (key.From != unknownCallers) {
				t.Fatalf("%s serves: %v, %v; want %v of %d callers", name, sure, better, serves, callers)
			}
		}
	}
	if seen[true] < 1000 || seen[false] < 1000 {
		t.Errorf("too few of a kind: %v", seen)
	}
	w.forget(now.Add(2 * forgetAfter))
	if len(w.all)+len(w.byCaller)+len(w.byCalled) != 0 {
		t.Errorf("%v %v are not forgotten", w.byCaller, w.byCalled)
	}
}

// BenchmarkWays is a window in which metrics tell that a service calls one method at 20,000 peers.
func BenchmarkWays(b *testing.B) {
	now := time.Now()
	a := newAgents(func() time.Time { return now })
	for b.Loop() {
		for i := range maxMeasured {
			a.measured.pending[measure{client: true, service: "s", operation: "o", peer: fmt.Sprint(i), peerKind: routemap.External}] = &measurement{since: now, calls: 1}
		}
		a.measured.draw(routemap.New(), a, true)
		now = now.Add(10 * time.Second)
	}
}
