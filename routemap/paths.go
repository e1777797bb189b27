package routemap

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// paths are the ways from roots to spans, by service and operation, and how much of the roots' durations was spent at their ends.
type paths struct {
	ids    map[pathKey]int32
	all    []pathNode
	sums   map[int32]int64 // by path, ns on critical paths
	roots  map[int32]*rootSum
	kept   []record // any trace as likely as any other
	seen   uint64
	labels map[string]int32
	names  []string
	cut    uint64 // steps that count for what is above, as there are too many
}

type pathKey struct{ parent, label int32 }

type pathNode struct {
	parent int32 // -1: a root
	label  int32
	depth  int32
}

type rootSum struct {
	traces   uint64 // with those for which chosen ones stand
	duration int64
}

// record is the critical path of one root, by paths.
type record struct {
	root     int32
	duration int64
	parts    []part
}

type part struct {
	path int32
	took int64
}

// morePaths is how many there are at most until they are made to fit again: those of a map, of another one that is merged with it, and of a trace.
const morePaths = 3*maxPaths + maxTraceSpans

func newPaths() paths {
	return paths{ids: map[pathKey]int32{}, sums: map[int32]int64{}, roots: map[int32]*rootSum{}, labels: map[string]int32{}}
}

// of returns the path of each span. A call's two halves are one step.
func (p *paths) of(v *view) []int32 {
	out := make([]int32, v.Len())
	for _, i := range v.order {
		n := &v.nodes[i]
		if n.parent < 0 {
			out[i] = p.id(-1, n.Service+" "+operation(n.Span))
			continue
		}
		if c := v.into[n.parent]; c >= 0 && v.calls[c].server == i && v.calls[c].client == n.parent {
			out[i] = out[n.parent]
			continue
		}
		label := n.Service + " " + operation(n.Span)
		if c := v.into[i]; c >= 0 {
			label = v.calls[c].key.To.String() + " " + v.calls[c].key.Operation
		}
		out[i] = p.id(out[n.parent], label)
	}
	return out
}

func (p *paths) id(parent int32, label string) int32 {
	l, known := p.labels[label]
	if !known {
		if len(p.names) >= morePaths {
			label = other
			l, known = p.labels[label]
		}
		if !known {
			l = int32(len(p.names))
			p.names = append(p.names, label)
			p.labels[label] = l
		}
	}
	k := pathKey{parent, l}
	id, known := p.ids[k]
	if !known {
		depth := int32(0)
		if parent >= 0 {
			depth = p.all[parent].depth + 1
			if len(p.all) >= morePaths || depth > maxSteps {
				p.cut++
				return parent // what is further down counts for what is above
			}
		}
		id = int32(len(p.all))
		p.all = append(p.all, pathNode{parent, l, depth})
		p.ids[k] = id
	}
	return id
}

// keep adds a root's critical path, which counts as often as its weight says.
func (p *paths) keep(r *rand.Rand, root int32, duration int64, weight uint64, byPath map[int32]int64) {
	rec := record{root: root, duration: duration}
	for path, took := range byPath {
		rec.parts = append(rec.parts, part{path, took})
	}
	slices.SortFunc(rec.parts, func(a, b part) int { return cmp.Compare(a.path, b.path) })
	sum := p.root(rec.root)
	sum.traces += weight
	sum.duration = plus(sum.duration, often(rec.duration, weight))
	for _, part := range rec.parts {
		p.sums[part.path] = plus(p.sums[part.path], often(part.took, weight))
	}
	p.seen++
	if len(p.kept) < maxRecords {
		p.kept = append(p.kept, rec)
	} else if i := r.Uint64N(p.seen); i < maxRecords {
		p.kept[i] = rec
	}
}

func (p *paths) root(path int32) *rootSum {
	sum := p.roots[path]
	if sum == nil {
		sum = &rootSum{}
		p.roots[path] = sum
	}
	return sum
}

// HotPath is a way from a root, and the part of the roots' durations that was spent at its end, on critical paths.
type HotPath struct {
	Root   string   `json:"root"`
	Steps  []string `json:"steps"` // after the root
	Traces uint64   `json:"traces"`
	Share  float64  `json:"share"`
	Tail   float64  `json:"tail"` // share among the slowest twentieth of the root's traces
	Each   int64    `json:"each"` // ns for each of the root's traces
	Hot    bool     `json:"hot"`  // a tenth or more, or among the fewest that make four fifths
}

const (
	hotShare    = 0.10
	hotTogether = 0.80
	tailFrom    = 0.95
)

// hot returns all paths on which time was spent, by root, the largest share first.
func (p *paths) hot() []HotPath {
	tail := p.tails()
	var out []HotPath
	for _, path := range slices.Sorted(maps.Keys(p.sums)) { // sums of floats depend on their order
		took, root := p.sums[path], p.rootOf(path)
		sum := p.roots[root]
		if sum == nil || sum.duration == 0 {
			continue
		}
		h := HotPath{
			Root: p.names[p.all[root].label], Steps: p.steps(path), Traces: sum.traces,
			Share: float64(took) / float64(sum.duration), Tail: tail[path], Each: took / int64(sum.traces),
		}
		out = append(out, h)
	}
	weight := map[string]float64{}
	for _, h := range out {
		weight[h.Root] += float64(h.Each) * float64(h.Traces)
	}
	slices.SortFunc(out, func(a, b HotPath) int {
		return cmp.Or(cmp.Compare(weight[b.Root], weight[a.Root]), cmp.Compare(a.Root, b.Root), cmp.Compare(b.Share, a.Share), slices.Compare(a.Steps, b.Steps))
	})
	together := 0.0
	for i := range out {
		if i == 0 || out[i].Root != out[i-1].Root {
			together = 0
		}
		out[i].Hot = out[i].Share >= hotShare || together < hotTogether
		together += out[i].Share
	}
	return out
}

// tails is each path's share of the slowest traces of its root.
func (p *paths) tails() map[int32]float64 {
	byRoot := map[int32][]record{}
	for _, r := range p.kept {
		byRoot[r.root] = append(byRoot[r.root], r)
	}
	out := map[int32]float64{}
	for _, all := range byRoot {
		slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.duration, b.duration) })
		slowest := all[min(int(tailFrom*float64(len(all))), len(all)-1):]
		total := int64(0)
		for _, r := range slowest {
			total += r.duration
		}
		if total == 0 {
			continue
		}
		for _, r := range slowest {
			for _, part := range r.parts {
				out[part.path] += float64(part.took) / float64(total)
			}
		}
	}
	return out
}

func (p *paths) rootOf(path int32) int32 {
	for p.all[path].parent >= 0 {
		path = p.all[path].parent
	}
	return path
}

func (p *paths) steps(path int32) []string {
	steps := []string{}
	for ; p.all[path].parent >= 0; path = p.all[path].parent {
		steps = append(steps, p.names[p.all[path].label])
	}
	slices.Reverse(steps)
	return steps
}
