package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// column is one quantity of the table.
type column struct {
	title string
	short string // in the list of losses
	of    func(row) stat
	more  bool    // more is better
	scale float64 // of the printed value
}

var columns = []column{
	{"p50 µs", "p50", func(r row) stat { return r.P50 }, false, 1},
	{"p99 µs", "p99", func(r row) stat { return r.P99 }, false, 1},
	{"calls/s", "calls/s", func(r row) stat { return r.CallsPerS }, true, 1},
	{"CPU µs/call", "CPU", func(r row) stat { return r.CPU }, false, 1},
	{"switches/call", "switches", func(r row) stat { return r.Switches }, false, 1},
	{"allocs/call", "allocs", func(r row) stat { return r.Allocs }, false, 1},
	{"RSS MiB", "RSS", func(r row) stat { return r.RSS }, false, 1.0 / 1024},
}

// lossMark follows a value of Stile that a rival betters.
const lossMark = "!"

// quiet is the CPU in cores that others may use without the table saying so.
const quiet = 0.1

// columnsOf returns the columns that mean something in a cell.
func columnsOf(c cell) []column {
	if c.Kind != "paced" {
		return columns
	}
	list := make([]column, 0, len(columns))
	for _, col := range columns {
		if col.short != "calls/s" { // the pace decides it
			list = append(list, col)
		}
	}
	return list
}

// writeTable prints the rows cell by cell, each value with its ratio to the base
// peer, and lists at the end where Stile loses.
func writeTable(w io.Writer, r report) error {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s, grpc-go %s\n", m.CPU, m.Cores, m.Kernel, m.Go, m.GRPC)
	fmt.Fprintf(&b, "load average %.2f before, %.2f after; CPU used by others %.2f cores (median), %.2f at most\n",
		m.Load1[0], m.Load1[1], m.Foreign.Median, m.Foreign.Max)
	if m.Foreign.Median > quiet {
		fmt.Fprintln(&b, "NOT QUIET: others were running; measure again before believing this")
	}
	fmt.Fprintf(&b, "(…×): times better than %s; %s: worse than a rival; spread: of p50 over the rounds\n", basePeer, lossMark)
	var losses []string
	for rows := r.Rows; len(rows) > 0; {
		n := 1
		for n < len(rows) && rows[n].cell == rows[0].cell {
			n++
		}
		losses = append(losses, writeCell(&b, rows[:n])...)
		rows = rows[n:]
	}
	if len(losses) > 0 {
		fmt.Fprintf(&b, "\nStile loses:\n  %s\n", strings.Join(losses, "\n  "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeCell prints the rows of one cell and returns its losses.
func writeCell(w io.Writer, rows []row) (losses []string) {
	c := rows[0].cell
	cols := columnsOf(c)
	fmt.Fprintf(w, "\n%s\n", c)
	// Not AlignRight: it needs a cell ended by a tab, which would leave blanks at
	// the ends of the lines.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	titles := []string{"peer"}
	for _, col := range cols {
		titles = append(titles, col.title)
	}
	fmt.Fprintln(t, strings.Join(append(titles, "spread"), "\t"))
	base := find(rows, basePeer)
	for _, r := range rows {
		cells := []string{r.Peer}
		var lost []string
		for _, col := range cols {
			text := valueText(col.of(r).Median * col.scale)
			if base != nil {
				text += " (" + ratioText(col.ratio(r, *base)) + ")"
			}
			if loss := col.loss(r, rows); loss != "" {
				text += lossMark
				lost = append(lost, loss)
			}
			cells = append(cells, text)
		}
		if lost != nil {
			losses = append(losses, fmt.Sprintf("%s, %s: %s", c, r.Peer, strings.Join(lost, "; ")))
		}
		spread := (r.P50.Max - r.P50.Min) / r.P50.Median
		fmt.Fprintln(t, strings.Join(append(cells, fmt.Sprintf("%.0f%%", 100*spread)), "\t"))
	}
	return losses
}

func find(rows []row, peer string) *row {
	for i := range rows {
		if rows[i].Peer == peer {
			return &rows[i]
		}
	}
	return nil
}

// ratio says how many times better r is than base: above 1 it is better.
func (col column) ratio(r, base row) float64 {
	mine, theirs := col.of(r).Median, col.of(base).Median
	if col.more {
		mine, theirs = theirs, mine
	}
	if mine == theirs {
		return 1
	}
	return theirs / mine // +Inf where mine is 0
}

// loss says to whom r, if it is Stile, loses most; "" if it does not.
func (col column) loss(r row, rows []row) string {
	if !strings.HasPrefix(r.Peer, ownPrefix) {
		return ""
	}
	best := r
	for _, rival := range rows {
		if !strings.HasPrefix(rival.Peer, ownPrefix) && col.ratio(rival, best) > 1 {
			best = rival
		}
	}
	if best.Peer == r.Peer {
		return ""
	}
	return fmt.Sprintf("%s %s (%s %s)", col.short,
		valueText(col.of(r).Median*col.scale), best.Peer, valueText(col.of(best).Median*col.scale))
}

// valueText has three significant digits, or all before the point.
func valueText(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func ratioText(r float64) string {
	switch {
	case math.IsInf(r, 1):
		return "∞×"
	case r >= 100:
		return fmt.Sprintf("%.0f×", r)
	case r >= 10:
		return fmt.Sprintf("%.1f×", r)
	}
	return fmt.Sprintf("%.2f×", r)
}
