package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/routemap"
)

// printMap shows up to rows lines of each kind.
func printMap(out io.Writer, style terminal.Style, r *routemap.Report, left map[string]uint64, rows int) error {
	var b strings.Builder
	missing := caveats(r, left)
	if r.Window.From.IsZero() && len(r.Routes) == 0 && len(missing) == 0 {
		_, err := fmt.Fprintln(out, "nothing in that time. What a hub takes in is on its map 20 s later; stile hub status tells what it takes in, and what is wrong")
		return err
	}
	fmt.Fprintf(&b, "%d spans, %d traces (%d with one root), %s to %s\n", r.Spans, r.Traces, r.Whole, r.Window.From.Format(time.RFC3339), r.Window.To.Format(time.RFC3339))
	for _, c := range missing {
		fmt.Fprintf(&b, "  %s: %d\n", plain(c.What), c.N)
	}
	printRoutes(&b, style, r.Routes, spent(r), rows)
	printCounted(&b, style, r.Routes, rows)
	printDecided(&b, style, r.Routes, rows)
	printInconsistent(&b, style, r.Routes, rows)
	printPaths(&b, style, r.Paths, rows)
	printWaits(&b, style, r, rows)
	printStands(&b, style, r.Findings, rows)
	fmt.Fprintf(&b, "\n%s\n", style.Faint("What the words mean: stile map terms"))
	_, err := io.WriteString(out, b.String())
	return err
}

func printStands(b *strings.Builder, style terminal.Style, findings []routemap.Finding, rows int) {
	fmt.Fprintf(b, "\n%s\n", style.Strong("What stands out"))
	if len(findings) == 0 {
		b.WriteString("nothing\n")
	}
	for _, f := range first(findings, rows) {
		fmt.Fprintf(b, "%s  %s → %s: %s\n", style.Bad(f.Kind), plain(f.From.String()), plain(f.To.String()), plain(f.Text))
		for _, e := range first(f.Evidence, 2) {
			fmt.Fprintf(b, "    trace %s, span %016x\n", plain(e.Trace), uint64(e.Span))
		}
	}
	more(b, len(findings), rows)
}

// caveat is what a map does not show as it was, and how often.
type caveat struct {
	What string
	N    uint64
}

func caveats(r *routemap.Report, left map[string]uint64) (all []caveat) {
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		all = append(all, caveat{name, r.Faults[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		all = append(all, caveat{"left out, " + name, left[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Folded)) {
		all = append(all, caveat{"beyond what a map tells apart, " + name, r.Folded[name]})
	}
	all = append(all, silent(r.Nodes)...)
	for _, o := range r.Hosts {
		if o.Contaminated > 0 {
			all = append(all, caveat{o.String(), o.Contaminated})
		}
	}
	if r.Nameless > 0 {
		all = append(all, caveat{"clients' spans that do not say who is called", r.Nameless})
	}
	return all
}

// maxSilent is how many nodes are named that stand for processes that do not report.
const maxSilent = 5

// silent tells how many processes do not report, by the node that stands for them, the most first.
func silent(nodes []routemap.NodeReport) (all []caveat) {
	rest := caveat{What: "processes that do not report, as others"}
	for _, n := range slices.SortedStableFunc(slices.Values(nodes), func(a, b routemap.NodeReport) int { return cmp.Compare(b.Processes, a.Processes) }) {
		switch {
		case n.Processes == 0:
		case len(all) < maxSilent:
			all = append(all, caveat{"processes that do not report, as " + n.String(), n.Processes})
		default:
			rest.N += n.Processes
		}
	}
	if rest.N > 0 {
		all = append(all, rest)
	}
	return all
}

// spent is how long all roots took, in ns on critical paths.
func spent(r *routemap.Report) (total int64) {
	for _, n := range r.Nodes {
		total += n.Critical
	}
	for _, route := range r.Routes {
		total += route.Critical
	}
	return total
}

// quantile is a duration for people, if any is known.
func quantile(h interface {
	Count() uint64
	Quantile(q float64) int64
}, q float64) string {
	if h.Count() == 0 {
		return "-"
	}
	return routemap.Readable(h.Quantile(q))
}

func printRoutes(b *strings.Builder, style terminal.Style, routes []routemap.Route, total int64, rows int) {
	fmt.Fprintf(b, "\n%s\n", style.Strong("Routes, by what goes through them"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "THROUGH\tCALLS\tFAILED\tP50\tP99\tGAP P50\tROUTE")
	for _, r := range first(routes, rows) {
		how := string(r.Mode)
		if r.Transport != "" {
			how += ", " + plain(r.Transport)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s (%s)\n", percent(float64(r.Through), float64(total)), r.Calls, r.Failed(),
			quantile(r.Duration(), 0.5), quantile(r.Duration(), 0.99), quantile(&r.Gap, 0.5), plain(r.Key.String()), how)
	}
	_ = w.Flush() // to memory
	more(b, len(routes), rows)
}

// printCounted shows where calls waited, of routes that processes count.
func printCounted(b *strings.Builder, style terminal.Style, routes []routemap.Route, rows int) {
	counted := slices.DeleteFunc(slices.Clone(routes), func(r routemap.Route) bool { return r.Waits.Calls == 0 })
	if len(counted) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", style.Strong("Where calls wait, on average"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLIENT QUEUE\tTRANSPORT\tSERVER QUEUE\tHANDLER\tSWITCHES\tWAITS TO RUN\tWAKE-UPS\tSPUN\tSENT\tRECEIVED\tROUTE")
	for _, r := range first(counted, rows) {
		each := func(ns int64) string { return routemap.Readable(ns / int64(r.Waits.Calls)) }
		ofClient := each
		if r.ServerAlone() {
			ofClient = func(int64) string { return "-" }
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.3g\t%s\t%.3g\t%s\t%.0f B\t%.0f B\t%s\n", ofClient(r.Waits.ClientQueue), ofClient(r.Waits.Transport), each(r.Waits.ServerQueue), each(r.Waits.Handler),
			float64(r.Switches)/float64(max(r.Calls, 1)), routemap.Readable(r.RunQueue/int64(max(r.Calls, 1))), float64(r.Wakes)/float64(max(r.Calls, 1)), routemap.Readable(r.Spin/int64(max(r.Calls, 1))), r.Request.Mean(), r.Response.Mean(), plain(r.Key.String()))
	}
	_ = w.Flush() // to memory
	more(b, len(counted), rows)
}

// printInconsistent shows routes of which other calls are open than should be.
func printInconsistent(b *strings.Builder, style terminal.Style, routes []routemap.Route, rows int) {
	off := slices.DeleteFunc(slices.Clone(routes), func(r routemap.Route) bool { return !r.Inconsistent() })
	if len(off) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", style.Strong("Inconsistent: more or fewer calls are open in a process than should be, by how long they take"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OPEN\tSHOULD BE\tROUTE")
	for _, r := range first(off, rows) {
		fmt.Fprintf(w, "%.3g\t%.3g\t%s\n", r.Open.Total()/float64(r.Open.Time), r.Duration().Sum()/float64(r.Open.Time), plain(r.Key.String()))
	}
	_ = w.Flush() // to memory
	more(b, len(off), rows)
}

// printDecided shows what policies decided, of routes of which they did.
func printDecided(b *strings.Builder, style terminal.Style, routes []routemap.Route, rows int) {
	decided := slices.DeleteFunc(slices.Clone(routes), func(r routemap.Route) bool { return r.Decisions.Most() == 0 })
	if len(decided) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", style.Strong("What policies decided"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LEFT P1\tLEFT P50\tROUTE\tDECISIONS")
	for _, r := range first(decided, rows) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", quantile(&r.Left, 0.01), quantile(&r.Left, 0.5), plain(r.Key.String()), r.Decisions)
	}
	_ = w.Flush() // to memory
	more(b, len(decided), rows)
}

func printPaths(b *strings.Builder, style terminal.Style, paths []routemap.HotPath, rows int) {
	fmt.Fprintf(b, "\n%s\n", style.Strong("Hot paths"))
	hot := hotPaths(paths)
	root := ""
	for _, p := range first(hot, rows) {
		if p.Root != root {
			root = p.Root
			fmt.Fprintf(b, "%s, %d traces\n", plain(root), p.Traces)
		}
		fmt.Fprintf(b, "  %6s  tail %6s  %8s  %s\n", percent(p.Share, 1), percent(p.Tail, 1), routemap.Readable(p.Each), plain(way(p.Steps)))
	}
	more(b, len(hot), rows)
}

func hotPaths(paths []routemap.HotPath) (hot []routemap.HotPath) {
	for _, p := range paths {
		if p.Hot {
			hot = append(hot, p)
		}
	}
	return hot
}

// way is steps after a root.
func way(steps []string) string {
	if len(steps) == 0 {
		return "itself"
	}
	return strings.Join(steps, " → ")
}

func printWaits(b *strings.Builder, style terminal.Style, r *routemap.Report, rows int) {
	fmt.Fprintf(b, "\n%s\n", style.Strong("Blocking points"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CALLERS\tOF THEIR TIME\tROUTE")
	for _, p := range first(r.Blocking, rows) {
		flag := ""
		if p.Flagged {
			flag = " !"
		}
		share := percent(p.Share, 1)
		if p.Counted {
			share = "-"
		}
		fmt.Fprintf(w, "%.3g%s\t%s\t%s\n", p.Callers, flag, share, plain(p.Key.String()))
	}
	_ = w.Flush() // to memory
	more(b, len(r.Blocking), rows)
	fmt.Fprintf(b, "\n%s\n", style.Strong("Sync-chain depth"))
	for _, c := range first(r.Chains, rows) {
		fmt.Fprintf(b, "%d at most, %.1f on average  %s\n", c.Depth, c.Mean, plain(c.Root))
	}
	more(b, len(r.Chains), rows)
}

func first[E any](all []E, n int) []E { return all[:min(len(all), n)] }

func more(b *strings.Builder, n, rows int) {
	if text := moreText(n, rows); text != "" {
		fmt.Fprintf(b, "%s\n", text)
	}
}

func moreText(n, rows int) string {
	if n <= rows {
		return ""
	}
	return fmt.Sprintf("… and %d more (-n %d)", n-rows, n)
}

func percent(part, of float64) string {
	if of == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*part/of, 'f', 1, 64) + " %"
}

// edge is all routes from one node to another.
type edge struct {
	from, to      routemap.Node
	calls, failed uint64
	async         bool // all of them are
}

// edgesOf returns them in the order of the routes.
func edgesOf(routes []routemap.Route) (edges []edge) {
	at := map[[2]routemap.Node]int{}
	for _, r := range routes {
		ends := [2]routemap.Node{r.From, r.To}
		i, known := at[ends]
		if !known {
			i = len(edges)
			at[ends] = i
			edges = append(edges, edge{from: r.From, to: r.To, async: true})
		}
		e := &edges[i]
		e.calls, e.failed, e.async = e.calls+r.Calls, e.failed+r.Failed(), e.async && r.Mode == routemap.Async
	}
	return edges
}

// printDOT writes a graph: an edge for each two nodes.
func printDOT(out io.Writer, r *routemap.Report) error {
	var b strings.Builder
	b.WriteString("digraph map {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n")
	for _, n := range r.Nodes {
		shape := map[routemap.NodeKind]string{routemap.Queue: "cylinder", routemap.External: "ellipse"}[n.Kind]
		if shape != "" {
			fmt.Fprintf(&b, "  %s [shape=%s];\n", dotName(n.String()), shape)
		}
	}
	for _, e := range edgesOf(r.Routes) {
		label := fmt.Sprint(e.calls)
		if e.failed > 0 {
			label += fmt.Sprintf(", %d failed", e.failed)
		}
		style := ""
		if e.async {
			style = ", style=dashed"
		}
		fmt.Fprintf(&b, "  %s -> %s [label=%s%s];\n", dotName(e.from.String()), dotName(e.to.String()), dotName(label), style)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// dotName is a text in Graphviz's quotes.
func dotName(s string) string {
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ").Replace(s) + `"`
}
