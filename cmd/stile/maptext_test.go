package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/routemap"
)

// TestPrintDecided: a map in text tells what policies decided, of those routes alone of which they did.
func TestPrintDecided(t *testing.T) {
	s := &routemap.Stats{Decisions: routemap.Decisions{Retries: 3, CacheHits: 9}}
	s.Left.Record(int64(2 * time.Second))
	key := routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "a"}, To: routemap.Node{Kind: routemap.Service, Name: "b"}, Operation: "s.S/M"}
	var b strings.Builder
	if err := printMap(&b, terminal.Style{}, &routemap.Report{Routes: []routemap.Route{{Key: key, Stats: s}, {Key: key, Stats: &routemap.Stats{Calls: 7}}}}, nil, 5); err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(b.String(), "What policies decided\n")
	if text, _, _ = strings.Cut(text, "\n\n"); !found || text != "LEFT P1  LEFT P50  ROUTE        DECISIONS\n2s       2s        a → b s.S/M  3 retries, 9 cache hits" {
		t.Errorf("%q", text)
	}
}
