package bench

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

// Measures of the picture, in its units.
const (
	panelWidth, panelHeight = 230, 170
	marginLeft, marginTop   = 60, 94
	gapX, gapY              = 58, 62
	marginBottom            = 44
)

// colours of the ways: Okabe and Ito's, which the colour-blind can tell apart.
var colours = map[string]string{
	"shm": "#D55E00", "unix": "#CC79A7", "grpc": "#0072B2", "grpc-unix": "#0072B2", "grpc-tcp": "#56B4E9",
}

// plotted are the quantities that are drawn, a row of panels each.
var plotted = []struct {
	title string
	of    func(*Row) *Stat
}{
	{"p50, µs", func(r *Row) *Stat { return &r.P50 }},
	{"CPU, µs a call, both processes", func(r *Row) *Stat { return r.CPU }},
}

// SVG draws the medians, with the ranges of the rounds, by size and concurrency. The
// scales are logarithmic.
func (r *Result) SVG() string {
	groups := r.bySize()
	var b strings.Builder
	width := max(marginLeft+len(groups)*(panelWidth+gapX), 720)
	height := marginTop + len(plotted)*(panelHeight+gapY) + marginBottom - gapY
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, marginLeft, 24, "start", `font-size="15" font-weight="bold"`, r.Method)
	text(&b, marginLeft, 41, "start", `fill="#555"`, r.Machine.String())
	x := float64(marginLeft)
	for _, w := range r.Ways {
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="57" r="4" fill="%s"/>`+"\n", x+4, colours[w.Name])
		text(&b, x+13, 61, "start", "", fullName(w.Name))
		x += 26 + 6.2*float64(len(fullName(w.Name)))
	}
	for line, q := range plotted {
		low, high, ok := r.extent(q.of)
		if !ok {
			continue
		}
		for col, cells := range groups {
			p := panel{
				x: float64(marginLeft + col*(panelWidth+gapX)), y: float64(marginTop + line*(panelHeight+gapY)),
				low: low, high: high, cells: cells,
			}
			title := q.title
			if size := cells[0][0].cell.size; size >= 0 {
				title = sizeText(size) + ": " + q.title
			}
			text(&b, p.x, p.y-6, "start", `font-weight="bold"`, title)
			p.frame(&b)
			for _, w := range r.Ways {
				p.line(&b, w.Name, q.of)
			}
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// bySize gathers the cells of each size.
func (r *Result) bySize() [][][]Row {
	var groups [][][]Row
	for _, rows := range r.byCell() {
		last := len(groups) - 1
		if last < 0 || groups[last][0][0].cell.size != rows[0].cell.size {
			groups = append(groups, nil)
			last++
		}
		groups[last] = append(groups[last], rows)
	}
	return groups
}

// extent returns the powers of ten between which a quantity lies.
func (r *Result) extent(of func(*Row) *Stat) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for i := range r.Rows {
		if s := of(&r.Rows[i]); s != nil && s.Min > 0 {
			low, high = min(low, math.Floor(math.Log10(s.Min))), max(high, math.Ceil(math.Log10(s.Max)))
		}
	}
	return low, max(high, low+1), high >= low
}

// panel is one diagram.
type panel struct {
	x, y      float64
	low, high float64 // powers of ten
	cells     [][]Row
}

func (p panel) atX(i int) float64 {
	return p.x + panelWidth*(float64(i)+0.5)/float64(len(p.cells))
}

func (p panel) atY(v float64) float64 {
	return p.y + panelHeight*(1-(math.Log10(v)-p.low)/(p.high-p.low))
}

// frame draws the grid and the labels of both axes.
func (p panel) frame(b *strings.Builder) {
	for e := p.low; e <= p.high; e++ {
		y := p.atY(math.Pow(10, e))
		fmt.Fprintf(b, `<path d="M%.1f %.1fh%d" stroke="#ddd"/>`+"\n", p.x, y, panelWidth)
		text(b, p.x-5, y+4, "end", `fill="#555"`, fmt.Sprintf("%g", math.Pow(10, e)))
	}
	for i, rows := range p.cells {
		label := fmt.Sprint(rows[0].Callers)
		if rows[0].cell.pace > 0 {
			label = "1 a ms"
		}
		text(b, p.atX(i), p.y+panelHeight+15, "middle", `fill="#555"`, label)
	}
	text(b, p.x+panelWidth/2, p.y+panelHeight+30, "middle", `fill="#555"`, "callers")
}

// line draws one way: a line through the medians of the cells without pause, and
// for every cell a dot and its range.
func (p panel) line(b *strings.Builder, way string, of func(*Row) *Stat) {
	var points []string
	for i, rows := range p.cells {
		s := of(find(rows, way))
		if s == nil || s.Min <= 0 {
			continue
		}
		x, y := p.atX(i), p.atY(s.Median)
		fmt.Fprintf(b, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-width="1.5" opacity="0.5"/>`+"\n", x, p.atY(s.Min), p.atY(s.Max), colours[way])
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.2" fill="%s"><title>%s</title></circle>`+"\n", x, y, colours[way],
			html.EscapeString(fmt.Sprintf("%s, %s: %s (%s to %s)", fullName(way), rows[0].cell, measure.Number(s.Median), measure.Number(s.Min), measure.Number(s.Max))))
		if rows[0].cell.pace == 0 {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		}
	}
	if len(points) > 1 {
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), colours[way])
	}
}

func text[N int | float64](b *strings.Builder, x, y N, anchor, attributes, content string) {
	fmt.Fprintf(b, `<text x="%v" y="%v" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, attributes, html.EscapeString(content))
}
