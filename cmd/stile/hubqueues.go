package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

func newHubQueues() *cobra.Command {
	var dir, from, to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "queues [URL]",
		Short: "List queues: what is left, in flight, dead, and when they are full",
		Long: `Queues lists the topics and groups of which processes have told a hub, those with the most messages left
first: lag, messages that were never delivered to the group; in flight, delivered and not done with; dead
letters; the topic's messages that are not due yet; the age of the oldest message that the group is not
done with; what came and what was done with, a second; how full the topic is, and when it will be if it
goes on so. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN. What is stuck is mended by stile queue, or in the hub's dashboard.

Exit codes: 0 done, 2 a mistake in the command line, 3 it could not be asked.`,
		Example: `  stile hub queues
  stile hub queues http://localhost:4319 --from 1h --json | jq '.queues[0]'`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := hubAt(dir, args)
			if err != nil {
				return err
			}
			params := url.Values{}
			for name, value := range map[string]string{"from": from, "to": to} {
				if value != "" {
					params.Set(name, value)
				}
			}
			at, _, _ = strings.Cut(at, "?")
			var q hub.Queues
			if err := askHub(cmd.Context(), at+"?"+params.Encode(), "queues", &q); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), q)
			}
			return printQueues(cmd.OutOrStdout(), &q)
		},
	}
	f := cmd.Flags()
	f.Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	f.StringVar(&from, "from", "", "a `time`, or how long ago (default 15m)")
	f.StringVar(&to, "to", "", "a `time`, or how long ago (default now)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printQueues(out io.Writer, q *hub.Queues) error {
	if len(q.Queues) == 0 {
		_, err := fmt.Fprintln(out, "none: processes that have queues tell of them with STILE_HUB in their environment (localhost:4317 for the hub of this host)")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tGROUP\tLAG\tIN FLIGHT\tDEAD\tDELAYED\tOLDEST\tIN/S\tOUT/S\tFULL\tFULL IN\tSEEN\tWHERE")
	for _, one := range q.Queues {
		group, oldest, full, until, in, done := "-", "-", "-", "-", "-", "-"
		if one.Group != "" {
			group = plain(one.Group)
		}
		if one.Oldest > 0 {
			oldest = routemap.Readable(one.Oldest)
		}
		if one.MaxBytes > 0 {
			full = percent(float64(one.Bytes), float64(one.MaxBytes))
		}
		if one.UntilFull > 0 {
			until = one.UntilFull.Round(time.Second).String()
		}
		if one.Measured > 0 {
			in, done = fmt.Sprintf("%.3g", one.In), fmt.Sprintf("%.3g", one.Out)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(one.Topic), group, one.Lag, one.InFlight, one.Dead, one.Delayed, oldest, in, done, full, until,
			one.Seen.Local().Format(time.TimeOnly), plain(one.Where))
	}
	if more := q.All - len(q.Queues); more > 0 {
		fmt.Fprintf(w, "%d more\n", more)
	}
	return w.Flush()
}
