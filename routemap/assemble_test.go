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
