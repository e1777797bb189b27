package store

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestEvents: what happened is found by time, service and kind, the newest first; of too many the oldest are not kept.
func TestEvents(t *testing.T) {
	defer func(n int) { maxEvents = n }(maxEvents)
	maxEvents = 100
	s, err := Open(t.Context(), t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := func(second int) time.Time { return time.Unix(int64(1e9+second), 5).UTC() }
	event := func(second int, service, kind string) Event {
		return Event{First: at(second), Last: at(second + 2), Count: 3, Service: service, Host: "h", PID: 7, Kind: kind, Subject: "/s/M", Detail: "d", Trace: "t", Error: true}
	}
	all := []Event{event(0, "a", "x"), event(10, "b", "x"), event(20, "a", "y")}
	if err := s.PutEvents(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to      int
		service, kind string
		limit         int
		want          string
	}{
		{-10, 100, "", "", 10, "[20 10 0]"}, {-10, 100, "a", "", 10, "[20 0]"}, {-10, 100, "", "x", 10, "[10 0]"}, {-10, 100, "a", "y", 10, "[20]"}, {-10, 100, "", "", 2, "[20 10]"},
		{1, 20, "", "", 10, "[10 0]"}, {3, 10, "", "", 10, "[]"}, {-10, 100, "a' OR ''='", "", 10, "[]"},
	} {
		got, err := s.Events(t.Context(), at(c.from), at(c.to), c.service, c.kind, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		seconds := []int64{}
		for _, e := range got {
			seconds = append(seconds, e.First.Unix()-1e9)
			if want := event(int(e.First.Unix()-1e9), e.Service, e.Kind); e != want {
				t.Errorf("%+v, want %+v", e, want)
			}
		}
		if fmt.Sprint(seconds) != c.want {
			t.Errorf("%+v: %v", c, seconds)
		}
	}
	for range 2 {
		many := make([]Event, maxEvents-1)
		for i := range many {
			many[i] = event(1000, "c", "z")
		}
		if err := s.PutEvents(t.Context(), many); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Events(t.Context(), at(-1), at(1e6), "", "", 1e6)
	if err != nil || len(got) != maxEvents || got[len(got)-1].Service != "c" {
		t.Errorf("%d events, %v", len(got), err)
	}
}

// TestEventsShare: however large events are, maps stay, and of the events the newest.
func TestEventsShare(t *testing.T) {
	s := open(t, t.TempDir(), 4<<20)
	for i := range 20 {
		putAt(t, s, time.Duration(i)*Finest, calls(1, "catalog"))
	}
	text := strings.Repeat("ä", 128)
	var all []Event
	for i := range 5_000 {
		all = append(all, Event{First: begin.Add(time.Duration(i)), Last: begin.Add(time.Duration(i)), Count: 1, Kind: fmt.Sprint(i), Subject: text, Detail: text, Service: text, Host: text})
	}
	if err := s.PutEvents(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tidy(t.Context(), begin.Add(20*Finest)); err != nil {
		t.Fatal(err)
	}
	if counts, _ := read(t, s, begin, begin.Add(20*Finest)); counts["catalog"] != 20 {
		t.Errorf("%v", counts)
	}
	kept, err := s.Events(t.Context(), begin, begin.Add(time.Hour), "", "", len(all))
	if err != nil || len(kept) < 350 || len(kept) > 500 || kept[0].Kind != "4999" {
		t.Errorf("%d events are kept, %v", len(kept), err)
	}
}

// TestOwnEvents: what processes tell does not push out the hub's own events, of which the oldest are not kept.
func TestOwnEvents(t *testing.T) {
	defer func(n, own int) { maxEvents, maxOwnEvents = n, own }(maxEvents, maxOwnEvents)
	maxEvents, maxOwnEvents = 100, 10
	s, err := Open(t.Context(), t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := time.Unix(1e9, 0)
	put := func(n int, service, kind string) {
		t.Helper()
		all := make([]Event, n)
		for i := range all {
			all[i] = Event{First: at, Last: at, Count: 1, Service: "a"}
		}
		all[0].Service, all[0].Kind = service, kind
		if err := s.PutEvents(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	put(150, OwnService, "first")
	put(150, "a", "")
	if got, err := s.Events(t.Context(), at, at.Add(1), OwnService, "", 1000); err != nil || len(got) != 1 || got[0].Kind != "first" {
		t.Errorf("%+v, %v", got, err)
	}
	for range maxOwnEvents {
		put(1, OwnService, "later")
	}
	if got, err := s.Events(t.Context(), at, at.Add(1), OwnService, "", 1000); err != nil || len(got) != maxOwnEvents || got[len(got)-1].Kind != "later" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestPutEventsBeside: events are put while another puts windows, none in vain.
func TestPutEventsBeside(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	const windows, events = 20, 100
	failed := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < windows && err == nil; n++ {
			m, kept := keptTraces(70, "catalog", begin)
			if err = s.Put(t.Context(), begin.Add(time.Duration(n)*Finest), m, kept, nil); err == nil {
				_, err = s.Tidy(t.Context(), begin.Add(time.Duration(n)*Finest))
			}
		}
		failed <- err
	}()
	for n := range events {
		if err := s.PutEvents(t.Context(), []Event{{First: begin, Last: begin, Count: 1, Service: OwnService, Kind: fmt.Sprint(n)}}); err != nil {
			t.Error(err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if got, err := s.Events(t.Context(), begin, begin.Add(time.Second), "", "", 2*events); err != nil || len(got) != events {
		t.Errorf("%d events, %v", len(got), err)
	}
}
