package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// TestSeries: whatever stretch is asked for, in how many points, and whatever has become of its windows, the points of a route have together what the map has of it.
func TestSeries(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i := range 360 {
		if i%7 == 3 {
			continue // nothing came
		}
		putAt(t, s, time.Duration(i)*Finest, calls(1+i%3, []string{"even", "odd"}[i%2]))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, tidied := range []time.Duration{0, time.Minute, 85 * time.Minute, 2 * time.Hour, 26 * time.Hour} {
		if _, err := s.Tidy(t.Context(), begin.Add(tidied)); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			from := begin.Add(time.Duration(r.Int64N(int64(2*time.Hour))) - 5*time.Minute)
			to := from.Add(time.Second + time.Duration(r.Int64N(int64(2*time.Hour))))
			sameAsMap(t, s, from, to, 1+r.IntN(240))
		}
	}
}

func sameAsMap(t *testing.T, s *Store, from, to time.Time, points int) {
	t.Helper()
	m, _, _, err := s.Read(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	what := fmt.Sprintf("%s to %s in %d", from.Format(time.TimeOnly), to.Format(time.TimeOnly), points)
	for _, route := range m.Report().Routes {
		got, err := s.Series(t.Context(), from, to, route.ID(), points)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		calls, samples := uint64(0), uint64(0)
		for i, p := range got.Points {
			if p.Stats != nil {
				calls, samples = calls+p.Stats.Calls, samples+p.Stats.Duration().Count()
			}
			if i > 0 && (p.From != got.Points[i-1].To || p.To.Sub(p.From) != got.Points[0].To.Sub(got.Points[0].From)) {
				t.Fatalf("%s: %+v after %+v", what, p, got.Points[i-1])
			}
		}
		first, last := got.Points[0], got.Points[len(got.Points)-1]
		if calls != route.Calls || samples != route.Calls || got.Key != route.Key {
			t.Fatalf("%s: %s has %d calls and %d durations, on the map %d", what, got.Key, calls, samples, route.Calls)
		}
		if len(got.Points) > points || first.From.After(from) || last.To.Before(to) || first.From.Truncate(Finest) != first.From {
			t.Fatalf("%s: %d points from %s to %s", what, len(got.Points), first.From, last.To)
		}
	}
}

// TestSeriesPoints: what is in a window is in its point, and nothing in those without.
func TestSeriesPoints(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i, n := range []int{5, 0, 0, 2, 1, 4} {
		if n > 0 {
			putAt(t, s, time.Duration(i)*Finest, calls(n, "catalog"))
		}
	}
	id := calls(1, "catalog").Report().Routes[0].ID()
	for points, want := range map[int]string{6: "5 0 0 2 1 4 ", 3: "5 2 5 ", 2: "5 7 ", 1: "12 ", 240: "5 0 0 2 1 4 "} {
		got, err := s.Series(t.Context(), begin, begin.Add(time.Minute), id, points)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, p := range got.Points {
			if p.Stats == nil {
				text += "0 "
			} else {
				text += fmt.Sprint(p.Stats.Calls, " ")
			}
		}
		if text != want {
			t.Errorf("in %d: %s, want %s", points, text, want)
		}
	}
	for id, at := range map[string]time.Duration{"0123456789abcdef": 0, id: time.Hour} {
		if _, err := s.Series(t.Context(), begin.Add(at), begin.Add(at+time.Minute), id, 6); !errors.Is(err, ErrNoRoute) {
			t.Errorf("%s at %s: %v", id, at, err)
		}
	}
}

// TestSeriesSettled: a service that only its callers tell of in some windows is one route, as on the map.
func TestSeriesSettled(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	told := routemap.New()
	for i := range 3 {
		told.Add(routemap.NewTrace([]routemap.Span{{
			Trace: fmt.Sprint("t", i), ID: 1, Kind: routemap.Client, Service: "front", Name: "Get", Peer: "catalog", PeerKind: routemap.External, Start: 1000, End: 5000, Request: -1, Response: -1,
		}}))
	}
	putAt(t, s, 0, told)
	external := told.Report().Routes[0].ID()
	if got, err := s.Series(t.Context(), begin, begin.Add(Finest), external, 1); err != nil || got.Key.ID() != external || got.Points[0].Stats.Calls != 3 {
		t.Errorf("while it is not known: %+v, %v", got, err)
	}
	putAt(t, s, Finest, calls(2, "catalog"))
	putAt(t, s, 2*Finest, calls(1, "other"))
	sameAsMap(t, s, begin, begin.Add(3*Finest), 3)
	sameAsMap(t, s, begin, begin.Add(Finest), 3)
}
