package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/stile-ipc/stile/routemap"
)

// drawnRoutes is how many routes are drawn at most, the costliest.
const drawnRoutes = 60

// Measures of the drawing, in pixels.
const (
	boxWidth, boxHeight = 176, 42
	boxGap              = 128
	loopHeight          = 16
	margin              = 8
)

// drawing is the routes as a picture.
type drawing struct {
	Width, Height int
	Routes        int // that are drawn
	Boxes         []box
	Lines         []line
	Labels        []label
}

// box is a node.
type box struct {
	X, Y, Width, Height int
	Kind                routemap.NodeKind
	Name, Note          string
	Title               string
}

// line is all routes from one node to another.
type line struct {
	Path, Head string // of <path>s
	Width      string
	Class      string
	Title      string
}

type label struct {
	X, Y  int
	Class string
	Text  string
}

// Width is what the text takes, or somewhat more.
func (l label) Width() int { return 6*utf8.RuneCountInString(l.Text) + 4 }

// Left is where the text begins.
func (l label) Left() int { return l.X - l.Width()/2 }

// Top is above the text.
func (l label) Top() int { return l.Y - 7 }

// draw makes a picture of the costliest routes.
func draw(r *routemap.Report, total int64) *drawing {
	routes := first(r.Routes, drawnRoutes)
	edges := edgesOf(routes)
	at := map[routemap.Node]int{}
	var nodes []routemap.Node
	var ends [][2]int
	for _, e := range edges {
		for _, n := range []routemap.Node{e.from, e.to} {
			if _, known := at[n]; !known {
				at[n] = len(nodes)
				nodes = append(nodes, n)
			}
		}
		ends = append(ends, [2]int{at[e.from], at[e.to]})
	}
	l := layOut(len(nodes), ends)
	d := &drawing{
		Width:  2*margin + len(l.layers)*(boxWidth+boxGap) - boxGap,
		Height: 2*margin + int(math.Ceil(l.height())), Routes: len(routes),
	}
	d.addBoxes(l, r, nodes, total)
	d.addLines(l, edges, ends)
	return d
}

func (d *drawing) addBoxes(l *layout, r *routemap.Report, nodes []routemap.Node, total int64) {
	own := map[routemap.Node]int64{}
	for _, n := range r.Nodes {
		own[n.Node] = n.Critical
	}
	for i, n := range nodes {
		b := box{X: left(l, i), Y: int(middle(l, i)) - boxHeight/2, Width: boxWidth, Height: boxHeight, Kind: n.Kind, Name: shortened(plain(n.Name), 22)}
		b.Note = percent(float64(own[n]), float64(total))
		b.Title = fmt.Sprintf("%s: %s of the roots' durations", plain(n.String()), b.Note)
		if n.Kind != routemap.Service {
			b.Note = shortened(plain(string(n.Kind)), 22)
		}
		d.Boxes = append(d.Boxes, b)
	}
}

// left is where a point's layer begins.
func left(l *layout, point int) int { return margin + l.layer[point]*(boxWidth+boxGap) }

func middle(l *layout, point int) float64 { return margin + l.y[point] }

func (d *drawing) addLines(l *layout, edges []edge, ends [][2]int) {
	starts, stops := l.ports()
	for i, e := range edges {
		one := line{
			Width: fmt.Sprintf("%.1f", min(1+1.2*math.Log10(float64(max(e.calls, 1))), 7)), Class: failing(e),
			Title: fmt.Sprintf("%s → %s: %d calls, %d failed (%s)", plain(e.from.String()), plain(e.to.String()), e.calls, e.failed, percent(float64(e.failed), float64(e.calls))),
		}
		if e.async {
			one.Class += " async"
		}
		if way := l.ways[i]; way == nil {
			x, y := left(l, ends[i][0])+boxWidth-52, middle(l, ends[i][0])-boxHeight/2
			one.Path = fmt.Sprintf("M%d %.1fc0 -%d 28 -%d 28 -5", x, y, loopHeight, loopHeight)
			one.Head = fmt.Sprintf("M%d %.1fl-5 -8h10z", x+28, y)
			d.addLabel(e, [][2]float64{{float64(x) - 22, y - 9}})
		} else {
			d.addWay(l, &one, way, e, starts[i], stops[i], l.turned[i])
		}
		d.Lines = append(d.Lines, one)
	}
}

// ports are where edges leave their boxes at the right, and where they reach them at the left.
func (l *layout) ports() (starts, stops []float64) {
	starts, stops = make([]float64, len(l.ways)), make([]float64, len(l.ways))
	spread := func(at []float64, own, neighbour func(way []int) int) {
		byNode := map[int][]int{}
		for i, way := range l.ways {
			if way != nil {
				byNode[own(way)] = append(byNode[own(way)], i)
			}
		}
		for n, edges := range byNode {
			slices.SortStableFunc(edges, func(a, b int) int {
				return cmp.Compare(l.y[neighbour(l.ways[a])], l.y[neighbour(l.ways[b])])
			})
			for j, i := range edges {
				at[i] = middle(l, n) + (boxHeight-6)*(float64(j+1)/float64(len(edges)+1)-0.5)
			}
		}
	}
	spread(starts, func(way []int) int { return way[0] }, func(way []int) int { return way[1] })
	spread(stops, func(way []int) int { return way[len(way)-1] }, func(way []int) int { return way[len(way)-2] })
	return starts, stops
}

// addWay draws an edge through its bends; turned, its head is at the left.
func (d *drawing) addWay(l *layout, one *line, way []int, e edge, start, stop float64, turned bool) {
	const head = 8
	x, y := float64(left(l, way[0])+boxWidth), start
	end := float64(left(l, way[len(way)-1]))
	one.Head = fmt.Sprintf("M%.0f %.1fl-%d -5v10z", end, stop, head)
	if turned {
		one.Head = fmt.Sprintf("M%.0f %.1fl%d -5v10z", x, y, head)
		x += head
	} else {
		end -= head
	}
	var b strings.Builder
	fmt.Fprintf(&b, "M%.0f %.1f", x, y)
	var spots [][2]float64
	for _, p := range way[1:] {
		toX, toY := float64(left(l, p)), middle(l, p)
		if p == way[len(way)-1] {
			toX, toY = end, stop
		}
		mid := (x + toX) / 2
		fmt.Fprintf(&b, "C%.0f %.1f %.0f %.1f %.0f %.1f", mid, y, mid, toY, toX, toY)
		spots = append(spots, [2]float64{mid, (y + toY) / 2}, [2]float64{x + 0.3*(toX-x), y + 0.216*(toY-y)}, [2]float64{x + 0.7*(toX-x), y + 0.784*(toY-y)})
		x, y = toX, toY
		if p != way[len(way)-1] {
			x += boxWidth
			fmt.Fprintf(&b, "H%.0f", x)
		}
	}
	one.Path = b.String()
	d.addLabel(e, spots)
}

// addLabel writes at the first spot that is free, if one is.
func (d *drawing) addLabel(e edge, spots [][2]float64) {
	text := roughly(e.calls)
	if e.failed > 0 {
		text += " · " + percent(float64(e.failed), float64(e.calls))
	}
	for _, s := range spots {
		one := label{int(s[0]), int(s[1]), failing(e), text}
		if !slices.ContainsFunc(d.Labels, func(l label) bool {
			return max(one.X-l.X, l.X-one.X) < (one.Width()+l.Width())/2 && max(one.Y-l.Y, l.Y-one.Y) < 14
		}) {
			d.Labels = append(d.Labels, one)
			return
		}
	}
}

// failing is an edge's class, by the share of its calls that failed.
func failing(e edge) string {
	switch {
	case e.failed == 0:
		return "well"
	case float64(e.failed) < 0.05*float64(e.calls):
		return "some"
	}
	return "many"
}

// roughly is a count of three digits or so.
func roughly(n uint64) string {
	v, unit := float64(n), ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	if unit == "" {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%.1f%s", v, unit)
}

// shortened cuts the middle out of a name.
func shortened(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most/2]) + "…" + string(r[len(r)-(most-1)/2:])
}
