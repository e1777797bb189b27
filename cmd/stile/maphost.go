package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/hostmap"
)

func newMapHost() *cobra.Command {
	var asJSON, asDOT bool
	var name string
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Show which processes of this host talk to each other, and by what",
		Long: `Host shows who has a socket, a pipe or shared memory with whom, as the kernel tells it: nothing has to
be added to the processes. Those of other users are seen by root alone; so are other network
namespaces. What is asked is not told: see traces for that. A line without an arrow is one of which
nothing tells who asks.

Exit codes: 0 done, 2 a mistake in the command line, 3 the host does not tell.`,
		Example: `  stile map host
  sudo stile map host --name catalog
  stile map host --dot | dot -Tsvg > host.svg`,
		Args: between(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asDOT {
				return usageError{fmt.Errorf("--json and --dot are two forms: give one")}
			}
			h, err := hostmap.Scan(cmd.Context())
			if err != nil {
				return fmt.Errorf("map host: %w", err)
			}
			h.Only(name)
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), h)
			case asDOT:
				return printHostDOT(cmd.OutOrStdout(), h)
			}
			return printHost(cmd.OutOrStdout(), terminal.For(cmd.OutOrStdout()), h)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asDOT, "dot", false, "print a graph for Graphviz")
	cmd.Flags().StringVar(&name, "name", "", "leave out what has no end in a process of this `name`")
	return cmd
}

// hostEnds are the names of edges' ends: of processes with their numbers.
func hostEnds(h *hostmap.Host) func(hostmap.End) string {
	names := map[int]string{}
	for _, p := range h.Processes {
		names[p.PID] = p.Name
	}
	return func(e hostmap.End) string {
		if e.PID == 0 {
			return e.Address
		}
		return fmt.Sprintf("%s[%d]", names[e.PID], e.PID)
	}
}

func printHost(out io.Writer, style terminal.Style, h *hostmap.Host) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\t\tTO\tBY\tHOW MANY\tUNREAD\tAT")
	end := hostEnds(h)
	for _, e := range h.Edges {
		arrow := "→"
		if !e.Directed {
			arrow = "–"
		}
		unread := "-"
		if e.Unread > 0 {
			unread = strconv.FormatUint(e.Unread, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", plain(end(e.From)), arrow, plain(end(e.To)), e.Transport, e.Count, unread, plain(e.Via))
	}
	_ = w.Flush() // to memory
	fmt.Fprintf(&b, "%s\n", style.Faint(fmt.Sprintf("%d processes looked at, %d of others' were not; sockets of %d network namespaces, of %d not; ? is a process that was not looked at", h.Seen, h.Hidden, h.Namespace, h.Elsewhere)))
	_, err := io.WriteString(out, b.String())
	return err
}

func printHostDOT(out io.Writer, h *hostmap.Host) error {
	var b strings.Builder
	b.WriteString("digraph host {\n  rankdir=LR; node [shape=box];\n")
	end := hostEnds(h)
	for _, e := range h.Edges {
		direction := ""
		if !e.Directed {
			direction = ", dir=none"
		}
		fmt.Fprintf(&b, "  %s -> %s [label=%s%s];\n", dotName(end(e.From)), dotName(end(e.To)), dotName(e.Transport), direction)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
