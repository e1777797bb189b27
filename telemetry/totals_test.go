package telemetry

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// sums are calls of totals, by method, and what else they say of all.
func sums(t *Totals) (calls map[string]uint64, all *Total) {
	calls, all = map[string]uint64{}, &Total{}
	t.Each(func(of TotalOf, s *Total) {
		calls[of.Method] += s.Calls()
		for code, n := range s.Codes {
			all.Codes[code] += n
		}
		all.Duration.Merge(&s.Duration)
		all.Waits.add(&s.Waits)
		all.Use.Wakes += s.Use.Wakes
		all.Decisions.add(&s.Decisions)
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
	taken := &Total{}
	take := func() {
		for _, one := range r.Take() {
			taken.add(&one)
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
	for what, s := range map[string]*Total{"taken": taken, "first": one, "second": other, "second, closed": closed} {
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
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		totals := r.Totals()
		defer totals.Close()
		const links = 20 * maxClosed
		for n := range links {
			l := r.Link(Server, "unix-stream", Peer{PID: n, Process: Identity{byte(n)}})
			l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
			l.Close()
			l.Close()
			if n%100 == 0 {
				if synctest.Wait(); len(r.links) > maxClosed {
					t.Fatalf("%d links are held", len(r.links))
				}
			}
		}
		if calls, _ := sums(totals); calls["m"] != links {
			t.Errorf("%v, want %d", calls, links)
		}
	})
}

// TestTotalsBurst: links that are closed at once, after which none is made, are not held either.
func TestTotalsBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder()
		totals := r.Totals()
		defer totals.Close()
		var links []*Link
		for range 10 * maxClosed {
			links = append(links, r.Link(Server, "shm", Peer{}))
		}
		for _, l := range links {
			l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
			l.Close()
		}
		synctest.Wait()
		if len(r.links) > maxClosed {
			t.Errorf("%d links are held", len(r.links))
		}
		if calls, _ := sums(totals); calls["m"] != 10*maxClosed || len(r.links) > 0 {
			t.Errorf("%v, and %d links", calls, len(r.links))
		}
	})
}

// TestTotalsLate: a call whose handler ends long after its connection counts, whoever has looked meanwhile.
func TestTotalsLate(t *testing.T) {
	for _, takes := range []bool{false, true} {
		r := NewRecorder()
		totals := r.Totals()
		if takes {
			r.Enable()
		}
		l := r.Link(Server, "shm", Peer{})
		taken := &Total{}
		late := func() {
			l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
			l.Route(RouteName{Method: "/m"}).RecordMessage(0, &Message{})
			l.Route(RouteName{Method: "/n"}).Record(0, &Call{})
			l.Route(RouteName{Method: "/n"}).Decide(Late)
		}
		late()
		l.Close()
		for range 3 {
			sums(totals)
			sums(totals)
			for range 3 {
				if takes {
					for _, one := range r.Take() {
						taken.add(&one)
					}
				}
			}
			late()
		}
		for _, one := range r.Take() {
			taken.add(&one)
		}
		if calls, all := sums(totals); calls["m"] != 8 || calls["n"] != 4 || all.Decisions[Late] != 4 {
			t.Errorf("takes %v: %v, %v", takes, calls, all.Decisions)
		}
		if takes && (taken.Calls() != 12 || taken.Decisions[Late] != 4) {
			t.Errorf("%d calls were taken, %v", taken.Calls(), taken.Decisions)
		}
		totals.Close()
	}
}

// TestTotalsAgain: what connections that were there carry once nobody wants to know is nobody's later, either.
func TestTotalsAgain(t *testing.T) {
	r := NewRecorder()
	first := r.Totals()
	open, closed := r.Link(Server, "shm", Peer{}), r.Link(Server, "shm", Peer{})
	call := func() {
		for _, l := range []*Link{open, closed} {
			l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
			l.Route(RouteName{Method: "/m"}).Decide(Late)
		}
	}
	call()
	closed.Close()
	sums(first)
	first.Close()
	call()
	if len(r.links) > 0 {
		t.Errorf("%d links are held for nobody", len(r.links))
	}
	second := r.Totals()
	defer second.Close()
	call()
	if calls, all := sums(second); len(calls) > 0 || all.Decisions.Any() {
		t.Errorf("%v and %v of before", calls, all.Decisions)
	}
}

// TestUseGrows: what a connection has done is not less when its last word is from a moment before.
func TestUseGrows(t *testing.T) {
	r := NewRecorder()
	totals := r.Totals()
	defer totals.Close()
	l := r.Link(Client, "shm", Peer{})
	now := uint64(7)
	l.Uses(func() Use { return Use{Wakes: now} })
	for _, now = range []uint64{7, 5, 9} {
		l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
		if _, all := sums(totals); all.Use.Wakes != max(now, 7) {
			t.Errorf("%d wake-ups after %d", all.Use.Wakes, now)
		}
	}
}

// TestTotalsNames: two names of one way of calls are one.
func TestTotalsNames(t *testing.T) {
	r := NewRecorder()
	totals := r.Totals()
	defer totals.Close()
	for transport, address := range map[string]string{"unix-stream": "unix:///tmp/s", "unix": "/tmp/s", "tcp-loopback": "localhost:80", "tcp": "localhost:80"} {
		l := r.Link(Client, transport, Peer{Address: address})
		for _, name := range []RouteName{{Method: "/a/B"}, {Method: "/a/B", Stream: true}, {Method: "a/B"}} {
			l.Route(name).Record(0, &Call{Far: true, Duration: 5})
		}
	}
	got := map[TotalOf]Total{}
	totals.Each(func(of TotalOf, s *Total) { got[of] = *s })
	unix, tcp := got[TotalOf{Transport: "unix", Address: "/tmp/s", Method: "a/B"}], got[TotalOf{Transport: "tcp", Address: "localhost:80", Method: "a/B"}]
	if len(got) != 2 || unix.Calls() != 6 || tcp.Calls() != 6 || unix.Waits != (Waits{Calls: 4, Transport: 20}) {
		t.Errorf("%v", got)
	}
	for target, path := range map[string]string{"unix:/s": "/s", "unix:s": "s", "unix-abstract:s": "@s", "unix:///s": "/s", "host:80": "host:80", "/s": "/s", "": ""} {
		if got := socketPath(target); got != path {
			t.Errorf("%q is %q", target, got)
		}
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

// TestTotalsBounded: addresses and names without end do not fill the memory, no call is missing, and of new ones it is still known how they went.
func TestTotalsBounded(t *testing.T) {
	r := NewRecorder()
	totals := r.Totals()
	defer totals.Close()
	call := func(transport, address, method string) {
		l := r.Link(Client, transport, Peer{Address: address})
		l.Route(RouteName{Method: method}).Record(0, &Call{})
		l.Close()
	}
	count := func(of TotalOf) (n uint64, ways int) {
		totals.Each(func(is TotalOf, s *Total) {
			ways++
			if is == of {
				n = s.Calls()
			}
		})
		return n, ways
	}
	for n := range maxTotals + 10 {
		call("tcp", fmt.Sprint(n), "/m")
	}
	if n, ways := count(TotalOf{Transport: "tcp", Method: "m"}); n != 10 || ways != maxTotals+1 {
		t.Errorf("%d calls without their addresses of 10, %d ways", n, ways)
	}
	for n := range maxTotals + 9 {
		call("shm", "a", fmt.Sprint("/", n))
	}
	sums(totals) // in whichever order they come
	topic := r.Link(Client, "broker", Peer{Topic: "orders"})
	topic.Route(RouteName{Method: "send orders"}).RecordMessage(0, &Message{})
	if n, ways := count(TotalOf{Transport: "shm", Method: OtherMethod}); n != 10 || ways != 2*maxTotals+2 {
		t.Errorf("%d calls without their methods of 10, %d ways", n, ways)
	}
	if n, _ := count(TotalOf{Topic: OtherMethod}); n != 1 {
		t.Errorf("%d messages of 1", n)
	}
}
