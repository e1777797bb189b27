package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// cell is one situation in which all peers are compared.
type cell struct {
	Kind    string `json:"kind"`
	Size    int    `json:"size"` // bytes of payload, each way
	Callers int    `json:"callers"`
}

func (c cell) String() string {
	if c.Callers == 1 {
		return fmt.Sprintf("%s %s, 1 caller", c.Kind, sizeText(c.Size))
	}
	return fmt.Sprintf("%s %s, %d callers", c.Kind, sizeText(c.Size), c.Callers)
}

func sizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// plan is what to run.
type plan struct {
	peers  []peer
	cells  []cell
	rounds int
	warmup time.Duration
	window time.Duration

	profiles string // folder for CPU profiles; "": none
}

const (
	// maxSize leaves room for framing below the 4 MiB that most peers receive.
	maxSize = 4<<20 - 1<<10
	// maxCallers keeps 64-bit stamps unique, and the machine alive.
	maxCallers = 1 << 14
	// pacedSize is the payload of the paced kind, which has one caller.
	pacedSize = 64
)

// cellsOf crosses kinds with sizes and callers.
func cellsOf(kindNames []string, sizes, callers []int) ([]cell, error) {
	var list []cell
	for _, kind := range kindNames {
		if kinds[kind] == nil {
			return nil, fmt.Errorf("no kind %q", kind)
		}
		if kind == "paced" {
			list = append(list, cell{kind, pacedSize, 1})
			continue
		}
		for _, size := range sizes {
			if size < 0 || size > maxSize {
				return nil, fmt.Errorf("size %d is not in 0 to %d", size, maxSize)
			}
			for _, n := range callers {
				if n < 1 || n > maxCallers {
					return nil, fmt.Errorf("%d callers are not in 1 to %d", n, maxCallers)
				}
				list = append(list, cell{kind, size, n})
			}
		}
	}
	return list, nil
}

// intsOf reads a comma-separated list.
func intsOf(text string) ([]int, error) {
	var list []int
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of numbers", text)
		}
		list = append(list, n)
	}
	return list, nil
}

// orderOf returns the peers in the order of one round of one cell. It moves on
// with both, so that no peer always runs first or after the same state of the
// machine.
func (p plan) orderOf(round, cell int) []peer {
	peers := p.peersIn(p.cells[cell])
	first := (round + cell) % max(len(peers), 1)
	return append(append([]peer(nil), peers[first:]...), peers[:first]...)
}

// peersIn returns the peers that have the cell's kind of call.
func (p plan) peersIn(c cell) []peer {
	var list []peer
	for _, peer := range p.peers {
		if peer.streams || c.Kind != "stream" && c.Kind != "bidi" {
			list = append(list, peer)
		}
	}
	return list
}
