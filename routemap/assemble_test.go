package routemap

import (
	"fmt"
	"slices"
	"testing"
)

// TestAssembler: spans of traces that come mixed are put together; of too many the trace that had none for longest is ended.
func TestAssembler(t *testing.T) {
	var got []string
	a := NewAssembler(6, func(tr *Trace) { got = append(got, fmt.Sprint(tr.ID, tr.Len())) })
	add := func(trace string, id uint64) { a.Add(Span{Trace: trace, ID: id, Start: 1, End: 2}) }
	for i := range uint64(2) {
		add("a", i+1)
		add("b", i+1)
		add("c", i+1)
	}
	add("a", 3)
	add("a", 4)
	add("b", 3)
	a.Flush()
	if want := []string{"b2", "c2", "a4", "b1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var n int
	a = NewAssembler(0, func(tr *Trace) { n = tr.Len() })
	for i := range uint64(maxTraceSpans + 10) {
		add("a", i+1)
	}
	if a.Flush(); n != maxTraceSpans || a.LeftOut() != 10 {
		t.Errorf("%d spans, %d left out", n, a.LeftOut())
	}
}

// TestAssemblerWide: spans that say much of bodies, and notes, count as what they take.
func TestAssemblerWide(t *testing.T) {
	ended := 0
	a := NewAssembler(100, func(*Trace) { ended++ })
	for i := range 100 {
		a.Add(Span{Trace: fmt.Sprint(i), ID: 1, Note: true, Bodies: &Bodies{Request: make([]Blob, 16), Asked: slices.Repeat([]Asked{{Uses: make([]uint64, 8)}}, 64)}})
	}
	const each = 1 + (16*24+64*(48+8*8))/512
	if a.Holds() != 100/each || ended != 100-a.Holds() {
		t.Errorf("%d held, %d ended", a.Holds(), ended)
	}
	if a.Flush(); a.Holds() != 0 || a.room != 0 {
		t.Errorf("%d and %d are left", a.Holds(), a.room)
	}
}
