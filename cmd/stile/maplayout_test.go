package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// sound fails unless edges lead to the right but for those that are turned, and no two points are in the same place.
func sound(t *testing.T, l *layout, ends [][2]int) {
	t.Helper()
	for i, e := range ends {
		from, to := l.leftToRight(i, e)
		way := l.ways[i]
		if e[0] == e[1] {
			if way != nil || l.turned[i] {
				t.Errorf("edge %d of %v has the way %v", i, ends, way)
			}
			continue
		}
		if len(way) != l.layer[to]-l.layer[from]+1 || way[0] != from || way[len(way)-1] != to {
			t.Fatalf("edge %d of %v has the way %v", i, ends, way)
		}
		for j, p := range way {
			if l.layer[p] != l.layer[from]+j || j > 0 && j < len(way)-1 && p < l.nodes {
				t.Fatalf("edge %d of %v passes %d at layer %d", i, ends, p, l.layer[p])
			}
		}
	}
	placed := 0
	for _, points := range l.layers {
		placed += len(points)
		for j, p := range points {
			if top := l.y[p] - l.slot(p)/2; top < -0.01 || j > 0 && top < l.y[points[j-1]]+l.slot(points[j-1])/2-0.01 {
				t.Fatalf("%v: point %d is at %v", ends, p, l.y[p])
			}
		}
	}
	if placed != len(l.layer) || placed != len(l.y) {
		t.Fatalf("%v: %d points of %d are in layers", ends, placed, len(l.layer))
	}
}

func TestLayOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		nodes  int
		ends   [][2]int
		layers []int
		turned []int
	}{
		{"nothing", 0, nil, nil, nil},
		{"itself", 1, [][2]int{{0, 0}}, []int{0}, nil},
		{"two", 2, [][2]int{{0, 1}}, []int{0, 1}, nil},
		{"there and back", 2, [][2]int{{0, 1}, {1, 0}}, []int{0, 1}, []int{1}},
		{"a cycle behind a root", 4, [][2]int{{1, 2}, {2, 3}, {3, 1}, {0, 1}}, []int{0, 1, 2, 3}, []int{2}},
		{"the longest way counts", 3, [][2]int{{0, 2}, {0, 1}, {1, 2}}, []int{0, 1, 2}, nil},
		{"a root that is told last", 3, [][2]int{{0, 1}, {1, 1}, {2, 0}}, []int{1, 2, 0}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := layOut(c.nodes, c.ends)
			sound(t, l, c.ends)
			var turned []int
			for i, is := range l.turned {
				if is {
					turned = append(turned, i)
				}
			}
			if !slices.Equal(l.layer[:c.nodes], c.layers) || !slices.Equal(turned, c.turned) {
				t.Errorf("layers %v, turned %v", l.layer[:c.nodes], turned)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		nodes := 1 + r.IntN(20)
		ends := make([][2]int, r.IntN(drawnRoutes))
		for i := range ends {
			ends[i] = [2]int{r.IntN(nodes), r.IntN(nodes)}
		}
		sound(t, layOut(nodes, ends), ends)
	}
}

func TestDraw(t *testing.T) {
	node := func(name string) routemap.Node { return routemap.Node{Kind: routemap.Service, Name: name} }
	route := func(from, to string, mode routemap.Mode, calls, failed uint64) routemap.Route {
		return routemap.Route{Key: routemap.Key{From: node(from), To: node(to), Mode: mode}, Stats: &routemap.Stats{Calls: calls, Errors: map[string]uint64{"error": failed}}}
	}
	d := draw(&routemap.Report{Routes: []routemap.Route{
		route("a", "b", routemap.Sync, 1000, 0), route("b", "a", routemap.Sync, 10, 10), route("b", "b", routemap.Sync, 1, 0), route("a", "c", routemap.Async, 1_000_000, 1),
	}}, 1)
	if len(d.Boxes) != 3 || len(d.Lines) != 4 || len(d.Labels) != 4 {
		t.Fatalf("%d boxes, %d lines, %d labels", len(d.Boxes), len(d.Lines), len(d.Labels))
	}
	for i, want := range []struct{ width, class, label string }{
		{"4.6", "well", "1.0k"}, {"2.2", "many", "10 · 100.0 %"}, {"1.0", "well", "1"}, {"7.0", "some async", "1.0M · 0.0 %"},
	} {
		if l := d.Lines[i]; l.Width != want.width || l.Class != want.class || d.Labels[i].Text != want.label {
			t.Errorf("line %d is %+v, its label %+v", i, l, d.Labels[i])
		}
	}
	for i, b := range d.Boxes {
		if b.X < 0 || b.Y < loopHeight || b.X+boxWidth > d.Width || b.Y+boxHeight > d.Height {
			t.Errorf("box %d is outside: %+v of %d × %d", i, b, d.Width, d.Height)
		}
	}
	if got := shortened("0123456789", 7); got != "012…789" {
		t.Errorf("%q", got)
	}
}
