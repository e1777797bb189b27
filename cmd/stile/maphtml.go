package main

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/stile-ipc/stile/routemap"
)

// htmlRows is how many lines of each kind a page shows if -n does not say.
const htmlRows = 100

// The pages, and what they have in common.
//
//go:embed page.html.tmpl map.html.tmpl maphost.html.tmpl
var templates embed.FS

var mapFuncs = template.FuncMap{
	"plain":    plain,
	"readable": routemap.Readable,
	"share":    share,
	"bar":      bar,
	"way":      func(steps []string) string { return way(few(steps)) },
	"classes":  classes,
	"term":     termID,
}

// page is what the template shows.
type page struct {
	*routemap.Report
	Caveats  []caveat
	Findings list[routemap.Finding]
	Routes   list[routeRow]
	Paths    list[routemap.HotPath]
	Blocking list[routemap.BlockingPoint]
	Chains   list[routemap.Chain]
	Nodes    list[routemap.NodeReport]
	Drawing  *drawing
	Terms    []routemap.Term
	total    int64
}

// list is the first of All.
type list[E any] struct {
	All  int
	Rows []E
	More string
}

func firstOf[E any](all []E, rows int) list[E] {
	return list[E]{len(all), first(all, rows), moreText(len(all), rows)}
}

type routeRow struct {
	routemap.Route
	P50, P99, Gap string
}

// printHTML writes a page that needs nothing else, with up to rows lines of each kind.
func printHTML(out io.Writer, r *routemap.Report, left map[string]uint64, rows int) error {
	p := &page{
		Report: r, Caveats: caveats(r, left), Findings: firstOf(r.Findings, rows), Paths: firstOf(hotPaths(r.Paths), rows),
		Blocking: firstOf(r.Blocking, rows), Chains: firstOf(r.Chains, rows), Nodes: firstOf(r.Nodes, rows), Terms: routemap.Terms(), total: spent(r),
	}
	p.Drawing = draw(r, p.total)
	p.Routes = list[routeRow]{All: len(r.Routes), More: moreText(len(r.Routes), rows)}
	for _, route := range first(r.Routes, rows) {
		d := route.Duration()
		p.Routes.Rows = append(p.Routes.Rows, routeRow{route, quantile(d, 0.5), quantile(d, 0.99), quantile(&route.Gap, 0.5)})
	}
	return printPage(out, "map.html.tmpl", p)
}

// printPage writes a page, or nothing of it.
func printPage(out io.Writer, name string, page any) error {
	t, err := template.New(name).Funcs(mapFuncs).ParseFS(templates, "page.html.tmpl", name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return err
	}
	_, err = out.Write(b.Bytes())
	return err
}

// Title is the page's.
func (p *page) Title() string {
	if p.Routes.All == 1 {
		return "Map of 1 route"
	}
	return fmt.Sprintf("Map of %d routes", p.Routes.All)
}

// Part is ns as a part of all roots' durations, NaN of none.
func (p *page) Part(ns int64) float64 { return float64(ns) / float64(p.total) }

// FailedShare is of the route's calls.
func (r routeRow) FailedShare() float64 { return float64(r.Failed()) / float64(r.Calls) }

func share(v float64) string {
	if math.IsNaN(v) {
		return percent(0, 0)
	}
	return percent(v, 1)
}

// bar is how long a bar is, of 100.
func bar(v float64) string {
	if math.IsNaN(v) {
		v = 0
	}
	return fmt.Sprintf("%.1f", 100*min(max(v, 0), 1))
}

// ByRoot is the paths, a list for each root.
func (p *page) ByRoot() (all [][]routemap.HotPath) {
	for _, h := range p.Paths.Rows {
		if n := len(all); n > 0 && all[n-1][0].Root == h.Root {
			all[n-1] = append(all[n-1], h)
		} else {
			all = append(all, []routemap.HotPath{h})
		}
	}
	return all
}

// few leaves out the middle of many steps.
func few(steps []string) []string {
	const most = 24
	if len(steps) <= most {
		return steps
	}
	gap := fmt.Sprintf("… %d more …", len(steps)-most)
	return slices.Concat(steps[:most/2], []string{gap}, steps[len(steps)-most/2:])
}

// classes are the most frequent errors.
func classes(errors map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(errors), func(a, b string) int {
		return cmp.Or(cmp.Compare(errors[b], errors[a]), cmp.Compare(a, b))
	})
	var all []string
	for _, name := range first(names, 3) {
		all = append(all, fmt.Sprintf("%s %d", plain(name), errors[name]))
	}
	if n := len(names) - len(all); n > 0 {
		all = append(all, fmt.Sprintf("%d more kinds", n))
	}
	return strings.Join(all, ", ")
}

// termID is where the page says what a word means.
func termID(name string) string {
	return "term-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
}
