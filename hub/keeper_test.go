package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// fakeStore keeps how many traces each window had.
type fakeStore struct {
	full   atomic.Bool
	puts   []string
	events []store.Event
	queues []string // windows, and how many they had
	tidied int
}

func (s *fakeStore) Put(_ context.Context, start time.Time, m *routemap.Map, kept *store.Traces, _ store.Reported) error {
	if s.full.Load() {
		return errors.New("disk full")
	}
	traces := m.Report().Traces
	if kept.Seen != traces || len(kept.Kept) != int(traces) {
		return fmt.Errorf("%d traces of %d are kept, %d are on the map", len(kept.Kept), kept.Seen, traces)
	}
	s.puts = append(s.puts, fmt.Sprintf("%s: %d", start.UTC().Format("04:05"), traces))
	return nil
}

func (s *fakeStore) PutQueues(_ context.Context, start time.Time, q store.Queues) error {
	if s.full.Load() {
		return errors.New("disk full")
	}
	s.queues = append(s.queues, fmt.Sprintf("%s: %d", start.UTC().Format("04:05"), len(q)))
	return nil
}

func (s *fakeStore) PutEvents(_ context.Context, all []store.Event) error {
	if s.full.Load() {
		return errors.New("disk full")
	}
	s.events = append(s.events, all...)
	return nil
}

func (s *fakeStore) PutRecords(context.Context, []store.Record) error { return nil }

func (s *fakeStore) PutPolicies(context.Context, time.Time, []store.Policy) error { return nil }

func (s *fakeStore) Usage(context.Context) (store.Usage, error) {
	return store.Usage{Windows: int64(len(s.puts))}, nil
}

func (s *fakeStore) Tidy(context.Context, time.Time) (int, error) { s.tidied++; return 0, nil }

func span(trace string, id uint64) routemap.Span {
	return routemap.Span{Trace: trace, ID: id, Service: "s", Name: "op", Start: 1, End: 2, Request: -1, Response: -1}
}

// TestKeeper: traces are of the window in which they were complete; windows without any are not kept; what the disk does not take is kept later, and nothing is
// lost when the hub is closed.
func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newIntake(100, time.Now)
		s := &fakeStore{}
		k := newKeeper(in, newAgents(time.Now), &totals{}, s, time.Now, slog.New(slog.DiscardHandler))
		begin := time.Now().UTC() // midnight, in a bubble
		add := func(traces ...string) {
			b := in.batch()
			for _, name := range traces {
				b.spans = append(b.spans, span(name, 1))
			}
			if err := in.add(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
		at := func(d time.Duration) { time.Sleep(time.Until(begin.Add(d))); synctest.Wait() }
		at(6 * time.Second)
		add("a", "b") // complete at 15 s
		at(16 * time.Second)
		add("c")
		at(66 * time.Second)
		s.full.Store(true)
		add("d")
		at(76 * time.Second)
		add("e")
		at(86 * time.Second)
		add("f")
		at(101 * time.Second)
		if err := k.failing(); err == nil {
			t.Error("nobody says that the disk is full")
		}
		s.full.Store(false)
		at(116 * time.Second)
		if err := k.failing(); err != nil {
			t.Error(err)
		}
		add("g") // is being put together when all ends
		if err := k.close(); err != nil {
			t.Error(err)
		}
		want := "[00:10: 2 00:20: 1 01:10: 3 01:50: 1]"
		if got := fmt.Sprint(s.puts); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if s.tidied != 2 {
			t.Errorf("tidied %d times", s.tidied)
		}
	})
}

// TestKeptAtLast: what the disk did not take is kept although nothing comes any more: when there is room, or else when the hub is closed.
func TestKeptAtLast(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			in := newIntake(100, time.Now)
			s := &fakeStore{}
			k := newKeeper(in, newAgents(time.Now), &totals{}, s, time.Now, slog.New(slog.DiscardHandler))
			s.full.Store(true)
			b := in.batch()
			b.spans = append(b.spans, span("a", 1))
			if err := in.add(t.Context(), b); err != nil {
				t.Error(err)
			}
			time.Sleep(35 * time.Second)
			synctest.Wait()
			if k.failing() == nil {
				t.Error("nobody says that the disk is full")
			}
			s.full.Store(false)
			if !closed {
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if len(s.puts) != 1 || k.failing() != nil {
					t.Errorf("%v, %v", s.puts, k.failing())
				}
			}
			if err := k.close(); err != nil || len(s.puts) != 1 {
				t.Errorf("%v, %v", s.puts, err)
			}
		})
	}
}

// TestHeldBounds: while the disk is full, what is held besides the map has bounds of number and of bytes, also if the first window alone has more.
func TestHeldBounds(t *testing.T) {
	k, text := &keeper{clock: time.Now}, strings.Repeat("x", maxUnkeptBytes/4)
	more := func(loads, numbers, queues int) *window {
		w := k.open()
		w.loads = make([]store.Load, loads)
		for i := range w.loads {
			w.loads[i].Took = make([]uint64, numbers)
		}
		q := store.Queues{}
		for i := range queues {
			q[routemap.QueueKey{Topic: fmt.Sprint(i)}] = &routemap.QueueStats{}
		}
		w.queues = []queueWindow{{w.start, q}}
		w.policies = []store.Policy{{Text: text}}
		return &w
	}
	many := more(maxUnkeptLoads+5, 0, 0)
	if left := many.then(more(1, 3, 0)); left != (noRoom{samples: 3}) {
		t.Errorf("%+v left out", left)
	}
	if got := len(many.loads); got != maxUnkeptLoads+5 {
		t.Errorf("%d loads", got)
	}
	const times, samples, topics = 12, maxUnkeptBytes / 8 / 10, maxUnkeptBytes / heldLeast / 10
	long, agents := more(1, 0, 0), newAgents(time.Now)
	for range times {
		next := more(1, samples, topics)
		next.events, next.records = []store.Event{{Detail: text}}, []store.Record{{Data: []byte(text)}}
		agents.unkept(long.then(next))
	}
	l, q, p := len(long.loads), len(long.queues), len(long.policies)
	if l < 5 || l > 11 || q < 5 || q > 11 || p != 3 || len(long.events) != 3 || len(long.records) != 3 {
		t.Errorf("%d loads, %d windows of queues, %d policies, %d events, %d records", l, q, p, len(long.events), len(long.records))
	}
	want := Agents{Lost: times - 3, Unrecorded: times - 3, LeftOut: uint64(times + 1 - p), Unsampled: uint64(times+1-l) * samples, NoRoom: uint64(times+1-q) * topics}
	if got := agents.status(); got != want {
		t.Errorf("%+v left out, want %+v", got, want)
	}
}

// TestClockBack: a clock that goes back by hours stops nothing.
func TestClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var back atomic.Int64
		clock := func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		in := newIntake(100, clock)
		s := &fakeStore{}
		k := newKeeper(in, newAgents(time.Now), &totals{}, s, clock, slog.New(slog.DiscardHandler))
		time.Sleep(15 * time.Second)
		synctest.Wait()
		back.Store(int64(5 * time.Hour))
		b := in.batch()
		b.spans = append(b.spans, span("a", 1))
		if err := in.add(t.Context(), b); err != nil {
			t.Error(err)
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if len(s.puts) != 1 {
			t.Errorf("after %s: %v", time.Since(begin), s.puts)
		}
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
}

func (s *fakeStore) PutLoads(context.Context, []store.Load) error {
	if s.full.Load() {
		return errors.New("the disk is full")
	}
	return nil
}
