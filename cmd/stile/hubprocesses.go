package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
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
woke a peer. PEAK is the most that a process used in 200 ms of the last 30 s, OPEN how many calls it had at
local doors then, at most, made and served. Below are the hosts: what all their processes used in that
time, on average, what of it others did, which do not report, and what the hypervisor took. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
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
			var l hub.Loads
			if err := askHub(cmd.Context(), at+recently, "load", &l); err != nil && !strings.Contains(at, "?") {
				return err
			}
			return printProcesses(cmd.OutOrStdout(), p.Processes, l)
		},
	}
	cmd.Flags().Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// recently is of what the peaks are.
const recently = "?from=30s&points=150"

// peak is the largest of some numbers, or what is told if there are none.
func peak(format string, columns ...[]*hub.Number) string {
	most, known := 0.0, false
	for i := range columns[0] {
		sum := 0.0
		for _, c := range columns {
			if c[i] != nil {
				sum, known = sum+float64(*c[i]), true
			}
		}
		most = max(most, sum)
	}
	if !known {
		return "-"
	}
	return fmt.Sprintf(format, most)
}

// mean is the mean of what is known; NaN: nothing is.
func mean(column []*hub.Number) float64 {
	sum, n := 0.0, 0
	for _, v := range column {
		if v != nil {
			sum, n = sum+float64(*v), n+1
		}
	}
	return sum / float64(n)
}

func printHosts(out io.Writer, all []hub.HostLoad) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(out, "\nHOST\tPROCESSORS\tUSED\tBY OTHERS\tSTOLEN")
	for _, h := range all {
		user, system, idle, steal, known := mean(h.User), mean(h.System), mean(h.Idle), mean(h.Steal), mean(h.Known)
		fmt.Fprintf(out, "%s\t%.0f\t%.2f\t%.2f\t%.2f\n", plain(h.Name), user+system+idle+steal, user+system, max(user+system+steal-known, 0), steal)
	}
}

func printProcesses(out io.Writer, all []hub.ProcessReport, l hub.Loads) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "none: processes report that have STILE_HUB in their environment (localhost:4317 for the hub of this host)")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	loads := map[string]hub.ProcessLoad{}
	for _, p := range l.Processes {
		loads[p.ID] = p
	}
	fmt.Fprintln(w, "SERVICE\tPID\tHOST\tCPU\tPEAK\tOPEN\tCALLS/S\tSWITCHES/S\tWAITS TO RUN\tWAKE-UPS/S\tSEEN\tDROPPED")
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
		of := loads[p.ID]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s, %s\t%s\t%s\t%s\t%s\t%s\t%d\n", plain(p.Service), p.PID, plain(p.Host), percent(float64(p.CPU), float64(p.Window)),
			peak("%.2f", of.User, of.System), peak("%.0f", of.OpenMade), peak("%.0f", of.OpenServed), each(float64(p.Calls)),
			each(float64(p.Voluntary+p.Involuntary)), waits, each(float64(p.Doorbells)), p.Seen.Local().Format(time.TimeOnly), p.Dropped)
	}
	printHosts(w, l.Hosts)
	return w.Flush()
}
