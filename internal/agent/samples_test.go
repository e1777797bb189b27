package agent

import (
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/telemetry"
)

// TestSamples: while there are calls a window has a sample for each 200 ms, at the same times in all processes, and they are all of it: time, calls, and what is open.
func TestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(3*time.Second + 130*time.Millisecond)
		h := &fakeHub{name: 1}
		r := telemetry.NewRecorder()
		r.Enable()
		made := r.Link(telemetry.Client, "shm", telemetry.Peer{PID: 3}).Route(telemetry.RouteName{Method: "/s/M"})
		served := r.Link(telemetry.Server, "shm", telemetry.Peer{PID: 3}).Route(telemetry.RouteName{Method: "/s/M"})
		served.Record(0, &telemetry.Call{}) // before anybody looks
		var open atomic.Int64
		pace := NewPace()
		a := Start(Config{
			Pace: pace, Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler),
			InFlight: func(func(*telemetry.Route)) (int, int, int) { n := int(open.Load()); return n, 2 * n, 1 },
		})
		for n := range 100 { // 20 s
			open.Store(int64(n))
			made.Record(0, &telemetry.Call{})
			made.Record(0, &telemetry.Call{})
			served.Record(1, &telemetry.Call{})
			for range 20 {
				time.Sleep(SampleEvery / 20)
				pace.Beat(telemetry.Now())
			}
		}
		a.Close(t.Context())
		var all [3]uint64
		for i, w := range h.got {
			s := w.Samples[0]
			if len(w.Samples) != 1 || s.FromUnixNano != w.FromUnixNano {
				t.Fatalf("window %d: %d, samples from %d", i, w.FromUnixNano, s.FromUnixNano)
			}
			at := s.FromUnixNano
			for j, took := range s.TookUs {
				at += int64(took) * 1000
				if at%int64(SampleEvery) != 0 && at != w.ToUnixNano {
					t.Errorf("window %d, sample %d ends at %s", i, j, time.Unix(0, at))
				}
				all[0] += s.Made[j]
				all[1] += s.Served[j]
			}
			all[2] += uint64(len(s.TookUs))
			if at != w.ToUnixNano || len(s.OpenMade) != len(s.TookUs) || s.OpenServed[3] != 2*s.OpenMade[3] || s.Gomaxprocs == 0 {
				t.Errorf("window %d to %d: %v", i, w.ToUnixNano, s)
			}
		}
		if len(h.got) != 3 || all[0] != 200 || all[1] != 100 || all[2] != 101 {
			t.Errorf("%d windows, %d", len(h.got), all)
		}
	})
}

// TestQuiet: a process that makes no calls and uses little looks each second; one that begins to make them does at once.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, pace := &fakeHub{name: 1}, NewPace()
		a := Start(Config{isBusy: func(usage.Used) bool { return false }, Pace: pace, Hub: h, Recorder: telemetry.NewRecorder(), Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler)})
		time.Sleep(5*time.Second + 310*time.Millisecond)
		for range 2 { // the second one is of the same 200 ms
			pace.Beat(telemetry.Now())
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		a.Close(t.Context())
		var ends []time.Duration
		for _, w := range h.got {
			at := time.Unix(0, w.Samples[0].FromUnixNano)
			for _, took := range w.Samples[0].TookUs {
				at = at.Add(time.Duration(took) * time.Microsecond)
				ends = append(ends, at.Sub(at.Truncate(time.Minute)))
			}
		}
		want := []time.Duration{1e9, 2e9, 3e9, 4e9, 5e9, 5.31e9, 6e9, 7e9, 8e9, 9e9, 10e9, 11e9, 12e9, 13e9, 14e9, 15e9, 15.41e9}
		if !slices.Equal(ends[1:], want) { // the first is that of the beginning
			t.Errorf("samples end at %s", ends)
		}
	})
}

// TestBusy: a process that uses a processor looks each 200 ms, without calls.
func TestBusy(t *testing.T) {
	s := newSampler(&Config{Recorder: telemetry.NewRecorder()})
	defer s.close()
	spin := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
	}
	for _, c := range []struct {
		what string
		do   func(time.Duration)
		busy bool
	}{{"sleeps", time.Sleep, false}, {"does nothing but to count", spin, true}} {
		for began := time.Now(); ; { // others may have the processors, or other tests' collector is at work
			if c.do(SampleEvery); s.take(false) == c.busy {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("who %s is busy: %v, for a minute", c.what, !c.busy)
			}
		}
	}
}

// TestBusyStays: what is left of a window behind its end says nothing of whether the process is busy.
func TestBusyStays(t *testing.T) {
	s := newSampler(&Config{Recorder: telemetry.NewRecorder(), isBusy: func(usage.Used) bool { return true }})
	defer s.close()
	time.Sleep(2 * shortest)
	if !s.take(false) {
		t.Fatal("it is not busy")
	}
	s.isBusy = func(usage.Used) bool { return false }
	s.window()
	if !s.take(false) {
		t.Error("it is not busy any more, in no time")
	}
	time.Sleep(2 * shortest)
	if s.take(false) {
		t.Error("it is busy still")
	}
}

// TestManySamples: who was not asked for long tells of the last minute, and what is 0 is no column.
func TestManySamples(t *testing.T) {
	r := telemetry.NewRecorder()
	s := newSampler(&Config{Recorder: r})
	s.mu.Lock()
	for range maxSamples {
		s.samples = append(s.samples, sample{Used: usage.Used{Took: time.Second}})
	}
	s.meter = usage.NewMeter()
	s.mu.Unlock()
	time.Sleep(shortest) // a sample of less is part of the one before
	sum, all := s.window()
	if sum.Took <= maxSamples*time.Second {
		t.Errorf("the window is of %s", sum.Took)
	}
	got := columns(all)[0]
	if len(all) != maxSamples || len(got.TookUs) != maxSamples || got.Made != nil || got.OpenMade != nil {
		t.Errorf("%d samples, %d calls, %d open", len(all), len(got.Made), len(got.OpenMade))
	}
	if columns(nil) != nil {
		t.Error("a sample of nothing")
	}
}

// BenchmarkSample is what a look every 200 ms costs: with few routes, and with as many as are looked at each time.
func BenchmarkSample(b *testing.B) {
	for _, routes := range []int{8, routesEach} {
		b.Run(strconv.Itoa(routes), func(b *testing.B) {
			r := telemetry.NewRecorder()
			r.Enable()
			l := r.Link(telemetry.Client, "shm", telemetry.Peer{})
			for i := range routes {
				l.Route(telemetry.RouteName{Method: strconv.Itoa(i)}).Record(0, &telemetry.Call{})
			}
			s := newSampler(&Config{Recorder: r})
			for b.Loop() {
				s.skipCalls = 0
				s.takeLocked(false)
				s.samples = s.samples[:0]
			}
			b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N)/SampleEvery.Seconds(), "%processor")
		})
	}
}
