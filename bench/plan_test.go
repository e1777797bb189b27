package main

import (
	"reflect"
	"testing"
)

func TestOptionsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--peers", "nobody"},
		{"--kinds", "binary"},
		{"--sizes", "64,big"},
		{"--sizes", "-1"},
		{"--sizes", "4194304"},
		{"--callers", "0"},
		{"--rounds", "0"},
		{"--seconds", "0"},
		{"extra"},
	} {
		if _, err := optionsOf(args); err == nil {
			t.Errorf("%q accepted", args)
		}
	}
}

func TestDefaultCells(t *testing.T) {
	o, err := optionsOf(nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []cell
	for _, kind := range []string{"unary", "stream", "bidi"} {
		for _, size := range []int{64, 1024, 65536} {
			want = append(want, cell{kind, size, 1}, cell{kind, size, 64})
		}
	}
	want = append(want, cell{"paced", 64, 1})
	if !reflect.DeepEqual(o.cells, want) || o.rounds != 3 {
		t.Errorf("%d rounds of %v", o.rounds, o.cells)
	}
}

// TestOrderRotates checks that every peer runs first in some round of a cell, and
// that no run is lost.
func TestOrderRotates(t *testing.T) {
	p := plan{peers: peers(), cells: make([]cell, 4)}
	first := make(map[string]bool)
	for round := range p.peers {
		seen := make(map[string]bool)
		order := p.orderOf(round, 3)
		for _, peer := range order {
			seen[peer.name] = true
		}
		if len(order) != len(p.peers) || len(seen) != len(p.peers) {
			t.Errorf("round %d runs %s", round, peerNames(order))
		}
		first[order[0].name] = true
	}
	if len(first) != len(p.peers) {
		t.Errorf("only %d peers ever run first", len(first))
	}
}
