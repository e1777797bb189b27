package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

func newMapDiff() *cobra.Command {
	var asJSON bool
	var rows int
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Compare two maps, route by route",
		Long: `Diff compares the routes of two files of traces, of two maps that stile map --json has written,
or of two times of a hub: the medians by their ratio, failures by the difference of their shares, each with the
interval in which it lies with a confidence of 95 %. Of 20 routes that are the same, one is said
to differ by chance. Routes that are new or gone differ, too. Windows in which others used the
processors of a host (stile map terms: contaminated) are told of: what differs may be their doing.

Exit codes: 0 no route differs, 1 some do, 2 a mistake in the command line, 3 a failure.`,
		Example: `  stile map diff monday.json tuesday.json
  stile map --json traces.json > before.json
  stile map diff 'http://localhost:4319?from=2h&to=1h' http://localhost:4319`,
		Args: between(2, 2, "two files or URLs, BEFORE and AFTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := atLeastOne("number", rows); err != nil {
				return err
			}
			var reports [2]*routemap.Report
			var warnings []string
			for i, which := range []string{"before", "after"} {
				r, left, err := mapOf(cmd.Context(), args[i], cmd.InOrStdin(), cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				reports[i], warnings = r, append(warnings, distrusted(which, r, left)...)
			}
			all := routemap.Diff(reports[0], reports[1])
			var err error
			if asJSON {
				for _, w := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), plain(w))
				}
				err = printJSON(cmd.OutOrStdout(), all)
			} else {
				err = printDiff(cmd.OutOrStdout(), terminal.For(cmd.OutOrStdout()), all, warnings, rows)
			}
			if err == nil && len(all) > 0 && all[0].Differs() {
				err = errFinding
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVarP(&rows, "number", "n", 20, "how `many` routes to show")
	return cmd
}

// mapOf is the map of a file of traces, or the one that a file has.
func mapOf(ctx context.Context, name string, stdin io.Reader, stderr io.Writer) (*routemap.Report, map[string]uint64, error) {
	r, left, err := mapFiles(ctx, []string{name}, routemap.DefaultSpans, stdin, stderr)
	if !errors.Is(err, tracefile.ErrUnknown) || name == "-" {
		return r, left, err
	}
	text, readErr := os.ReadFile(name)
	if readErr != nil {
		return nil, nil, err
	}
	kept := mapJSON{Report: &routemap.Report{}}
	if json.Unmarshal(text, &kept) != nil || kept.Version == 0 {
		return nil, nil, err
	}
	if kept.Version != routemap.ReportVersion {
		return nil, nil, fmt.Errorf("%s: a map of version %d, and this program reads %d", name, kept.Version, routemap.ReportVersion)
	}
	return kept.Report, kept.LeftOut, nil
}

// distrusted tells of windows in which others used the same processors, and of those that are missing: what differs may be their doing.
func distrusted(which string, r *routemap.Report, left map[string]uint64) (warnings []string) {
	for _, o := range r.Hosts {
		if o.Contaminated > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %d %s", which, o.Contaminated, o))
		}
	}
	if n := left[damagedWindows]; n > 0 {
		warnings = append(warnings, fmt.Sprintf("%s: left out, %s: %d", which, damagedWindows, n))
	}
	return warnings
}

func printDiff(out io.Writer, style terminal.Style, all []routemap.Change, warnings []string, rows int) error {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintf(&b, "%s %s\n", style.Bad("!"), plain(w))
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tCALLS\tA TRACE\tP50\tMEDIAN\t95 %\tFAILED\t95 %\tROUTE")
	for _, c := range first(all, rows) {
		mark := "="
		switch {
		case c.Before.Calls == 0:
			mark = "+"
		case c.After.Calls == 0:
			mark = "-"
		case c.Differs():
			mark = "!"
		}
		median, medianIn, failed, failedIn := "-", "-", "-", "-"
		if m := c.Median; m.Known {
			median, medianIn = fmt.Sprintf("× %.2f", m.Value), fmt.Sprintf("%.2f to %.2f", m.Low, m.High)
		}
		if f := c.Failed; f.Known {
			failed, failedIn = fmt.Sprintf("%+.1f %%", 100*f.Value), fmt.Sprintf("%+.1f to %+.1f", 100*f.Low, 100*f.High)
		}
		fmt.Fprintf(w, "%s\t%d → %d\t%.3g → %.3g\t%s → %s\t%s\t%s\t%s\t%s\t%s\n", mark, c.Before.Calls, c.After.Calls, c.Before.PerTrace, c.After.PerTrace,
			routemap.Readable(c.Before.P50), routemap.Readable(c.After.P50), median, medianIn, failed, failedIn, plain(c.Key.String()))
	}
	_ = w.Flush() // to memory
	more(&b, len(all), rows)
	fmt.Fprintf(&b, "%s\n", style.Faint("+ is new, - is gone, ! differs, = does not for sure"))
	_, err := io.WriteString(out, b.String())
	return err
}
