package bench

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

// Table writes the result for people.
func (r *Result) Table(style terminal.Style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s: medians of %d rounds of %g s, the ways in turns\n", r.Machine, r.Method, r.Rounds, r.Window)
	rival := r.rivalWay()
	if len(r.Ways) > 1 {
		fmt.Fprintf(&b, "(…×): times better than %s; ±: half the range of p50 over the rounds\n", fullName(rival))
	}
	for _, rows := range r.byCell() {
		fmt.Fprintf(&b, "\n%s\n", style.Strong(rows[0].cell.String()))
		writeRows(&b, rows, find(rows, rival))
	}
	b.WriteByte('\n')
	for _, text := range r.Advice.Why {
		fmt.Fprintln(&b, text)
	}
	for i, text := range r.Advice.Findings {
		if i == 0 {
			fmt.Fprintln(&b, "\nNot the best way everywhere:")
		}
		fmt.Fprintf(&b, "  %s\n", style.Bad(text))
	}
	return b.String()
}

func writeRows(b *strings.Builder, rows []Row, base *Row) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "  way\tp50 µs\t±\tp99 µs\tcalls/s\tCPU µs/call\tswitches/call")
	for i := range rows {
		row := &rows[i]
		// compared writes a value and, but for the base itself, how many times less it is.
		compared := func(v, base *Stat, inverse bool) string {
			switch {
			case v == nil:
				return "–"
			case base == nil || v == base || v.Median == 0 || base.Median == 0:
				return measure.Number(v.Median)
			}
			times := base.Median / v.Median
			if inverse {
				times = 1 / times
			}
			return fmt.Sprintf("%s (%s×)", measure.Number(v.Median), measure.Number(times))
		}
		spread := 0.0
		if row.P50.Median > 0 {
			spread = 100 * (row.P50.Max - row.P50.Min) / 2 / row.P50.Median
		}
		rate := compared(&row.CallsPerS, &base.CallsPerS, true)
		if row.cell.pace > 0 {
			rate = measure.Number(row.CallsPerS.Median) // the pace decides it
		}
		fmt.Fprintf(t, "  %s\t%s\t%.0f %%\t%s\t%s\t%s\t%s\n", row.Way, compared(&row.P50, &base.P50, false), spread,
			compared(&row.P99, &base.P99, false), rate, compared(row.CPU, base.CPU, false), compared(row.Switches, base.Switches, false))
	}
}
