package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/cmd/stile/internal/top"
	"github.com/stile-ipc/stile/hub"
)

const (
	leastEvery  = time.Second
	leastWindow = 10 * time.Second // a hub's
)

func newTop() *cobra.Command {
	var dir string
	var every, window time.Duration
	var once, asJSON bool
	cmd := &cobra.Command{
		Use:   "top [URL]",
		Short: "Watch a hub's map in the terminal",
		Long: `Top shows what a hub tells of now, and asks again every 2 s: routes with their calls per second,
failures, durations, where their calls wait, and by which way they go; all of one route; the
processes that report; what stands out. The key ? lists the keys, q quits. While the hub is away it
shows what was told last, and goes on when it is back.

Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

--once prints the routes and ends; so it is if the output is no terminal. WAITS is where calls wait:
c in the client's queue, t in transport, s in the server's queue, h in the handler.

Exit codes: 0 done, 2 a mistake in the command line, 3 the hub could not be asked.`,
		Example: `  stile top
  stile top http://localhost:4319 --window 5m
  stile top --once --json | jq '.routes[0].calls'`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if every < leastEvery || window < leastWindow {
				return usageError{fmt.Errorf("--every has to be %s or more, --window %s or more", leastEvery, leastWindow)}
			}
			ask := func(ctx context.Context) (top.Answer, error) { return askTop(ctx, dir, args, window) }
			out := cmd.OutOrStdout()
			if once || asJSON || !terminal.Is(out) {
				a, err := ask(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(out, mapJSON{a.Map, a.Left})
				}
				return top.Print(out, a, window)
			}
			return top.Run(cmd.Context(), top.Config{
				Ask: ask, Fatal: func(err error) bool { var usage usageError; return errors.As(err, &usage) },
				Every: every, Window: window, Colour: os.Getenv("NO_COLOR") == "", Out: out,
			})
		},
	}
	flags := cmd.Flags()
	flags.Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	flags.DurationVar(&every, "every", 2*time.Second, "how often to ask")
	flags.DurationVar(&window, "window", 30*time.Second, "how far back to look")
	flags.BoolVar(&once, "once", false, "print the routes and end")
	flags.BoolVar(&asJSON, "json", false, "print the map as JSON and end")
	return cmd
}

// askTop asks a hub, which may be another each time: one that is started again may have another port.
func askTop(ctx context.Context, dir string, args []string, window time.Duration) (a top.Answer, err error) {
	at, err := hubAt(dir, args)
	if err != nil {
		return a, err
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return a, usageError{fmt.Errorf("%q is no URL of a hub", at)}
	}
	if u.RawQuery != "" {
		return a, usageError{fmt.Errorf("%s: top looks at now: give --window instead of from and to", u.Redacted())}
	}
	a.Hub = u.Redacted()
	var p hub.Processes
	if err := askHub(ctx, at, "processes", &p); err != nil {
		return a, err
	}
	a.Processes = p.Processes
	u.RawQuery = url.Values{"from": {window.String()}}.Encode()
	a.Map, a.Left, err = hubMap(ctx, u.String())
	return a, err
}
