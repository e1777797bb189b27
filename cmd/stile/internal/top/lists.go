package top

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// lateAfter is when a process, which reports every 10 s, is late.
const lateAfter = 30 * time.Second

var processColumns = []column{
	{"CPU", 7, true, 0}, {"CALL/S", 7, true, 0}, {"SWITCH/S", 8, true, 0}, {"RUN WAIT", 8, true, 0}, {"WAKES/S", 7, true, 90}, {"SEEN", 6, true, narrow},
}

func (m *model) processLines() (string, []string) {
	all := m.processes()
	if len(all) == 0 {
		text := "No process reports. Those do that have STILE_HUB in their environment: " + Advice[1]
		if m.filter != "" {
			text = "No process has " + shown(m.filter) + " in its name. Esc shows all."
		}
		return "", folded(text, m.width, "")
	}
	head := row(processColumns, m.width, titles(processColumns)...)
	if m.width >= narrow {
		head += "PROCESS"
	}
	var lines []string
	for _, p := range all {
		name := fmt.Sprintf("%s %d %s", shown(p.Service), p.PID, shown(p.Host))
		numbers := row(processColumns, m.width, m.processCells(p)...)
		if m.width >= narrow {
			lines = append(lines, numbers+name)
			continue
		}
		lines = append(lines, name, numbers)
	}
	return m.paint().faint(head), lines
}

func (m *model) processCells(p hub.ProcessReport) []string {
	seen := ago(m.now, p.Seen)
	if m.now.Sub(p.Seen) > lateAfter {
		seen = m.paint().bad(seen + "!")
	}
	wait := "-"
	if p.Window > 0 {
		wait = short(int64(float64(p.RunQueue)/p.Window.Seconds())) + "/s"
	}
	return []string{share(float64(p.CPU), float64(p.Window)), rate(p.Calls, p.Window), rate(p.Voluntary+p.Involuntary, p.Window), wait, rate(p.Doorbells, p.Window), seen}
}

func (m *model) findingLines() (string, []string) {
	all := m.findings()
	if len(all) == 0 {
		text := "Nothing stands out."
		if m.filter != "" {
			text = "Nothing that stands out has " + shown(m.filter) + " in it. Esc shows all."
		}
		return "", folded(text, m.width, "")
	}
	var lines []string
	for _, f := range all {
		name := shown(f.From.String()) + " → " + shown(f.To.String()) + " " + shown(f.Operation)
		lines = append(lines, m.paint().bad(shown(f.Kind))+"  "+name)
		lines = append(lines, folded(shown(f.Text), m.width, "  ")...)
		lines = append(lines, evidence(f.Evidence, 2)...)
	}
	return "", lines
}

func evidence(all []routemap.Evidence, most int) (lines []string) {
	for _, e := range all[:min(len(all), most)] {
		lines = append(lines, "  trace "+shown(e.Trace))
	}
	return lines
}

// detailLines is all that is known of a route.
func (m *model) detailLines() (string, []string) {
	r := m.detail
	if r.Stats == nil {
		return "", []string{"No route is selected."}
	}
	var lines []string
	say := func(format string, args ...any) {
		lines = append(lines, folded(fmt.Sprintf(format, args...), m.width, "")...)
	}
	say("%s", shown(r.Operation))
	say("%s, by %s", shown(string(r.Mode)), shown(cmp.Or(r.Transport, "a way that is not known")))
	if !slices.ContainsFunc(m.answer.Map.Routes, func(o routemap.Route) bool { return o.Key == r.Key }) {
		say("It was not called in the last %s: this is what was known last.", m.cfg.Window)
	}
	say("%s calls/s, %d calls, %s failed, %d retries", rate(r.Calls, span(m.answer.Map)), r.Calls, failedShare(r), r.Retries)
	lines = append(lines, "")
	lines = append(lines, m.quantileLines(r)...)
	lines = append(lines, m.waitLines(r)...)
	lines = append(lines, m.decidedLines(r)...)
	lines = append(lines, m.errorLines(r)...)
	if len(r.Evidence) > 0 {
		lines = append(lines, "", m.paint().strong("Traces that have it"))
		lines = append(lines, evidence(r.Evidence, len(r.Evidence))...)
	}
	return m.paint().strong(cut(shown(r.From.String())+" → "+shown(r.To.String()), m.width)), lines
}

func (m *model) quantileLines(r routemap.Route) []string {
	columns := []column{{"", 9, false, 0}, {"P50", 7, true, 0}, {"P90", 7, true, 0}, {"P99", 7, true, 0}, {"P99.9", 7, true, 44}, {"MOST", 7, true, 52}}
	lines := []string{m.paint().faint(row(columns, m.width, titles(columns)...))}
	add := func(name string, h quantiles, text func(int64) string) {
		if h.Count() == 0 {
			return
		}
		cells := []string{name}
		for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
			cells = append(cells, text(h.Quantile(q)))
		}
		lines = append(lines, row(columns, m.width, cells...))
	}
	add("client", &r.Client, short)
	add("server", &r.Server, short)
	add("failed", &r.Failures, short)
	add("gap", &r.Gap, short)
	add("queue", &r.Queue, short)
	add("sent", &r.Request, size)
	add("received", &r.Response, size)
	add("left", &r.Left, short)
	return lines
}

// size is a number of bytes, in 7 characters at most.
func size(n int64) string { return many(float64(n)) + "B" }

func (m *model) waitLines(r routemap.Route) []string {
	if r.Waits.Calls == 0 {
		return []string{"", "Where its calls wait is not known: both ends have to report."}
	}
	lines := []string{"", m.paint().strong("Where its calls wait, on average")}
	parts := waitParts(r.Waits)
	total := 0.0
	for _, ns := range parts {
		total += float64(ns)
	}
	for i, name := range []string{"client queue", "transport", "server queue", "handler"} {
		bar := strings.Repeat(waitLetters[i:i+1], int(10*float64(parts[i])/max(total, 1)+0.5))
		lines = append(lines, fmt.Sprintf("%-12s %6s %6s  %s", name, short(parts[i]/int64(r.Waits.Calls)), share(float64(parts[i]), total), m.paint().wrap(waitColours[i], bar)))
	}
	each := func(n uint64) string { return many(float64(n) / float64(max(r.Calls, 1))) }
	return append(lines, "", fmt.Sprintf("a call: %s switches, %s wake-ups, %s spun", each(r.Switches), each(r.Wakes), routemap.Readable(r.Spin/int64(max(r.Calls, 1)))))
}

// decidedLines is what policies decided.
func (m *model) decidedLines(r routemap.Route) []string {
	if r.Decisions.Most() == 0 {
		return nil
	}
	lines := []string{"", m.paint().strong("What policies decided")}
	for i, n := range r.Decisions.Counts() {
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%8d  %s", n, routemap.DecisionNames()[i].Words))
		}
	}
	return lines
}

func (m *model) errorLines(r routemap.Route) []string {
	if r.Failed() == 0 {
		return nil
	}
	lines := []string{"", m.paint().strong("Errors")}
	classes := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Errors[b], r.Errors[a]), cmp.Compare(a, b))
	})
	for _, c := range classes {
		lines = append(lines, fmt.Sprintf("%8d %7s  %s", r.Errors[c], share(float64(r.Errors[c]), float64(r.Calls)), shown(c)))
	}
	return lines
}
