package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

// row is how one side has done lately.
type row struct {
	name          string
	rps           float64
	p50, p99      time.Duration
	cpu, switches *float64 // a request; nil where they cannot be measured
	failed        int64    // since the beginning
}

func (r *row) perRequest(used measure.Usage, requests int64) {
	if requests > 0 {
		r.cpu = new(milliseconds(used.CPU) / float64(requests))
		r.switches = new(float64(used.Switches) / float64(requests))
	}
}

// screen shows what happens: as lines, and on a terminal also as a table that is
// drawn anew every second.
type screen struct {
	w     io.Writer
	live  bool
	lines int       // of the table, below which the cursor is
	last  time.Time // when the table, or the line that stands for it, was shown
}

// interval is how often the numbers are shown.
func (s *screen) interval() time.Duration {
	if s.live {
		return time.Second
	}
	return 5 * time.Second
}

func (s *screen) untilTick() time.Duration {
	if s.last.IsZero() {
		s.last = time.Now()
	}
	return max(time.Until(s.last.Add(s.interval())), 0)
}

// say prints a line.
func (s *screen) say(format string, args ...any) {
	s.clear()
	fmt.Fprintf(s.w, format+"\n", args...)
}

func (s *screen) clear() {
	if s.lines > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.lines)
		s.lines = 0
	}
}

// close takes the table away: the result says it better.
func (s *screen) close() { s.clear() }

// tick shows how both sides have done, of which the load is on the one named.
func (s *screen) tick(now string, rows ...row) {
	s.last = time.Now()
	if !s.live {
		for _, r := range rows {
			if r.name == now && r.name != "" {
				fmt.Fprintln(s.w, r.line())
			}
		}
		return
	}
	s.clear()
	text := liveTable(now, rows)
	s.lines = strings.Count(text, "\n")
	fmt.Fprint(s.w, text)
}

func (r row) line() string {
	return fmt.Sprintf("  %s: %.0f requests/s, p50 %s ms, p99 %s ms, CPU %s ms a request, %s switches a request, %d failed",
		r.name, r.rps, measure.Number(milliseconds(r.p50)), measure.Number(milliseconds(r.p99)), numberOf(r.cpu), numberOf(r.switches), r.failed)
}

func liveTable(now string, rows []row) string {
	var b strings.Builder
	const format = "  %-10s %12s %9s %9s %16s %18s %8s\n"
	fmt.Fprintf(&b, format, "", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "switches/request", "failed")
	for _, r := range rows {
		if r.name == "" {
			continue
		}
		mark := ""
		if r.name == now {
			mark = " ◀"
		}
		fmt.Fprintf(&b, format, r.name+mark, measure.Number(r.rps), measure.Number(milliseconds(r.p50)), measure.Number(milliseconds(r.p99)),
			numberOf(r.cpu), numberOf(r.switches), fmt.Sprint(r.failed))
	}
	return b.String()
}

func numberOf(v *float64) string {
	if v == nil {
		return "–"
	}
	return measure.Number(*v)
}

// Table sets both sides side by side.
func (r Result) Table(style terminal.Style) string {
	var b strings.Builder
	line := func(label, plain, stile, verdict string) {
		fmt.Fprintf(&b, "%-34s %10s %10s   %s\n", label, plain, stile, verdict)
	}
	b.WriteString(style.Strong(fmt.Sprintf("%-34s %10s %10s   %s", "", "grpc-go", "Stile", "ratio")) + "\n")
	line("requests/s, as sent", measure.Number(r.Plain.PerSecond), measure.Number(r.Stile.PerSecond), "")
	line("p50, ms", measure.Number(r.Plain.P50), measure.Number(r.Stile.P50), verdict(style, r.Ratio.P50, "lower", "higher"))
	line("p99, ms", measure.Number(r.Plain.P99), measure.Number(r.Stile.P99), verdict(style, r.Ratio.P99, "lower", "higher"))
	line("CPU ms a request, six programs", numberOf(r.Plain.CPU), numberOf(r.Stile.CPU), verdictOf(style, r.Ratio.CPU))
	line("context switches a request", numberOf(r.Plain.Switches), numberOf(r.Stile.Switches), verdictOf(style, r.Ratio.Switches))
	line("requests/s at most", measure.Number(r.Plain.Most), measure.Number(r.Stile.Most), verdict(style, r.Ratio.Most, "more", "fewer"))
	line("failed requests", fmt.Sprint(r.Plain.Failed), fmt.Sprint(r.Stile.Failed), "")
	fmt.Fprintf(&b, "\nMedians of %d windows a side, taken in turns; %.0f requests/s (%s), timed from when each was due.\n", r.Windows, r.Rate, Mix)
	switch {
	case r.Failed == 0:
		fmt.Fprintf(&b, "The load moved from grpc-go to Stile while it ran: none of %d requests failed.\n", r.Requests)
	default:
		fmt.Fprintf(&b, "%s The first: %s\n", style.Bad(fmt.Sprintf("%d of %d requests failed.", r.Failed, r.Requests)), r.Failure)
	}
	if r.Mail != nil {
		b.WriteString(r.Mail.table(style))
	}
	return b.String()
}

// verdict puts a ratio in words: "2.0× lower", or for 0.5 "2.0× higher".
func verdict(style terminal.Style, ratio float64, better, worse string) string {
	switch {
	case ratio == 0:
		return "–"
	case ratio >= 1:
		return style.Good(fmt.Sprintf("%.1f× %s", ratio, better))
	default:
		return style.Bad(fmt.Sprintf("%.1f× %s", 1/ratio, worse))
	}
}

func verdictOf(style terminal.Style, ratio *float64) string {
	if ratio == nil {
		return "–"
	}
	return verdict(style, *ratio, "lower", "higher")
}
