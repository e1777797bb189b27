package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/routemap"
)

// hostPage is what the page of a host shows.
type hostPage struct {
	*hostView
	Title   string
	Caveats []string
	Ways    list[hostRow]
	Waits   list[waitRow]
	Threads list[threadRow]
	Terms   []routemap.Term
}

type hostRow struct {
	*hostEdge
	From, To, KnownBy string
}

type waitRow struct {
	*hostmap.Pressure
	From, To, NoRoom string
	Is               []string
}

// threadRow is how often a process switched, a second, and for which part of the time its threads waited to run.
type threadRow struct {
	Name                    string
	ToWait, TakenOff, ToRun float64
}

// printHostHTML writes a page that needs nothing else.
func printHostHTML(out io.Writer, v *hostView) error {
	p := &hostPage{hostView: v, Title: "Ways of a host", Caveats: v.notes(), Terms: routemap.Terms()}
	if name, err := os.Hostname(); err == nil {
		p.Title = "Ways of " + plain(name)
	}
	if v.Unasked > 0 {
		p.Caveats = append(p.Caveats, fmt.Sprintf("%d pipes may not be asked how full they are", v.Unasked))
	}
	var ways []hostRow
	for i := range v.Edges {
		e := &v.Edges[i]
		ways = append(ways, hostRow{e, v.end(e.From), v.end(e.To), strings.Join(e.knownBy(), ", ")})
	}
	var waits []waitRow
	for i := range v.Pressure {
		w := &v.Pressure[i]
		waits = append(waits, waitRow{w, v.end(w.From), v.end(w.To), percent(float64(w.Limited), float64(w.Busy)), whatItIs(w)})
	}
	var threads []threadRow
	for _, t := range v.bySwitches() {
		s := v.Watched.Seconds()
		threads = append(threads, threadRow{v.end(hostmap.End{PID: t.PID}), float64(t.Voluntary) / s, float64(t.Involuntary) / s, t.RunQueue.Seconds() / s})
	}
	p.Ways, p.Waits, p.Threads = shownOf(ways, hostRows), shownOf(waits, hostRows), shownOf(threads, mostThreads)
	return printPage(out, "maphost.html.tmpl", p)
}

// hostRows is how many ways a page shows.
const hostRows = 1000

// shownOf is the first of all.
func shownOf[E any](all []E, rows int) list[E] {
	l := list[E]{All: len(all), Rows: first(all, rows)}
	if n := len(all) - len(l.Rows); n > 0 {
		l.More = fmt.Sprintf("… and %d more, which --json has", n)
	}
	return l
}
