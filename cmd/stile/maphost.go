package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

func newMapHost() *cobra.Command {
	var asJSON, asDOT, asHTML bool
	var name string
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "host [URL]",
		Short: "Show which processes of this host talk to each other, and by what",
		Long: `Host shows who has a socket, a pipe or shared memory with whom, as the kernel tells it: nothing has to
be added to the processes. Those of other users are seen by root alone; so are other network
namespaces. What is asked is not told: see traces for that. A line without an arrow is one of which
nothing tells who asks.

With --for the sockets are looked at again and again for so long, every 100 ms, or 20 times if that is
less, and where somebody waits is told: who writes faster than the other end reads, and who is not
accepted. stile map terms says when that is a blocking point, and when backpressure.

With the URL of a hub, whose map is asked as stile map does, who reports there is called by its
service, the ways whose routes cost most are first, and those of which no route tells are last: what
the host alone knows of. A hub with tokens wants one that reads, in STILE_HUB_TOKEN.

Exit codes: 0 done, 2 a mistake in the command line, 3 the host, or the hub, does not tell.`,
		Example: `  stile map host
  sudo stile map host --name catalog
  stile map host --for 10s
  sudo stile map host http://localhost:4319
  stile map host --dot | dot -Tsvg > host.svg
  stile map host --for 10s --html > host.html`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !isURL(args[0]) {
				return usageError{fmt.Errorf("%q is no URL of a hub, which begins with http:// or https://", args[0])}
			}
			if asJSON && asDOT || asJSON && asHTML || asDOT && asHTML {
				return usageError{errors.New("--json, --dot and --html are different forms: give one")}
			}
			if long < 0 || long > maxWatch {
				return usageError{fmt.Errorf("--for %s: it is up to %s", long, maxWatch)}
			}
			scan := hostmap.Scan
			if long > 0 {
				scan = func(ctx context.Context) (*hostmap.Host, error) {
					return hostmap.Watch(ctx, long, min(watchEvery, max(long/watchLeast, time.Millisecond)))
				}
			}
			v, err := seeHost(cmd.Context(), scan, name, strings.Join(args, ""))
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), v)
			case asDOT:
				return printHostDOT(cmd.OutOrStdout(), v)
			case asHTML:
				return printHostHTML(cmd.OutOrStdout(), v)
			}
			return printHost(cmd.OutOrStdout(), terminal.For(cmd.OutOrStdout()), v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asDOT, "dot", false, "print a graph for Graphviz")
	cmd.Flags().BoolVar(&asHTML, "html", false, "print a page for a browser")
	cmd.Flags().DurationVar(&long, "for", 0, "look again and again for so `long`, where somebody waits")
	cmd.Flags().StringVar(&name, "name", "", "leave out what has no end in a process whose program, or service, has this `name`")
	return cmd
}

// seeHost is the host as scan has it, those ways of it with an end in a process that has a name, if one is given, and beside it what the hub at a URL knows, if that is given.
func seeHost(ctx context.Context, scan func(context.Context) (*hostmap.Host, error), name, at string) (*hostView, error) {
	if at != "" { // what is wrong with it is told before the host is looked at for long
		if _, err := hubProcesses(ctx, at); err != nil {
			return nil, err
		}
	}
	h, err := scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("map host: %w", err)
	}
	reporting, report, left := new(hub.Processes), (*routemap.Report)(nil), map[string]uint64(nil)
	if at != "" {
		if reporting, err = hubProcesses(ctx, at); err != nil {
			return nil, err
		}
		if report, left, err = hubMap(ctx, at); err != nil {
			return nil, err
		}
	}
	v := viewOf(h, servicesOf(h, reporting.Processes))
	if report != nil {
		v.tell(report, reporting)
		v.Damaged = left[damagedWindows]
	}
	if name != "" {
		v.only(name)
	}
	return v, nil
}

// How sockets are looked at again and again.
const (
	watchEvery = 100 * time.Millisecond
	watchLeast = 20 // times, also where it is short
	maxWatch   = time.Hour
)

// end is the name of an edge's end: of a process with its number.
func (v *hostView) end(e hostmap.End) string {
	if e.PID == 0 {
		return e.Address
	}
	return fmt.Sprintf("%s[%d]", cmp.Or(v.Services[e.PID], v.programs[e.PID]), e.PID)
}

func printHost(out io.Writer, style terminal.Style, v *hostView) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "FROM\t\tTO\tBY\tHOW MANY\tUNREAD\t")
	if v.Asked {
		fmt.Fprint(w, "COST\tCALLS\t")
	}
	fmt.Fprintln(w, "KNOWN BY\tAT")
	for _, e := range v.Edges {
		arrow := "→"
		if !e.Directed {
			arrow = "–"
		}
		unread := "-"
		if e.Unread > 0 {
			unread = strconv.FormatUint(e.Unread, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t", plain(v.end(e.From)), arrow, plain(v.end(e.To)), e.Transport, e.Count, unread)
		if v.Asked {
			cost, calls := "-", "-"
			if e.Routes > 0 {
				cost, calls = routemap.Readable(e.Cost), strconv.FormatUint(e.Calls, 10)
			}
			fmt.Fprintf(w, "%s\t%s\t", cost, calls)
		}
		fmt.Fprintf(w, "%s\t%s\n", strings.Join(e.knownBy(), ", "), plain(e.Via))
	}
	_ = w.Flush() // to memory
	if v.Watched > 0 {
		printPressure(&b, style, v)
		printThreads(&b, style, v)
	}
	for _, note := range v.notes() {
		fmt.Fprintf(&b, "%s\n", style.Strong(note))
	}
	fmt.Fprintf(&b, "%s\n", style.Faint(fmt.Sprintf("%d processes looked at, %d of others' were not; sockets of %d network namespaces, of %d not; %d pipes may not be asked how full they are; ? is a process that was not looked at", v.Seen, v.Hidden, v.Namespace, v.Elsewhere, v.Unasked)))
	_, err := io.WriteString(out, b.String())
	return err
}

// notes are what the hub does not tell.
func (v *hostView) notes() (all []string) {
	if !v.Asked {
		return nil
	}
	told := "the hub has no routes of that time"
	if v.Window != nil {
		told = fmt.Sprintf("no route that the hub has, from %s to %s, is known to go there", v.Window.From.Format(time.RFC3339), v.Window.To.Format(time.RFC3339))
	}
	all = append(all, fmt.Sprintf("%d of %d ways are known from the host alone: %s", v.untold(), len(v.Edges), told))
	if v.Damaged > 0 {
		all = append(all, fmt.Sprintf("left out, %s: %d", damagedWindows, v.Damaged))
	}
	if v.Unplaced > 0 {
		all = append(all, fmt.Sprintf("%d processes report, but not on which host, so their ways seem known from the host alone: the hub, or what they are built with, is older than this program", v.Unplaced))
	}
	return all
}

// printPressure shows where somebody waits.
func printPressure(b *strings.Builder, style terminal.Style, v *hostView) {
	fmt.Fprintf(b, "\n%s\n", style.Strong(fmt.Sprintf("Where they wait, of %d samples in %s", v.Samples, v.Watched.Round(time.Millisecond))))
	if len(v.Pressure) == 0 {
		b.WriteString("nowhere\n")
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHO WAITS\t\tFOR\tBY\tFULL\tDEEP\tBACKLOG\tNO ROOM\tAT MOST\tAT\tWHAT IT IS")
	for _, p := range v.Pressure {
		fmt.Fprintf(w, "%s\t→\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", plain(v.end(p.From)), plain(v.end(p.To)), p.Transport, p.Full, p.Deep, p.Backlog,
			percent(float64(p.Limited), float64(p.Busy)), percent(p.Most, 1), plain(p.Via), strings.Join(whatItIs(&p), ", "))
	}
	_ = w.Flush() // to memory
}

// whatItIs are the terms for where somebody waits.
func whatItIs(p *hostmap.Pressure) (is []string) {
	if p.Blocking {
		is = append(is, "blocking point")
	}
	if p.Backpressure {
		is = append(is, "backpressure")
	}
	return is
}

// mostThreads is how many processes printThreads shows; --json has all.
const mostThreads = 20

// bySwitches are the processes, those first that switched most.
func (v *hostView) bySwitches() []hostmap.Process {
	all := slices.Clone(v.Processes)
	slices.SortStableFunc(all, func(a, b hostmap.Process) int {
		return cmp.Compare(b.Voluntary+b.Involuntary, a.Voluntary+a.Involuntary)
	})
	return all
}

// printThreads shows which processes switched most while they were watched.
func printThreads(b *strings.Builder, style terminal.Style, v *hostView) {
	fmt.Fprintf(b, "\n%s\n", style.Strong("How often they switched, a second"))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROCESS\tTO WAIT\tTAKEN OFF\tWAITED TO RUN")
	for _, p := range first(v.bySwitches(), mostThreads) {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\n", plain(v.end(hostmap.End{PID: p.PID})), float64(p.Voluntary)/v.Watched.Seconds(), float64(p.Involuntary)/v.Watched.Seconds(), percent(float64(p.RunQueue), float64(v.Watched)))
	}
	_ = w.Flush() // to memory
}

func printHostDOT(out io.Writer, v *hostView) error {
	var b strings.Builder
	b.WriteString("digraph host {\n  rankdir=LR; node [shape=box];\n")
	for _, e := range v.Edges {
		more := ""
		if !e.Directed {
			more = ", dir=none"
		}
		label := e.Transport
		switch {
		case v.Asked && e.Routes == 0:
			more += ", style=dotted"
		case e.Calls > 0:
			label += fmt.Sprintf(", %d calls, %s", e.Calls, routemap.Readable(e.Cost))
		}
		fmt.Fprintf(&b, "  %s -> %s [label=%s%s];\n", dotName(v.end(e.From)), dotName(v.end(e.To)), dotName(label), more)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
