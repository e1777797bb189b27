package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/stile-ipc/stile/routemap"
)

// written is a page as its own parser sees it.
type written struct {
	text  string
	root  *html.Node
	ids   map[string]*html.Node
	links []string
}

// parsePage fails if a page is not balanced, or does or loads anything that ours does not.
func parsePage(t *testing.T, text string) *written {
	t.Helper()
	balanced(t, text)
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	p := &written{text: text, root: root, ids: map[string]*html.Node{}}
	elements := map[string]int{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		elements[n.Data]++
		for _, a := range n.Attr {
			p.attribute(t, n, a)
		}
	}
	for _, name := range []string{"script", "style", "title", "h1", "main"} {
		want := 1
		if name == "title" { // also of lines and boxes
			want += len(p.all("svg title"))
		}
		if elements[name] != want {
			t.Errorf("%d elements %s, not %d", elements[name], name, want)
		}
	}
	for _, name := range []string{"img", "iframe", "object", "embed", "link", "base", "form", "image", "use", "foreignobject"} {
		if elements[name] != 0 {
			t.Errorf("an element %s", name)
		}
	}
	ours, err := templates.ReadFile("page.html.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(ours), "<script>")
	script, _, _ = strings.Cut(script, "</script>")
	if got := p.all("script"); len(got) != 1 || content(got[0]) != script {
		t.Error("a script that is not ours")
	}
	for _, id := range p.links {
		if p.ids[id] == nil {
			t.Errorf("a link to #%s, which there is not", id)
		}
	}
	return p
}

func (p *written) attribute(t *testing.T, n *html.Node, a html.Attribute) {
	t.Helper()
	switch a.Key {
	case "id":
		if p.ids[a.Val] != nil {
			t.Errorf("two elements are #%s", a.Val)
		}
		p.ids[a.Val] = n
	case "href":
		id, here := strings.CutPrefix(a.Val, "#")
		if !here {
			t.Errorf("a link leads to %q", a.Val)
		}
		p.links = append(p.links, id)
	case "style":
		if !strings.HasPrefix(a.Val, "width: ") {
			t.Errorf("a style %q", a.Val)
		}
	case "src", "action", "formaction", "srcset", "data", "poster", "background", "xlink:href":
		t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
	}
	if strings.HasPrefix(a.Key, "on") || strings.Contains(a.Val, "://") || strings.Contains(a.Val, "javascript:") {
		t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
	}
}

// balanced fails unless each element is closed in its turn.
func balanced(t *testing.T, text string) {
	t.Helper()
	void := []string{"meta", "br"}
	var open []string
	for z := html.NewTokenizer(strings.NewReader(text)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) || len(open) > 0 {
				t.Fatalf("%v, open: %v", z.Err(), open)
			}
			return
		case html.StartTagToken:
			if name := z.Token().Data; !slices.Contains(void, name) {
				open = append(open, name)
			}
		case html.EndTagToken:
			if name := z.Token().Data; len(open) == 0 || open[len(open)-1] != name {
				t.Fatalf("</%s> in %v", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

// all are the elements that a path of names leads to, each anywhere below the one before.
func (p *written) all(path string) []*html.Node { return below(p.root, path) }

func below(n *html.Node, path string) []*html.Node {
	at := []*html.Node{n}
	for name := range strings.FieldsSeq(path) {
		var found []*html.Node
		for _, n := range at {
			for d := range n.Descendants() {
				if d.Type == html.ElementNode && d.Data == name && !slices.Contains(found, d) {
					found = append(found, d)
				}
			}
		}
		at = found
	}
	return at
}

func content(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
		if d.Type == html.ElementNode && d.Data == "br" {
			b.WriteString(" ")
		}
	}
	return b.String()
}

// rows are the cells of a part's table, without its heads.
func (p *written) rows(id string) (rows [][]string) {
	if p.ids[id] == nil {
		return nil
	}
	for _, tr := range below(p.ids[id].Parent, "tbody tr") {
		var cells []string
		for c := range tr.ChildNodes() {
			if c.Type == html.ElementNode {
				cells = append(cells, strings.TrimSpace(content(c)))
			}
		}
		rows = append(rows, cells)
	}
	return rows
}

func pageOf(t *testing.T, r *routemap.Report, left map[string]uint64, rows int) *written {
	t.Helper()
	var b strings.Builder
	if err := printHTML(&b, r, left, rows); err != nil {
		t.Fatal(err)
	}
	return parsePage(t, b.String())
}

// agrees fails unless a page shows what the report has.
func (p *written) agrees(t *testing.T, r *routemap.Report) {
	t.Helper()
	if got := content(p.ids["spans"]); got != fmt.Sprint(r.Spans) {
		t.Errorf("%s spans, not %d", got, r.Spans)
	}
	if got, want := content(p.ids["traces"]), fmt.Sprintf("%d (%d with one root)", r.Traces, r.Whole); got != want {
		t.Errorf("traces %q, not %q", got, want)
	}
	routes := p.rows("routes")
	if len(routes) != len(r.Routes) {
		t.Fatalf("%d routes, not %d", len(routes), len(r.Routes))
	}
	for i, route := range r.Routes {
		name := plain(route.From.String()) + " → " + plain(route.To.String()) + " " + plain(route.Operation)
		got := routes[i]
		if !strings.HasPrefix(got[0], strings.TrimSpace(name)) || got[1] != percent(float64(route.Through), float64(spent(r))) || got[2] != fmt.Sprint(route.Calls) ||
			got[3] != fmt.Sprint(route.Failed()) || got[4] != percent(float64(route.Failed()), float64(route.Calls)) || got[5] != quantile(route.Duration(), 0.5) || got[6] != quantile(route.Duration(), 0.99) || got[7] != quantile(&route.Gap, 0.5) || got[8] != plain(string(route.Mode)) {
			t.Errorf("route %d is %q, of %s", i, got, name)
		}
	}
	roots := map[string]bool{}
	hot := hotPaths(r.Paths)
	for _, h := range hot {
		roots[h.Root] = true
	}
	none := func(n int) int { return max(n, 1) } // a row says that there are none
	for _, c := range []struct {
		part string
		want int
	}{
		{"findings", len(r.Findings)}, {"paths", len(hot) + len(roots)}, {"blocking", none(len(r.Blocking))}, {"chains", none(len(r.Chains))}, {"nodes", len(r.Nodes)},
	} {
		if got := len(p.rows(c.part)); got != c.want && len(r.Routes) > 0 {
			t.Errorf("%d rows of %s, not %d", got, c.part, c.want)
		}
	}
	if lines := edgesOf(first(r.Routes, drawnRoutes)); len(lines) != len(below(p.root, "svg g")) {
		t.Errorf("%d lines are drawn, not %d", len(below(p.root, "svg g")), len(lines))
	}
	for _, term := range routemap.Terms() {
		if p.ids[termID(term.Name)] == nil {
			t.Errorf("%s is not defined", term.Name)
		}
	}
}

func TestPageOfSamples(t *testing.T) {
	files, err := filepath.Glob("../../routemap/tracefile/testdata/*/*")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, set := range append([][]string{files}, slices.Collect(slices.Chunk(files, 1))...) {
		r, left, err := mapFiles(context.Background(), set, routemap.DefaultSpans, nil, io.Discard)
		if err != nil {
			continue // a manifest
		}
		t.Run(filepath.Base(set[0]), func(t *testing.T) { pageOf(t, r, left, 10_000).agrees(t, r) })
	}
}

// hostile are names that would be something else than text.
var hostile = []string{
	"<script>alert(1)</script>", `" onload="alert(1)`, `' onmouseover='alert(1)`, "</title></style></script><img src=x onerror=alert(1)>",
	"javascript:alert(1)", "https://example.com/x", "<!--", "]]>", "{{.}}", "&lt;b&gt;", "\x1b[31mred", "\u202egnp", "\x00", "a\nb", " ", "", "<svg/onload=alert(1)>", "\u2028",
}

func TestPageOfHostileNames(t *testing.T) {
	m := routemap.New()
	a := routemap.NewAssembler(0, m.Add)
	for i, name := range hostile {
		other := hostile[(i+1)%len(hostile)]
		for call := range uint64(8) {
			at := int64(call) * 1e6
			a.Add(routemap.Span{Trace: name + fmt.Sprint(i), ID: 2 + 2*call, Parent: 1, Kind: routemap.Client, Service: name, Name: other, Operation: name, Transport: other, Start: at, End: at + 9e5, Class: name, Request: 1, Response: 1, Print: 7})
			a.Add(routemap.Span{Trace: name + fmt.Sprint(i), ID: 3 + 2*call, Parent: 2 + 2*call, Kind: routemap.Server, Service: other, Name: name, Operation: name, Start: at + 1, End: at + 8e5})
		}
		a.Add(routemap.Span{Trace: name + fmt.Sprint(i), ID: 1, Kind: routemap.Server, Service: name, Name: name, Start: 0, End: 9e6})
		a.Add(routemap.Span{Trace: name + fmt.Sprint(i), ID: 90, Parent: 1, Kind: routemap.Producer, Service: name, Name: name, Destination: other, Start: 0, End: 1})
		a.Add(routemap.Span{Trace: name + fmt.Sprint(i), ID: 91, Parent: 1, Kind: routemap.Client, Service: name, Name: name, Peer: other + "x", Start: 0, End: 1})
	}
	a.Flush()
	r := m.Report()
	if len(r.Routes) < 3*len(hostile)-5 || len(r.Findings) < len(hostile) {
		t.Fatalf("only %d routes, %d findings", len(r.Routes), len(r.Findings))
	}
	for i, name := range hostile[:11] { // as a hub may say
		r.Routes[i].Mode, r.Routes[i].From.Kind, r.Nodes[i].Kind = routemap.Mode(name), routemap.NodeKind(name), routemap.NodeKind(name)
	}
	p := pageOf(t, r, map[string]uint64{hostile[0]: 1}, 10_000)
	p.agrees(t, r)
	for _, c := range "\x00\x1b\u202e\u2028" {
		if strings.ContainsRune(p.text, c) {
			t.Errorf("the page has %U", c)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	r := &routemap.Report{Version: 1, Traces: 1, Spans: 1, Window: routemap.Window{From: time.Unix(1, 0).UTC(), To: time.Unix(2, 0).UTC()}}
	long := strings.Repeat("long", 50)
	steps := slices.Repeat([]string{long}, 10_000)
	for i := range 10_000 {
		n := routemap.Node{Kind: routemap.Service, Name: fmt.Sprint(long, i)}
		to := routemap.Node{Kind: routemap.Service, Name: fmt.Sprint(long, i/3)}
		s := &routemap.Stats{Calls: 1 + uint64(i), Through: 10_000 - int64(i), Errors: map[string]uint64{}}
		for class := range 64 {
			s.Errors[fmt.Sprint(long, class)] = 1
		}
		k := routemap.Key{From: n, To: to, Operation: long, Mode: routemap.Sync}
		r.Routes = append(r.Routes, routemap.Route{Key: k, Stats: s})
		r.Nodes = append(r.Nodes, routemap.NodeReport{Node: n})
		r.Paths = append(r.Paths, routemap.HotPath{Root: n.Name, Steps: steps, Hot: true})
		r.Chains = append(r.Chains, routemap.Chain{Root: n.Name, Steps: steps})
		r.Blocking = append(r.Blocking, routemap.BlockingPoint{Key: k})
		r.Findings = append(r.Findings, routemap.Finding{Kind: routemap.Chatty, From: n, To: to, Text: long})
	}
	p := pageOf(t, r, nil, htmlRows)
	if len(p.text) > 2<<20 {
		t.Errorf("%d bytes", len(p.text))
	}
	if n := strings.Count(p.text, "… and 9900 more (-n 10000)"); n != 6 {
		t.Errorf("%d lists of 6 tell that there is more", n)
	}
	if !strings.Contains(p.text, "the 60 costliest of 10000 routes") || len(below(p.root, "svg g")) != drawnRoutes {
		t.Error("not 60 routes are drawn")
	}
	if got := len(p.rows("routes")); got != htmlRows {
		t.Errorf("%d routes", got)
	}
}

func TestPageOfNothing(t *testing.T) {
	p := pageOf(t, routemap.New().Report(), nil, htmlRows)
	if !strings.Contains(content(p.root), "There are no spans in this map") || len(p.all("svg")) != 0 || strings.Contains(p.text, "0001") {
		t.Error(p.text)
	}
}
