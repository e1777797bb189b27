package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// order is what routes are sorted by.
type order int

const (
	byCalls order = iota
	byFailed
	byP50
	byP99
	byWay
	byName
	orders
)

func (o order) next(forth bool) order {
	if forth {
		return (o + 1) % orders
	}
	return (o + orders - 1) % orders
}

func (o order) String() string {
	return [...]string{"calls/s", "failed", "p50", "p99", "way", "name"}[o]
}

// sorted are the routes that pass, the largest first.
func sorted(routes []routemap.Route, by order, passes func(routemap.Route) bool) []routemap.Route {
	type keyed struct {
		routemap.Route
		n    float64
		way  string
		name string
	}
	var all []keyed
	for _, r := range routes {
		if r.Stats != nil && passes(r) {
			k := keyed{Route: r, name: r.Key.String()}
			switch by {
			case byFailed:
				k.n = float64(r.Failed()) / float64(max(r.Calls, 1))
			case byP50:
				k.n = float64(r.Duration().Quantile(0.5))
			case byP99:
				k.n = float64(r.Duration().Quantile(0.99))
			case byWay:
				k.way = r.Transport
			}
			all = append(all, k)
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		first := cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.way, b.way))
		if by != byName {
			first = cmp.Or(first, cmp.Compare(b.Calls, a.Calls))
		}
		return cmp.Or(first, cmp.Compare(a.name, b.name), cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Mode, b.Mode))
	})
	out := make([]routemap.Route, len(all))
	for i, k := range all {
		out[i] = k.Route
	}
	return out
}

// span is the time that a map is of; 0: of none.
func span(r *routemap.Report) time.Duration { return max(r.Window.To.Sub(r.Window.From), 0) }

func rate(n uint64, in time.Duration) string {
	if in <= 0 {
		return "-"
	}
	return many(float64(n) / in.Seconds())
}

func failedShare(r routemap.Route) string { return share(float64(r.Failed()), float64(r.Calls)) }

type quantiles interface {
	Count() uint64
	Quantile(q float64) int64
}

func quantile(h quantiles, q float64) string {
	if h.Count() == 0 {
		return "-"
	}
	return short(h.Quantile(q))
}

// way is what a route goes by, where there is little room.
func way(r routemap.Route) string {
	switch r.Transport {
	case "":
		return "-"
	case routemap.TCPLoopback:
		return "tcp-lo"
	case routemap.UnixStream:
		return "unix"
	case routemap.UnixDgram:
		return "unix-d"
	case routemap.UnixSeqpacket:
		return "unix-s"
	}
	return cut(shown(r.Transport), wayWidth)
}

// waitLetters stand for the parts of a wait: the client's queue, transport, the server's queue, the handler.
const waitLetters = "ctsh"

var waitColours = [...]string{"33", "34", "35", "32"}

func waitParts(w routemap.Waits) [4]int64 {
	return [4]int64{max(w.ClientQueue, 0), max(w.Transport, 0), max(w.ServerQueue, 0), max(w.Handler, 0)}
}

// waitBar is where calls wait, in a number of letters: each for its share, the largest remainders rounded up.
func waitBar(w routemap.Waits, letters int, p paint) string {
	parts := waitParts(w)
	total := 0.0
	for _, ns := range parts {
		total += float64(ns)
	}
	if w.Calls == 0 || total == 0 {
		return "-"
	}
	var counts [4]int
	var rest [4]float64
	left := letters
	for i, ns := range parts {
		exact := float64(letters) * float64(ns) / total
		counts[i] = int(exact)
		rest[i] = exact - float64(counts[i])
		left -= counts[i]
	}
	for ; left > 0; left-- {
		most := slices.Index(rest[:], slices.Max(rest[:]))
		counts[most]++
		rest[most] = -1
	}
	var b strings.Builder
	for i, n := range counts {
		b.WriteString(p.wrap(waitColours[i], strings.Repeat(waitLetters[i:i+1], n)))
	}
	return b.String()
}

// routeName is a route's name in a width: without its method's package, if there is no room for that.
func routeName(r routemap.Route, width int) string {
	ends := shown(r.From.String()) + " → " + shown(r.To.String()) + " "
	name := ends + shown(r.Operation)
	if ansi.StringWidth(name) <= width {
		return name
	}
	service, method, is := strings.Cut(r.Operation, "/")
	if dot := strings.LastIndexByte(service, '.'); is && dot >= 0 && !strings.ContainsAny(service, " ?:") {
		name = ends + shown(service[dot+1:]+"/"+method)
	}
	return cut(name, width)
}

const (
	narrow   = 60 // below, a route has two lines
	wayWidth = 6
	barWidth = 8
)

func routeColumns(by order) []column {
	columns := []column{
		{"CALL/S", 7, true, 0}, {"FAILED", 7, true, 0}, {"P50", 6, true, 0}, {"P99", 6, true, 0}, {"WAITS", barWidth, false, narrow + 10}, {"WAY", wayWidth, false, 0},
	}
	if at, is := map[order]int{byCalls: 0, byFailed: 1, byP50: 2, byP99: 3, byWay: 5}[by]; is {
		columns[at].title = sortMark + columns[at].title
	}
	return columns
}

// sortMark is before the title of the column that routes are sorted by.
const sortMark = "▾"

// routeLines are the routes as a table, of which each has one line, or two.
func (m *model) routeLines(routes []routemap.Route) (head string, lines []string) {
	per := m.linesPerRoute()
	columns := routeColumns(m.order)
	head = "  " + row(columns, m.width, titles(columns)...)
	if per == 1 {
		if m.order == byName {
			head += sortMark
		}
		head += "ROUTE"
	}
	for i, r := range routes {
		numbers := row(columns, m.width, rate(r.Calls, span(m.answer.Map)), m.failedCell(r), quantile(r.Duration(), 0.5), quantile(r.Duration(), 0.99), waitBar(r.Waits, barWidth, m.paint()), way(r))
		room := m.width - 2
		if per == 1 {
			room -= ansi.StringWidth(numbers)
		}
		mark, name := "  ", routeName(r, room)
		if i == m.cursor {
			mark, name = "> ", m.paint().strong(name)
		}
		if per == 1 {
			lines = append(lines, mark+numbers+name)
		} else {
			lines = append(lines, mark+name, "  "+numbers)
		}
	}
	return m.paint().faint(head), lines
}

func (m *model) failedCell(r routemap.Route) string {
	text := failedShare(r)
	if r.Failed() > 0 {
		return m.paint().bad(text)
	}
	return text
}

func processName(p hub.ProcessReport) string { return p.Service }

func byUse(a, b hub.ProcessReport) int {
	return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(a.Service, b.Service), cmp.Compare(a.PID, b.PID))
}
