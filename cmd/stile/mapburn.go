package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

func newMapBurn() *cobra.Command {
	var target float64
	var slower time.Duration
	var asJSON bool
	var rows int
	cmd := &cobra.Command{
		Use:   "burn URL",
		Short: "Show which routes burn the budget of an objective",
		Long: `Burn asks a hub how fast each route burns the budget that an objective leaves: at 1, it is gone when
the objective's time is over; at 10, after a tenth of it. A call is bad if it fails, or is slower than
--slower. "stile map terms" says when a route is worth a page or a ticket.

Exit codes: 0 no route is, 1 some are, 2 a mistake in the command line, 3 a failure.`,
		Example: `  stile map burn http://localhost:4319 --target 99.9 --slower 200ms`,
		Args:    between(1, 1, "the URL of a hub"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if target <= 1 || target >= 100 { // 0.999 is what the API calls 99.9 %
				return usageError{fmt.Errorf("--target %g: it is in percent, more than 1 and less than 100, as 99.9 is: 100 would leave no budget", target)}
			}
			o := routemap.Objective{Target: target / 100, Slower: slower}
			if err := o.Check(); err != nil {
				return usageError{fmt.Errorf("--slower %s: %w", slower, err)}
			}
			if err := atLeastOne("number", rows); err != nil {
				return err
			}
			u, err := url.Parse(args[0])
			if err != nil || !isURL(args[0]) {
				return usageError{fmt.Errorf("%q is no URL of a hub: http://localhost:4319 would be", args[0])}
			}
			if u.RawQuery != "" {
				return usageError{fmt.Errorf("%s: burn looks at the times that it shows: leave out from and to", u.Redacted())}
			}
			u.RawQuery = url.Values{"target": {strconv.FormatFloat(o.Target, 'g', -1, 64)}, "slower": {slower.String()}}.Encode()
			var b hub.Burns
			if err := askHub(cmd.Context(), u.String(), "burn", &b); err != nil {
				return err
			}
			if slices.ContainsFunc(b.Routes, func(r routemap.Burn) bool { return len(r.Times) == 0 }) {
				return noHub(u.Redacted(), errors.New("a route has no times"))
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), b)
			} else {
				err = printBurns(cmd.OutOrStdout(), terminal.For(cmd.OutOrStdout()), &b, rows)
			}
			if err == nil && len(b.Routes) > 0 && b.Routes[0].Alert != "" {
				err = errFinding
			}
			return err
		},
	}
	cmd.Flags().Float64Var(&target, "target", 99.9, "how many `percent` of calls are to be good")
	cmd.Flags().DurationVar(&slower, "slower", 0, "a call that takes longer than this `duration` is bad; 0: however long it takes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVarP(&rows, "number", "n", 20, "how `many` routes to show")
	return cmd
}

func printBurns(out io.Writer, style terminal.Style, burns *hub.Burns, rows int) error {
	var b strings.Builder
	all := burns.Routes
	if burns.Damaged > 0 {
		fmt.Fprintf(&b, "%s left out, %s: %d\n", style.Bad("!"), damagedWindows, burns.Damaged)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "ALERT")
	for _, back := range routemap.BurnTimes() {
		if back < time.Hour {
			fmt.Fprintf(w, "\t%dm", back/time.Minute)
		} else {
			fmt.Fprintf(w, "\t%dh", back/time.Hour)
		}
	}
	fmt.Fprintln(w, "\tBAD\tCALLS\tROUTE")
	for _, one := range first(all, rows) {
		alert := one.Alert
		if alert == "" {
			alert = "-"
		}
		fmt.Fprint(w, alert)
		for _, at := range one.Times {
			fmt.Fprintf(w, "\t%.3g", at.Burn)
		}
		last := one.Times[len(one.Times)-1]
		fmt.Fprintf(w, "\t%d\t%d\t%s\n", last.Bad, last.Calls, plain(one.Key.String()))
	}
	_ = w.Flush() // to memory
	more(&b, len(all), rows)
	fmt.Fprintf(&b, "%s\n", style.Faint("burn of the budget, so long back; BAD and CALLS are of the longest"))
	_, err := io.WriteString(out, b.String())
	return err
}
