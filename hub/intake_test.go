package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// quiet is a batch of spans of n traces, from the first number on.
func quiet(in *intake, first, n int) *batch {
	b := in.batch()
	for i := range n {
		b.spans = append(b.spans, span(fmt.Sprint(first+i), 1))
	}
	return b
}

// TestIntakeWaits: who brings spans for which there is no room waits for it, as long as who has sent them does and not for ever; nothing of what had none counts, and who
// asks how it is going waits for nobody. Processes' spans are left out, and counted.
func TestIntakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newIntake(16, time.Now)
		if err := in.add(t.Context(), quiet(in, 0, 30)); err != nil { // more than there may be: one request alone is let in
			t.Fatal(err)
		}
		began := time.Now()
		if err := in.add(t.Context(), quiet(in, 100, 1)); !errors.Is(err, errFull) || time.Since(began) != patience {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := in.add(ctx, quiet(in, 100, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		waits := make(chan error, 1)
		go func() { waits <- in.add(t.Context(), quiet(in, 200, 1)) }()
		synctest.Wait()
		if s := in.status(); s.Held != 30 || s.Spans != 30 || s.Requests != 1 || len(s.LeftOut) != 0 || len(waits) != 0 {
			t.Errorf("%+v", s)
		}
		if got, more := in.complete(); len(got) != 14 || got[0][0].Trace != "0" || !more { // those that had none for longest
			t.Errorf("%d traces are taken for complete", len(got))
		}
		if err := <-waits; err != nil {
			t.Error(err)
		}
		in.addReported(t.Context(), quiet(in, 300, 20))
		b := quiet(in, 400, 3)
		b.notes = []routemap.Span{{Trace: "0", ID: 1, Note: true}}
		in.addReported(ctx, b)
		if s := in.status(); s.Held != 37 || s.LeftOut[NoRoom] != 4 {
			t.Errorf("%+v", s)
		}
		if err := in.add(t.Context(), quiet(in, 500, 10)); err != nil {
			t.Error(err)
		}
		began = time.Now()
		go func() { waits <- in.add(t.Context(), quiet(in, 600, 1)) }()
		synctest.Wait()
		in.end() // the hub is being closed
		if err := <-waits; !errors.Is(err, errFull) || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		complete(in)
		if _, more := in.complete(); more || in.status().Held != 0 {
			t.Errorf("there is more: %+v", in.status())
		}
	})
}

// stuckStore does not answer while it is stuck. It keeps how many traces there were.
type stuckStore struct {
	fakeStore
	stuck  chan struct{}
	traces uint64
}

func (s *stuckStore) Put(_ context.Context, start time.Time, m *routemap.Map, _ *store.Traces, _ store.Reported) error {
	<-s.stuck
	s.puts = append(s.puts, start.String())
	s.traces += m.Report().Traces
	return nil
}

// TestStalled: while the disk does not answer nobody waits for it, neither who sends nor who asks; health says so, and when it answers again all that came is kept, once.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newIntake(1_000_000, time.Now)
		s := &stuckStore{stuck: make(chan struct{})}
		k := newKeeper(in, newAgents(time.Now), &totals{}, s, time.Now, slog.New(slog.DiscardHandler))
		const each, windows = 6_000, 12
		for n := range windows {
			if err := in.add(t.Context(), quiet(in, n*each, each)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(store.Finest)
			synctest.Wait()
			if is := in.status(); is.Spans != uint64(n+1)*each || is.Held > 2*each {
				t.Fatalf("%+v", is)
			}
			if err := k.failing(); n < 3 && err != nil || n > 6 && !errors.Is(err, errStalled) {
				t.Errorf("window %d: %v", n, err)
			}
		}
		close(s.stuck)
		time.Sleep(3 * store.Finest)
		synctest.Wait()
		if err := k.failing(); err != nil {
			t.Error(err)
		}
		if u := k.usage.Load(); u.err != nil || u.Windows != int64(len(s.puts)) {
			t.Errorf("%+v, of %v", u, s.puts)
		}
		if err := k.close(); err != nil {
			t.Error(err)
		}
		if s.traces != each*windows || len(s.puts) < 2 {
			t.Errorf("%v: %d traces of %d", s.puts, s.traces, each*windows)
		}
	})
}

// TestFull: who sends spans for which there is no room is told when to come again, in the way that OTLP has for it; what is refused is not forwarded either.
func TestFull(t *testing.T) {
	c := newCollector(t, func(int, http.ResponseWriter) bool { return true })
	h := openHub(t, Config{Forward: &Forward{URL: c.URL}})
	most := h.intake.assembler.most
	h.intake.mu.Lock()
	h.intake.assembler.most, h.intake.patience = -10, 10*time.Millisecond
	h.intake.mu.Unlock()
	body := comesLater(t, h)
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Intake.Refused[refusedFull] != 2 || s.Intake.Spans != 0 || s.Intake.Requests != 0 {
		t.Errorf("%+v", s.Intake)
	}
	h.intake.mu.Lock()
	h.intake.assembler.most = most
	h.intake.mu.Unlock()
	if r := post(t, h, body, "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Errorf("then: %d %s", r.code, r.body)
	}
	closeHub(t, h)
	if s := h.forward.status(); s.Sent != 1 {
		t.Errorf("%+v", s)
	}
}

// TestHealth: who asks for the hub's health is told why windows are not kept, but no names of files.
func TestHealth(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	healthy := func(want string) {
		t.Helper()
		r, s := get(t, h, "/healthz"), decode[Status](t, get(t, h, "/api/v1/status"))
		if code := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[want == ""]; r.code != code || !strings.Contains(string(r.body), want) || strings.Contains(string(r.body), "secret") {
			t.Errorf("%d %s", r.code, r.body)
		}
		if (s.Failing == "") != (want == "") {
			t.Errorf("status: %q", s.Failing)
		}
	}
	healthy("")
	log := slog.New(slog.DiscardHandler)
	h.keeper.unkept.is(log, "", errors.New("/secret/hub.db is full"))
	healthy("there is an error")
	h.keeper.unkept.is(log, "", nil)
	began := time.Now().Add(-stalledAfter - time.Minute)
	h.keeper.writing.Store(&began)
	healthy("nothing was written for")
	h.keeper.writing.Store(nil)
	healthy("")
}
