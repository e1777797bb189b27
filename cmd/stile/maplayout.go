package main

import (
	"cmp"
	"slices"
)

// layout places a graph's nodes in layers from left to right, each behind all who call it but for cycles, which are cut.
// Its points are the nodes, then the bends of edges that cross a layer.
type layout struct {
	layer  []int     // by point
	y      []float64 // of the point's middle, from 0
	layers [][]int   // points from top to bottom
	ways   [][]int   // by edge, its points from left to right; none for a call of oneself
	turned []bool    // by edge: it goes from right to left
	nodes  int
	part   []int      // by point: points that are joined have the same
	next   [2][][]int // by point, what it is joined to: to the left, to the right
}

// The heights of points, with what is between them.
const (
	nodeSlot = 64
	bendSlot = 18
)

// layOut needs the ends of each edge, as numbers of nodes.
func layOut(nodes int, ends [][2]int) *layout {
	l := &layout{nodes: nodes, layer: make([]int, nodes), ways: make([][]int, len(ends)), turned: make([]bool, len(ends))}
	l.setLayers(ends, l.cutCycles(ends))
	l.addBends(ends)
	l.setParts()
	l.y = make([]float64, len(l.layer))
	for _, points := range l.layers {
		l.stack(points)
	}
	for sweep := range 8 {
		l.untangle(sweep % 2)
	}
	for range 8 {
		for _, points := range l.layers {
			l.straighten(points)
		}
	}
	l.close()
	return l
}

// cutCycles turns edges that lead back to whom they come from. It returns the nodes, each behind all that lead to it then.
func (l *layout) cutCycles(ends [][2]int) []int {
	out, called := make([][]int, l.nodes), make([]bool, l.nodes)
	for i, e := range ends {
		if e[0] != e[1] {
			out[e[0]] = append(out[e[0]], i)
			called[e[1]] = true
		}
	}
	const fresh, open, done = 0, 1, 2
	state := make([]int, l.nodes)
	var order []int
	var visit func(n int)
	visit = func(n int) {
		state[n] = open
		for _, i := range out[n] {
			switch to := ends[i][1]; state[to] {
			case open:
				l.turned[i] = true
			case fresh:
				visit(to)
			}
		}
		state[n] = done
		order = append(order, n)
	}
	for _, roots := range []bool{true, false} {
		for n := range l.nodes {
			if state[n] == fresh && called[n] != roots {
				visit(n)
			}
		}
	}
	slices.Reverse(order)
	return order
}

// leftToRight is an edge's ends as they are placed.
func (l *layout) leftToRight(edge int, ends [2]int) (from, to int) {
	if l.turned[edge] {
		return ends[1], ends[0]
	}
	return ends[0], ends[1]
}

func (l *layout) setLayers(ends [][2]int, order []int) {
	behind := make([][]int, l.nodes)
	for i, e := range ends {
		if from, to := l.leftToRight(i, e); from != to {
			behind[from] = append(behind[from], to)
		}
	}
	for _, n := range order {
		for _, to := range behind[n] {
			l.layer[to] = max(l.layer[to], l.layer[n]+1)
		}
	}
	for n, layer := range l.layer {
		l.put(n, layer)
	}
}

func (l *layout) put(point, layer int) {
	for len(l.layers) <= layer {
		l.layers = append(l.layers, nil)
	}
	l.layers[layer] = append(l.layers[layer], point)
	l.next[0], l.next[1] = append(l.next[0], nil), append(l.next[1], nil)
}

func (l *layout) addBends(ends [][2]int) {
	for i, e := range ends {
		from, to := l.leftToRight(i, e)
		if from == to {
			continue
		}
		way := []int{from}
		for layer := l.layer[from] + 1; layer < l.layer[to]; layer++ {
			p := len(l.layer)
			l.layer = append(l.layer, layer)
			l.put(p, layer)
			way = append(way, p)
		}
		way = append(way, to)
		for j, p := range way[1:] {
			l.next[0][p] = append(l.next[0][p], way[j])
			l.next[1][way[j]] = append(l.next[1][way[j]], p)
		}
		l.ways[i] = way
	}
}

func (l *layout) setParts() {
	l.part = make([]int, len(l.layer))
	var mark func(p, part int)
	mark = func(p, part int) {
		l.part[p] = part
		for _, q := range slices.Concat(l.next[0][p], l.next[1][p]) {
			if l.part[q] == 0 {
				mark(q, part)
			}
		}
	}
	for p := range l.part {
		if l.part[p] == 0 {
			mark(p, p+1)
		}
	}
}

func (l *layout) slot(point int) float64 {
	if point < l.nodes {
		return nodeSlot
	}
	return bendSlot
}

// stack puts a layer's points one below the other.
func (l *layout) stack(points []int) {
	at := 0.0
	for _, p := range points {
		l.y[p] = at + l.slot(p)/2
		at += l.slot(p)
	}
	for _, p := range points {
		l.y[p] -= at / 2
	}
}

// untangle sorts each layer, part by part, by where its neighbours to the left (0) or right (1) are.
func (l *layout) untangle(side int) {
	layers := slices.Clone(l.layers)
	if side == 1 {
		slices.Reverse(layers)
	}
	for _, points := range layers {
		wish := map[int]float64{}
		for _, p := range points {
			wish[p] = l.mean(l.next[side][p], l.y[p])
		}
		slices.SortStableFunc(points, func(a, b int) int {
			return cmp.Or(cmp.Compare(l.part[a], l.part[b]), cmp.Compare(wish[a], wish[b]))
		})
		l.stack(points)
	}
}

// straighten moves a layer's points towards their neighbours, in the order that they have.
func (l *layout) straighten(points []int) {
	moved, floor := 0.0, 0.0
	for i, p := range points {
		wish := l.mean(slices.Concat(l.next[0][p], l.next[1][p]), l.y[p])
		l.y[p] = wish
		if i > 0 {
			l.y[p] = max(wish, floor+l.slot(p)/2)
		}
		floor = l.y[p] + l.slot(p)/2
		moved += l.y[p] - wish
	}
	for _, p := range points {
		l.y[p] -= moved / float64(len(points))
	}
}

// mean is the points' mean y, or else one's own.
func (l *layout) mean(points []int, own float64) float64 {
	if len(points) == 0 {
		return own
	}
	sum := 0.0
	for _, p := range points {
		sum += l.y[p]
	}
	return sum / float64(len(points))
}

// close takes out the bands that no point is in, and begins at 0.
func (l *layout) close() {
	byTop := make([]int, len(l.y))
	for i := range byTop {
		byTop[i] = i
	}
	top := func(p int) float64 { return l.y[p] - l.slot(p)/2 }
	slices.SortFunc(byTop, func(a, b int) int { return cmp.Compare(top(a), top(b)) })
	empty, low := 0.0, 0.0 // what is above a point and taken out; how far down its predecessors reach
	for i, p := range byTop {
		if at := top(p); i == 0 || at > low {
			empty += at - low
			low = at
		}
		low = max(low, top(p)+l.slot(p))
		l.y[p] -= empty
	}
}

// height is that of all points.
func (l *layout) height() float64 {
	low := 0.0
	for i, y := range l.y {
		low = max(low, y+l.slot(i)/2)
	}
	return low
}
