package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// TestEvents: like events are one, with when it happened first and last, how often, and a trace that shows it; without end they do not fill the memory.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := enabled()
		begin := time.Now()
		for n := range 5 {
			e := Event{Kind: "breaker moved", Subject: "/s/M", Detail: "closed → open"}
			if n == 2 {
				e.Trace = "abc"
			}
			r.Event(e)
			time.Sleep(time.Second)
		}
		r.Event(Event{Kind: "breaker moved", Subject: "/s/M", Detail: "open → closed"})
		all, lost := r.TakeEvents()
		if len(all) != 2 || lost != 0 {
			t.Fatalf("%+v, %d lost", all, lost)
		}
		for _, e := range all {
			if e.Detail == "closed → open" && (e.Count != 5 || !e.First.Equal(begin) || e.Last.Sub(begin) != 4*time.Second || e.Trace != "abc") {
				t.Errorf("%+v", e)
			}
		}
		for n := range maxEvents + 7 {
			r.Event(Event{Kind: fmt.Sprint(n), Detail: strings.Repeat("ä", maxEventText)})
		}
		if all, lost := r.TakeEvents(); len(all) != maxEvents || lost != 7 || len(all[0].Detail) != maxEventText || !utf8.ValidString(all[0].Detail) {
			t.Errorf("%d events, %d lost", len(all), lost)
		}
		if all, lost := r.TakeEvents(); len(all) != 0 || lost != 0 {
			t.Errorf("%d events, %d lost", len(all), lost)
		}
		(*Recorder)(nil).Event(Event{}) // counts nothing
	})
}

// TestManyErrors: errors of which each has its own text are one event; and of a kind that has too many, methods, say, those of other kinds find room, and none is lost.
func TestManyErrors(t *testing.T) {
	r := enabled()
	for n := range 5000 {
		r.Event(Event{Kind: "retried", Subject: "/s/M", Detail: "Unavailable", Example: fmt.Sprint("order ", n, " failed")})
		r.Event(Event{Kind: "call refused", Subject: fmt.Sprint("/s/M", n), Error: n%2 == 0})
	}
	r.Event(Event{Kind: "breaker moved", Subject: "/s/M"})
	all, lost := r.TakeEvents()
	counts, moved := map[string]uint64{}, false
	for _, e := range all {
		counts[e.Kind] += e.Count
		moved = moved || e.Kind == "breaker moved"
		if e.Kind == "retried" && (e.Count != 5000 || e.Example != "order 0 failed") {
			t.Errorf("%+v", e)
		}
	}
	if len(all) != 2+maxOfKind+2 || !moved || counts["call refused"] != 5000 || lost != 0 {
		t.Errorf("%d events, moved %v, %v, %d lost", len(all), moved, counts, lost)
	}
}

// TestSingle: what was first, and what then, is known of events that say so; when there are many, the last ones are one.
func TestSingle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := enabled()
		var want []string
		for n := range 6 {
			detail := [2]string{"closed → open", "open → closed"}[n%2]
			want = append(want, detail)
			r.Event(Event{Kind: "breaker moved", Subject: "/s/M", Detail: detail, Single: true})
			time.Sleep(time.Second)
		}
		all, _ := r.TakeEvents()
		slices.SortFunc(all, func(a, b Event) int { return a.First.Compare(b.First) })
		var got []string
		for _, e := range all {
			got = append(got, e.Detail)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		for range 3 * maxSingle {
			r.Event(Event{Kind: "breaker moved", Single: true})
		}
		all, _ = r.TakeEvents()
		sum := uint64(0)
		for _, e := range all {
			sum += e.Count
		}
		if len(all) != maxSingle || sum != 3*maxSingle {
			t.Errorf("%d events of %d", len(all), sum)
		}
	})
}
