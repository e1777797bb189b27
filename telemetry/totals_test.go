package telemetry

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// sums are calls of totals, by method, and what else they say of all.
func sums(t *Totals) (calls map[string]uint64, all *Stats) {
	calls, all = map[string]uint64{}, &Stats{}
	t.Each(func(of TotalOf, s *Stats) {
		calls[of.Method] += s.Calls()
		all.Merge(s)
	})
	return calls, all
}

// TestTotalsBesideTaker: who takes and those that sum up have all calls each, and each call once, whoever looks when.
func TestTotalsBesideTaker(t *testing.T) {
	r := enabled()
	first, second := r.Totals(), r.Totals()
	defer first.Close()
	const callers, links, calls = 4, 25, 400
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := range links {
				l := r.Link(Side(n%2), "shm", Peer{PID: n})
				l.Uses(func() Use { return Use{Wakes: calls} })
				for range calls {
					route := l.Route(RouteName{Method: fmt.Sprint("/m/", n%3)})
					route.Record(uint32(i), &Call{Duration: 100, Waited: 10, Far: true, Queued: 20, Handled: 30})
					route.Decide(Retry)
				}
				l.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	taken := &Stats{}
	take := func() {
		for _, one := range r.Take() {
			taken.Merge(one.Stats)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		switch random.IntN(3) {
		case 0:
			take()
		case 1:
			sums(first)
		case 2:
			sums(second)
		}
		runtime.Gosched()
	}
	sums(first)
	take()
	_, one := sums(first)
	_, other := sums(second)
	second.Close()
	_, closed := sums(second)
	const total = callers * links * calls
	for what, s := range map[string]*Stats{"taken": taken, "first": one, "second": other, "second, closed": closed} {
		if s.Calls() != total || s.Duration.Count() != total || s.Waits != (Waits{total, 10 * total, 40 * total, 20 * total, 30 * total}) || s.Decisions[Retry] != total || s.Use.Wakes != total {
			t.Errorf("%s: %d calls of %d, %+v, %v, %d wake-ups", what, s.Calls(), total, s.Waits, s.Decisions, s.Use.Wakes)
		}
	}
	if made, served, _ := r.Counted(); made+served != total {
		t.Errorf("%d calls are counted, there were %d", made+served, total)
	}
	if take(); len(r.Take()) > 0 || len(r.links) > 0 || len(r.untaken) > 0 {
		t.Errorf("%d links and %d routes are held", len(r.links), len(r.untaken))
	}
}

// TestTotalsOpen: how many calls were open is told to who takes as if nobody else looked.
func TestTotalsOpen(t *testing.T) {
	r := enabled()
	totals := r.Totals()
	defer totals.Close()
	l := r.Link(Client, "shm", Peer{})
	l.TellsOpen()
	route := l.Route(RouteName{Method: "/m"})
	route.Record(0, &Call{})
	r.Look(map[*Route]int{route: 3})
	sums(totals)
	l.Close()
	sums(totals) // finds nothing more of a closed link, which still has open calls to tell of
	r.Look(map[*Route]int{route: 1})
	got := &Stats{}
	for _, one := range r.Take() {
		got.Merge(one.Stats)
	}
	if got.Calls() != 1 || got.Open != (Open{Looks: 2, Sum: 4, Most: 3}) {
		t.Errorf("%d calls, %+v", got.Calls(), got.Open)
	}
}

// TestTotalsAlone: while nobody takes, and nobody asks for totals, connections that come and go are not held, and no call of them is missing.
func TestTotalsAlone(t *testing.T) {
	r := NewRecorder()
	totals := r.Totals()
	defer totals.Close()
	const links = 20 * maxClosed
	most := 0
	for n := range links {
		l := r.Link(Server, "unix-stream", Peer{PID: n, Process: Identity{byte(n)}})
		l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
		l.Close()
		l.Close()
		most = max(most, len(r.links))
	}
	if most > 3*maxClosed {
		t.Errorf("%d links were held", most)
	}
	if calls, _ := sums(totals); calls["m"] != links {
		t.Errorf("%v, want %d", calls, links)
	}
}

// TestTotalsBegin: who takes and who sums up know of what was counted since they came, and of it all.
func TestTotalsBegin(t *testing.T) {
	r := enabled()
	l := r.Link(Client, "shm", Peer{Address: "a"})
	call := func() { l.Route(RouteName{Method: "/m"}).Record(0, &Call{}) }
	taken := func() (n uint64) {
		for _, one := range r.Take() {
			n += one.Calls()
		}
		return n
	}
	call()
	totals := r.Totals()
	if calls, _ := sums(totals); calls["m"] != 0 {
		t.Errorf("totals have %v of before", calls)
	}
	call()
	if n := taken(); n != 2 {
		t.Errorf("%d calls were taken of 2", n)
	}
	call()
	r.Disable()
	if l.Closed() || !r.Enabled() {
		t.Error("nothing is counted, though there are totals")
	}
	call()
	r.Event(Event{Kind: "x"})
	r.Enable()
	if events, _ := r.TakeEvents(); len(events) > 0 {
		t.Errorf("%v happened before", events)
	}
	call()
	if n := taken(); n != 1 {
		t.Errorf("%d calls were taken since the second Enable, of 1", n)
	}
	if calls, _ := sums(totals); calls["m"] != 4 {
		t.Errorf("totals have %v of 4", calls)
	}
	totals.Close()
	totals.Close()
	if call(); taken() != 1 {
		t.Error("with the totals, taking has ended")
	}
	r.Disable()
	if !l.Closed() || r.Enabled() || len(r.links) > 0 {
		t.Error("it is counted for nobody")
	}
	if calls, _ := sums(totals); calls["m"] != 4 {
		t.Errorf("closed totals have %v of 4", calls)
	}
	if none := (*Recorder)(nil).Totals(); none != nil {
		t.Error("nil counts")
	}
	(*Totals)(nil).Close()
}

// TestTotalsBounded: names and addresses without end do not fill the memory, and no call is missing.
func TestTotalsBounded(t *testing.T) {
	r := NewRecorder()
	totals := r.Totals()
	defer totals.Close()
	const addresses = 2 * maxTotals
	for n := range addresses {
		l := r.Link(Client, "tcp", Peer{Address: fmt.Sprint(n)})
		l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
		l.Close()
	}
	routes := 0
	totals.Each(func(TotalOf, *Stats) { routes++ })
	calls, _ := sums(totals)
	topic := r.Link(Client, "broker", Peer{Topic: "orders"})
	topic.Route(RouteName{Method: "send orders"}).RecordMessage(0, &Message{})
	messages := uint64(0)
	totals.Each(func(of TotalOf, s *Stats) {
		if of.Topic != "" {
			messages += s.Calls()
		}
	})
	if messages != 1 {
		t.Errorf("%d messages of 1", messages)
	}
	if routes != maxTotals+1 || calls["m"]+calls[OtherMethod] != addresses {
		t.Errorf("%d routes, %v", routes, calls)
	}
}
