package telemetry

import (
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"
)

func enabled() *Recorder {
	r := NewRecorder()
	r.Enable()
	return r
}

// TestNotEnabled: while nobody is going to take it, nothing is counted nor held.
func TestNotEnabled(t *testing.T) {
	r := NewRecorder()
	if l := r.Link(Client, "shm", Peer{}); l != nil {
		t.Error("there is a link")
	}
	(*Link)(nil).Close()
	r.Event(Event{Kind: "x"})
	if all, _ := r.TakeEvents(); len(all) != 0 || len(r.links) != 0 {
		t.Errorf("%v, %d links", all, len(r.links))
	}
}

// TestRecorder: what many count at once, while it is taken again and again, is counted once.
func TestRecorder(t *testing.T) {
	r := enabled()
	l := r.Link(Client, "shm", Peer{PID: 7})
	const callers, calls = 8, 20_000
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := range calls {
				l.Route(RouteName{Method: fmt.Sprint("/m/", n%3)}).Record(uint32(i), &Call{
					Duration: 100, Waited: 10, Far: true, Queued: 20, Handled: 30, Request: 5, Response: -1, Code: uint32(n % 2 * 14),
				})
			}
		})
	}
	sum := map[string]*Stats{}
	take := func() {
		for _, got := range r.Take() {
			if got.Link != l || got.Stream {
				t.Errorf("%+v", got)
			}
			if sum[got.Method] == nil {
				sum[got.Method] = &Stats{}
			}
			sum[got.Method].Merge(got.Stats)
		}
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		take()
	}
	take()
	whole := &Stats{}
	for _, s := range sum {
		whole.Merge(s)
	}
	const total = callers * calls
	want := Waits{total, 10 * total, 40 * total, 20 * total, 30 * total}
	if len(sum) != 3 || whole.Calls() != total || whole.Codes[0] != total/2 || whole.Codes[14] != total/2 || whole.Waits != want {
		t.Errorf("%d methods, %d calls, %v, %+v", len(sum), whole.Calls(), whole.Codes, whole.Waits)
	}
	for h, n := range map[*Histogram]uint64{&whole.Duration: total, &whole.Failures: total / 2, &whole.Gap: total, &whole.Queue: total, &whole.Request: total, &whole.Response: 0} {
		if h.Count() != n {
			t.Errorf("%d values, want %d", h.Count(), n)
		}
	}
	if whole.Gap.Quantile(0.5) != 40 || whole.Request.Quantile(1) != 5 {
		t.Errorf("gap %d, request %d", whole.Gap.Quantile(0.5), whole.Request.Quantile(1))
	}
}

// TestLinkCloses: what was counted before a link's end is taken, and then it is forgotten.
func TestLinkCloses(t *testing.T) {
	r := enabled()
	l := r.Link(Server, "shm", Peer{})
	l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
	l.Close()
	if got := r.Take(); len(got) != 1 || got[0].Calls() != 1 {
		t.Errorf("%+v", got)
	}
	l.Route(RouteName{Method: "/m"}).Record(0, &Call{}) // a handler that ends after its connection
	if got := r.Take(); len(got) != 1 || got[0].Calls() != 1 {
		t.Errorf("%+v", got)
	}
	if got := r.Take(); len(got) != 0 || len(r.links) != 0 {
		t.Errorf("%+v, %d links", got, len(r.links))
	}
}

// TestManyMethods: a peer that makes names up does not fill the memory.
func TestManyMethods(t *testing.T) {
	r := enabled()
	l := r.Link(Server, "shm", Peer{})
	for n := range 3 * maxLinkRoutes {
		l.Route(RouteName{Method: fmt.Sprint(n)}).Record(0, &Call{})
	}
	if n := len(*l.routes.Load()); n > maxLinkRoutes+1 {
		t.Errorf("%d routes", n)
	}
	for _, got := range r.Take() {
		if got.Method == OtherMethod && got.Calls() != 2*maxLinkRoutes {
			t.Errorf("%d others", got.Calls())
		}
	}
}

// TestLyingServer: what a server says of its time is bounded by what there was.
func TestLyingServer(t *testing.T) {
	for _, c := range []Call{
		{Duration: 100, Waited: 10, Queued: 1 << 62, Handled: 1 << 62}, {Duration: 100, Queued: -1, Handled: 1 << 62}, {Duration: 100, Queued: 50, Handled: -7}, {},
	} {
		c.Far = true
		s := &Stats{}
		s.record(&c)
		w := s.Waits
		if sum := w.ClientQueue + w.Transport + w.ServerQueue + w.Handler; sum != int64(c.Duration) || min(w.ClientQueue, w.Transport, w.ServerQueue, w.Handler) < 0 {
			t.Errorf("%+v makes %+v", c, w)
		}
	}
}

// TestRecordAllocates: nothing, once like calls were seen, also after they were taken.
func TestRecordAllocates(t *testing.T) {
	r := enabled()
	l := r.Link(Client, "shm", Peer{})
	c := Call{Duration: 7 * time.Microsecond, Far: true, Queued: 100, Handled: 200, Request: 64, Response: 64, Code: 5}
	record := func() { l.Route(RouteName{Method: "/m"}).Record(0, &c) }
	for range 3 {
		record()
		r.Take()
	}
	if n := testing.AllocsPerRun(100, record); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestClosedHolds: a link that is closed holds nothing of its connection, until it is taken, and knows what that has done.
func TestClosedHolds(t *testing.T) {
	type connection struct{ wakes [1 << 10]uint64 }
	r := enabled()
	conn := &connection{wakes: [1 << 10]uint64{7}}
	held := weak.Make(conn)
	l := r.Link(Client, "shm", Peer{})
	l.Uses(func() Use { return Use{Wakes: conn.wakes[0]} })
	l.Route(RouteName{Method: "/m"}).Record(0, &Call{})
	l.Close()
	conn = nil
	runtime.GC()
	if held.Value() != nil {
		t.Error("the connection is held")
	}
	if all := r.Take(); len(all) != 1 || all[0].Use.Wakes != 7 {
		t.Errorf("%+v", all)
	}
}

// BenchmarkRecord is what counting costs a call at one side: two looks at the clock at a client, three at a server, and the counting.
func BenchmarkRecord(b *testing.B) {
	for _, side := range []struct {
		name  string
		looks int
	}{{"client", 2}, {"server", 3}} {
		b.Run(side.name, func(b *testing.B) {
			l := enabled().Link(Client, "shm", Peer{})
			b.ReportAllocs()
			for b.Loop() {
				begun := Now()
				for range side.looks - 2 {
					_ = Now()
				}
				c := Call{Begun: begun, Duration: Now() - begun + 7*time.Microsecond, Far: true, Queued: 100, Handled: 200, Request: 64, Response: 64}
				if side.name == "server" {
					c.Handled = c.Duration - c.Queued
				}
				l.Route(RouteName{Method: "/grpc.testing.TestService/UnaryCall"}).Record(0, &c)
			}
		})
	}
	b.Run("clock", func(b *testing.B) {
		for b.Loop() {
			_ = Now()
		}
	})
}

// BenchmarkRecordCold is what a call costs in a process that has slept, while others used the caches. ns/record is without the clock.
func BenchmarkRecordCold(b *testing.B) {
	other := make([]byte, 16<<20)
	l := enabled().Link(Client, "shm", Peer{})
	name := RouteName{Method: "/grpc.testing.TestService/UnaryCall"}
	var with, without time.Duration
	for b.Loop() {
		for i := 0; i < len(other); i += 64 {
			other[i]++
		}
		begun := Now()
		middle := Now()
		l.Route(name).Record(0, &Call{Begun: begun, Duration: 7 * time.Microsecond, Far: true, Queued: 100, Handled: 200, Request: 64, Response: 64})
		without, with = without+middle-begun, with+Now()-middle
	}
	b.ReportMetric(float64(with-without)/float64(b.N), "ns/record")
}

// TestCountedCalls: how many calls there were is told at any time, whoever takes them, and by side.
func TestCountedCalls(t *testing.T) {
	r := enabled()
	made, served := r.Link(Client, "shm", Peer{}), r.Link(Server, "shm", Peer{})
	const callers, calls = 4, 5000
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := range calls {
				made.Route(RouteName{Method: fmt.Sprint("/m/", n%3)}).Record(uint32(i), &Call{})
				served.Route(RouteName{Method: "/m"}).RecordMessage(uint32(i), &Message{})
				if n%100 == 0 {
					r.Take()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	var last [2]uint64
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		m, s, _ := r.Counted()
		if m < last[0] || s < last[1] {
			t.Fatalf("%d and %d after %d", m, s, last)
		}
		last = [2]uint64{m, s}
	}
	if m, s, routes := r.Counted(); m != callers*calls || s != m || routes != 4 {
		t.Errorf("%d made, %d served, %d routes", m, s, routes)
	}
}

// TestUse: what a connection does is its routes', by calls, and nothing of it is lost: what it does while there are no calls is the next ones'.
func TestUse(t *testing.T) {
	r := NewRecorder()
	r.Enable()
	l, silent := r.Link(Client, "shm", Peer{}), r.Link(Client, "unix-stream", Peer{})
	var now Use
	l.Uses(func() Use { return now })
	call := func(l *Link, method string, n int) {
		for range n {
			l.Route(RouteName{Method: method}).Record(0, &Call{})
		}
	}
	take := func() map[string]Use {
		all := map[string]Use{}
		for _, one := range r.Take() {
			all[one.Transport+one.Method] = one.Use
		}
		return all
	}
	same := func(what string, want map[string]Use) {
		t.Helper()
		if got := take(); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	now = Use{5, 50}
	same("no calls", map[string]Use{})
	now = Use{100, 1000}
	call(l, "a", 1)
	call(l, "b", 3)
	call(silent, "a", 2)
	same("two routes", map[string]Use{"shma": {25, 250}, "shmb": {75, 750}, "unix-streama": {}})
	now = Use{107, 1003}
	call(l, "a", 1)
	l.Close()
	same("closed", map[string]Use{"shma": {7, 3}})
	same("gone", map[string]Use{})
}
