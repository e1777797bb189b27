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

// TestPrintBeyond: a map in text tells at its top what it does not tell apart, and how many processes do not report.
func TestPrintBeyond(t *testing.T) {
	r := &routemap.Report{Folded: map[string]uint64{routemap.FoldedRoutes: 12, routemap.FoldedChains: 3}}
	for i, name := range []string{"a", "unknown", "b", "c", "d", "e", "f"} {
		n := routemap.NodeReport{Node: routemap.Node{Kind: routemap.Process, Name: name}}
		n.Processes = uint64(i % 2 * 600)
		if i > 1 {
			n.Processes = uint64(i)
		}
		r.Nodes = append(r.Nodes, n)
	}
	var b strings.Builder
	if err := printMap(&b, terminal.Style{}, r, nil, 5); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\n")
	text, _, _ = strings.Cut(text, "\n\n")
	if want := `  beyond what a map tells apart, root operations: 3
  beyond what a map tells apart, routes: 12
  processes that do not report, as process unknown: 600
  processes that do not report, as process f: 6
  processes that do not report, as process e: 5
  processes that do not report, as process d: 4
  processes that do not report, as process c: 3
  processes that do not report, as others: 2`; text != want {
		t.Errorf("%s", text)
	}
}

// TestWaitsOfServer: of calls that the server alone tells of nothing is said of what was before it.
func TestWaitsOfServer(t *testing.T) {
	stats := func(client bool) routemap.Route {
		s := routemap.Stats{Calls: 2, Waits: routemap.Waits{Calls: 2, ServerQueue: 4000, Handler: 6000}}
		if client {
			s.Client.RecordN(5000, 2)
		}
		return routemap.Route{Stats: &s}
	}
	for client, want := range map[bool]string{true: "0s 0s 2µs 3µs", false: "- - 2µs 3µs"} {
		var b strings.Builder
		printCounted(&b, terminal.Style{}, []routemap.Route{stats(client)}, 10)
		lines := strings.Split(b.String(), "\n")
		if got := strings.Join(strings.Fields(lines[3])[:4], " "); got != want {
			t.Errorf("client %v: %q, want %q", client, got, want)
		}
	}
}
