package routemap

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestSeen: processes that a node stands for are counted once each, however often and where they are seen, whatever is merged and stored meanwhile.
func TestSeen(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 5, maxLeast - 1, 1000, 50_000} {
		whole, parts := New(), New()
		for range 3 {
			part := New()
			for range n {
				one := r.Uint64()
				for _, m := range []*Map{whole, whole, part} {
					m.Seen(Node{Process, "unknown"}, one)
				}
			}
			for range 2 {
				parts.Merge(part)
				rest, err := part.Store(parts.LoadRoute)
				if err != nil {
					t.Fatal(err)
				}
				if err := parts.Load(rest); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, m := range []*Map{whole, parts} {
			got := uint64(0)
			for _, one := range m.Report().Nodes {
				got += one.Processes
			}
			if want := float64(3 * n); n < maxLeast/3 && got != uint64(want) || math.Abs(float64(got)-want) > 4*want/math.Sqrt(maxLeast) {
				t.Errorf("%d processes, not %g", got, want)
			}
		}
		if got, want := fmt.Sprint(whole.Report().Nodes), fmt.Sprint(parts.Report().Nodes); got != want {
			t.Errorf("%s, and of parts %s", got, want)
		}
	}
}
