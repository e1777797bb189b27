package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
)

func newHubEvents() *cobra.Command {
	var dir, from, to, service, kind string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [URL]",
		Short: "List what happened: decisions of policies, connections, dead messages",
		Long: `Events lists what processes that report to a hub have told of, the newest first: what their policies decided
(breakers that moved, calls that were refused, shed or tried again, versions that came into force), local
connections that began and ended, why calls go over gRPC, messages that are dead. Like ones of 10 s are one
line. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

Exit codes: 0 done, 2 a mistake in the command line, 3 it could not be asked.`,
		Example: `  stile hub events --from 1h
  stile hub events http://localhost:4319 --service orders --kind 'breaker moved' --json`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := hubAt(dir, args)
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, value := range map[string]string{"from": from, "to": to, "service": service, "kind": kind} {
				if value != "" {
					q.Set(name, value)
				}
			}
			at, _, _ = strings.Cut(at, "?")
			var e hub.Events
			if err := askHub(cmd.Context(), at+"?"+q.Encode(), "events", &e); err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), e)
			case len(e.Events) > 0 || kind == "":
				return printEvents(cmd.OutOrStdout(), &e)
			}
			q.Del("kind")
			q.Set("limit", strconv.Itoa(hub.MaxEvents))
			if err := askHub(cmd.Context(), at+"?"+q.Encode(), "events", &e); err != nil {
				return err
			}
			return printKinds(cmd.OutOrStdout(), kind, &e)
		},
	}
	f := cmd.Flags()
	f.Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	f.StringVar(&from, "from", "", "a `time`, or how long ago (default 15m)")
	f.StringVar(&to, "to", "", "a `time`, or how long ago (default now)")
	f.StringVar(&service, "service", "", "of a `service` alone")
	f.StringVar(&kind, "kind", "", "of a `kind` alone")
	f.IntVarP(&limit, "number", "n", hub.DefaultEvents, "at most `N` events")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printKinds says that there are no events of a kind, and of which there are.
func printKinds(out io.Writer, kind string, e *hub.Events) error {
	var kinds []string
	for _, one := range e.Events {
		kinds = append(kinds, strconv.Quote(one.Kind))
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	if len(kinds) == 0 {
		return printEvents(out, e)
	}
	_, err := fmt.Fprintf(out, "nothing of the kind %q; there is %s\n", kind, strings.Join(kinds, ", "))
	return err
}

func printEvents(out io.Writer, e *hub.Events) error {
	if len(e.Events) == 0 {
		_, err := fmt.Fprintf(out, "nothing, from %s to %s\n", e.Window.From.Local().Format(time.DateTime), e.Window.To.Local().Format(time.DateTime))
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tTIMES\tSERVICE\tPID\tWHAT\tWHOM\tDETAIL")
	for _, one := range e.Events {
		what := plain(one.Kind)
		if one.Error {
			what += " !"
		}
		detail := plain(one.Detail)
		if one.Trace != "" {
			detail += " (trace " + plain(one.Trace) + ")"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%s\n", one.First.Local().Format("2006-01-02 15:04:05.000"), one.Count, plain(one.Service), one.PID, what, plain(one.Subject), detail)
	}
	return w.Flush()
}
