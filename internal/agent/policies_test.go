package agent

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/inforce"
	"github.com/stile-ipc/stile/telemetry"
)

// TestTexts: a version's text is told once, and once more to a hub that was restarted, or after a window was dropped in which it was.
func TestTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		var mu sync.Mutex
		now := []inforce.Policy{{Source: "a.yaml", From: "file", Hash: [16]byte{1}, Text: "one", Since: time.Now()}}
		a := Start(Config{
			Hub: h, Recorder: telemetry.NewRecorder(), Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler),
			Policies: func() []inforce.Policy {
				mu.Lock()
				defer mu.Unlock()
				return append([]inforce.Policy{}, now...)
			},
		})
		defer a.Close(t.Context())
		time.Sleep(Window / 2)
		texts := func(windows int, change func()) (n int) {
			t.Helper()
			for range windows {
				time.Sleep(Window)
			}
			synctest.Wait()
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, r := range h.got {
				if len(r.Policies) == 0 || r.Policies[0].Source != "a.yaml" {
					t.Errorf("%v", r.Policies)
				}
				for _, p := range r.Policies {
					if p.Text != "" {
						n++
					}
				}
			}
			h.got = nil
			mu.Lock()
			defer mu.Unlock()
			change()
			return n
		}
		if n := texts(3, func() { now[0].Hash, now[0].Text = [16]byte{2}, "two" }); n != 1 {
			t.Errorf("at first: %d", n)
		}
		if n := texts(3, func() { h.kept = h.reported }); n != 1 {
			t.Errorf("of another version: %d", n)
		}
		if n := texts(3, func() { h.restart() }); n != 0 {
			t.Errorf("known already: %d", n)
		}
		if n := texts(3, func() { h.away = true }); n == 0 {
			t.Error("none for a hub that was restarted")
		}
		now2 := func() { now[0].Hash, now[0].Text = [16]byte{3}, "three" }
		texts(1, now2)
		texts(maxHeld+5, func() { h.away = false })
		if n := texts(3, func() {}); n == 0 {
			t.Error("none of what was in a window that was dropped")
		}
	})
}

// TestManyPolicies: like ones are one, and however many and long there are, what is told has bounds.
func TestManyPolicies(t *testing.T) {
	a := &Agent{texts: map[[16]byte]bool{}}
	now := time.Now()
	control := inforce.Control{Kind: "limit", Method: strings.Repeat("m", 1000)}
	var in []inforce.Policy
	for i := range 200 {
		p := inforce.Policy{Source: fmt.Sprint(i), Hash: [16]byte{byte(i)}, Text: strings.Repeat("é", maxText/2-1), Since: now, Refused: strings.Repeat("é", maxRefusedText), Controls: []inforce.Control{control, control}}
		in = append(in, p, p)
	}
	in = append(in, inforce.Policy{Source: "", Text: strings.Repeat("x", maxText+1)})
	all := a.policies(in)
	controls, texts := 0, 0
	for _, p := range all {
		controls, texts = controls+len(p.Controls), texts+len(p.Text)
		if !utf8.ValidString(p.Refused) || len(p.Refused) > maxRefusedText || p.Source != "" && p.Alike != 2 {
			t.Errorf("%s: %d alike, refused for %d bytes", p.Source, p.Alike, len(p.Refused))
		}
		if _, err := proto.Marshal(p); err != nil {
			t.Error(err)
		}
	}
	if len(all) != maxPolicies || controls > maxControls || texts > maxTexts || texts == 0 || all[0].Source != "" || all[0].Text != "" {
		t.Errorf("%d policies, %d controls, %d bytes", len(all), controls, texts)
	}
	if again := a.policies(in); again[1].Text != "" || again[20].Text == "" {
		t.Error("texts for which there was no room do not come with the next window")
	}
}

// TestDecisionsTold: each decision is told as what it is, also on a route without a call, and with what time calls had left.
func TestDecisionsTold(t *testing.T) {
	r := telemetry.NewRecorder()
	r.Enable()
	route := r.Link(telemetry.Server, "shm", telemetry.Peer{}).Route(telemetry.RouteName{Method: "/s/M"})
	for d := telemetry.Retry; d <= telemetry.Late; d++ {
		for range d + 1 {
			route.Decide(d)
		}
	}
	all := routes(r.Take(), 0)
	want := &hubpb.Decisions{Retries: 1, Hedges: 2, Breaker: 3, Limit: 4, Budget: 5, Admission: 6, CacheHits: 7, Coalesced: 8, Fallbacks: 9, Late: 10}
	if len(all) != 1 || !proto.Equal(all[0].Decisions, want) || len(all[0].Codes) != 0 || all[0].DeadlineLeft != nil {
		t.Fatalf("%v", all)
	}
	route.Record(0, &telemetry.Call{Left: time.Second})
	if all := routes(r.Take(), 0); len(all) != 1 || all[0].Decisions != nil || all[0].DeadlineLeft.GetMin() != uint64(time.Second) {
		t.Errorf("%v", all)
	}
}
