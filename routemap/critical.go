package routemap

import (
	"cmp"
	"slices"
	"sort"
)

// Section is a stretch of time on a critical path, and the span that it was spent in.
type Section struct {
	Span  int   // of the trace
	Start int64 // ns since 1970
	End   int64
}

// clockError is how far apart two times of one instant may be: most formats have microseconds.
const clockError = 1000

// shareOverlap is the part of a parent that siblings may overlap, one after the other though they are.
const shareOverlap = 100

// CriticalPath returns what a root's duration was spent with: sections that do not overlap and together are the root's duration, the earliest first. It
// walks back from the root's end. At each moment the span that ended last is what was waited for; where none had, the span above worked itself.
func (t *Trace) CriticalPath(root int) []Section {
	var path []Section
	type step struct {
		span   int
		lo, hi int64
	}
	steps := []step{{root, t.nodes[root].start, t.nodes[root].end}}
	for len(steps) > 0 {
		s := steps[len(steps)-1]
		steps = steps[:len(steps)-1]
		cursor := s.hi
		for c := range t.waitedFor(s.span, s.lo, s.hi) {
			if c.end < cursor {
				path = append(path, Section{s.span, c.end, cursor})
			}
			steps = append(steps, step{c.span, c.start, c.end})
			cursor = c.start
		}
		if s.lo < cursor {
			path = append(path, Section{s.span, s.lo, cursor})
		}
	}
	slices.SortFunc(path, func(a, b Section) int { return cmp.Compare(a.Start, b.Start) })
	return path
}

// stretch is a part of a child's time.
type stretch struct {
	span       int
	start, end int64
}

// waitedFor calls yield for the children of a span that it waited for between two moments, from the last to the first; their times do not overlap.
func (t *Trace) waitedFor(span int, lo, hi int64) func(yield func(stretch) bool) {
	var all []stretch
	for _, c := range t.nodes[span].children {
		n := t.nodes[c]
		if start, end := max(n.start, lo), min(n.end, hi); !n.async && start < end {
			all = append(all, stretch{c, start, end})
		}
	}
	slices.SortFunc(all, func(a, b stretch) int {
		return cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(a.start, b.start), cmp.Compare(t.nodes[a.span].ID, t.nodes[b.span].ID))
	})
	slack := max((t.nodes[span].end-t.nodes[span].start)/shareOverlap, clockError)
	var between func(from, to int64) int
	return func(yield func(stretch) bool) {
		for cursor, i := hi, 0; i < len(all); i++ {
			c := all[i]
			if c.start >= cursor {
				continue
			}
			if over := c.end - cursor; over > 0 {
				if over > slack {
					continue // it was still at work, so nobody waited for it here
				}
				if between == nil {
					between = countEvents(all)
				}
				if between(cursor, c.end) > 0 {
					continue
				}
				c.end = cursor
			}
			if !yield(c) {
				return
			}
			cursor = c.start
		}
	}
}

// countEvents returns a function that counts beginnings and ends of stretches between two moments.
func countEvents(all []stretch) func(from, to int64) int {
	var at []int64
	for _, c := range all {
		at = append(at, c.start, c.end)
	}
	slices.Sort(at)
	return func(from, to int64) int {
		first := sort.Search(len(at), func(i int) bool { return at[i] > from })
		last := sort.Search(len(at), func(i int) bool { return at[i] >= to })
		return max(last-first, 0)
	}
}
