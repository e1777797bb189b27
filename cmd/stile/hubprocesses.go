package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

func newHubProcesses() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "processes [URL]",
		Short: "List the processes that report to a hub, and what they used",
		Long: `Processes lists the processes that have told a hub in the last 10 minutes what they counted (STILE_HUB, or
stile.ReportTo), with what they used in their last window of 10 s: processors, calls made and served,
context switches, the time that their threads were ready and had no processor, and the times that Stile
woke a peer. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

Exit codes: 0 done, 2 a mistake in the command line, 3 it could not be asked.`,
		Example: `  stile hub processes
  stile hub processes http://localhost:4319 --json | jq '.processes[0]'`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := hubAt(dir, args)
			if err != nil {
				return err
			}
			var p hub.Processes
			if err := askHub(cmd.Context(), at, "processes", &p); err != nil {
				return err
			}
			slices.SortFunc(p.Processes, func(a, b hub.ProcessReport) int {
				return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(a.Service, b.Service), cmp.Compare(a.PID, b.PID))
			})
			if asJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return printProcesses(cmd.OutOrStdout(), p.Processes)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the hub, instead of a URL")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printProcesses(out io.Writer, all []hub.ProcessReport) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "none: processes report that have STILE_HUB in their environment (localhost:4317 for the hub of this host)")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tPID\tHOST\tCPU\tCALLS/S\tSWITCHES/S\tWAITS TO RUN\tWAKE-UPS/S\tSEEN\tDROPPED")
	for _, p := range all {
		each := func(n float64) string {
			if p.Window <= 0 {
				return "-"
			}
			return fmt.Sprintf("%.3g", n/p.Window.Seconds())
		}
		waits := "-"
		if p.Window > 0 {
			waits = routemap.Readable(int64(float64(p.RunQueue)/p.Window.Seconds())) + "/s"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", plain(p.Service), p.PID, plain(p.Host), percent(float64(p.CPU), float64(p.Window)), each(float64(p.Calls)),
			each(float64(p.Voluntary+p.Involuntary)), waits, each(float64(p.Doorbells)), p.Seen.Local().Format(time.TimeOnly), p.Dropped)
	}
	return w.Flush()
}
