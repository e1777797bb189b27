package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func testDriver(t *testing.T) *driver {
	t.Helper()
	d, err := newDriver(t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestPeersEcho runs every peer as the benchmark does, in two processes, for a
// short while; the client verifies each reply.
func TestPeersEcho(t *testing.T) {
	d := testDriver(t)
	for _, p := range peers() {
		for _, size := range []int{0, 1, 64, 1024, 64 << 10, 1 << 20} {
			callers := []int{1, 64}
			if size > 64<<10 {
				callers = []int{2}
			}
			for _, n := range callers {
				c := cell{"unary", size, n}
				t.Run(fmt.Sprintf("%s/%d/%d", p.name, size, n), func(t *testing.T) { checkPair(t, d, p, c) })
			}
		}
		if p.streams {
			for _, kind := range []string{"stream", "bidi"} {
				for _, size := range []int{64, 64 << 10} {
					c := cell{kind, size, 2}
					t.Run(fmt.Sprintf("%s/%s/%d", p.name, kind, size), func(t *testing.T) { checkPair(t, d, p, c) })
				}
			}
		}
		t.Run(p.name+"/paced", func(t *testing.T) { checkPair(t, d, p, cell{"paced", pacedSize, 1}) })
	}
}

func checkPair(t *testing.T, d *driver, p peer, c cell) {
	t.Helper()
	s, err := d.runPair(t.Context(), p, job{Peer: p.name, Cell: c, Warmup: 10 * time.Millisecond, Window: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if s.Calls == 0 || s.P50 <= 0 || s.P99 < s.P50 || s.CallsPerS <= 0 || s.CPU <= 0 || s.RSS <= 0 || s.Allocs <= 0 {
		t.Errorf("sample %+v", *s)
	}
}

// TestRunPlan checks that rows come in the order of cells and peers, not of runs.
func TestRunPlan(t *testing.T) {
	list, err := peersNamed("grpc-unix,net-rpc")
	if err != nil {
		t.Fatal(err)
	}
	p := plan{peers: list, rounds: 2, warmup: 5 * time.Millisecond, window: 20 * time.Millisecond}
	p.cells = []cell{{"unary", 64, 1}, {"unary", 64, 4}}
	var progress strings.Builder
	rows, err := testDriver(t).runPlan(t.Context(), p, &progress)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s %d", r.Peer, r.Callers))
		if r.P50.Min > r.P50.Median || r.P50.Median > r.P50.Max {
			t.Errorf("p50 %+v", r.P50)
		}
	}
	if want := []string{"grpc-unix 1", "net-rpc 1", "grpc-unix 4", "net-rpc 4"}; !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if n := strings.Count(progress.String(), "\n"); n != 8 {
		t.Errorf("%d lines of progress, want 8", n)
	}
}

// TestCanceledPairEnds checks that both processes end early: runPair waits for them.
func TestCanceledPairEnds(t *testing.T) {
	d := testDriver(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	p := ttrpcPeer()
	_, err := d.runPair(ctx, p, job{Peer: p.name, Cell: cell{"unary", 64, 2}, Window: time.Hour})
	if err == nil {
		t.Error("an hour has passed")
	}
}

func TestFailingPairSaysWhy(t *testing.T) {
	d := testDriver(t)
	_, err := d.runPair(t.Context(), netrpcPeer(), job{Peer: "nobody", Cell: cell{"unary", 64, 1}})
	if err == nil || !strings.Contains(err.Error(), "client: exit status 1") {
		t.Errorf("processes that cannot start gave %v", err)
	}
}
