package telemetry

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
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
			r.Event(Event{Kind: fmt.Sprint(n)})
		}
		if all, lost := r.TakeEvents(); len(all) != maxEvents || lost != 7 {
			t.Errorf("%d events, %d lost", len(all), lost)
		}
		if all, lost := r.TakeEvents(); len(all) != 0 || lost != 0 {
			t.Errorf("%d events, %d lost", len(all), lost)
		}
		(*Recorder)(nil).Event(Event{}) // counts nothing
	})
}
