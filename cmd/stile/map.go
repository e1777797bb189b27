package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

func newMap() *cobra.Command {
	var asJSON, asDOT, asHTML bool
	var rows, spans int
	cmd := &cobra.Command{
		Use:   "map FILE... | URL",
		Short: "Show who calls whom, and what it costs, from traces",
		Long: `Map reads traces and shows their routes by what they cost, hot paths, where callers wait, how
deep calls are nested, and what stands out: N+1, chatty routes, requests that are repeated.
Files may be OTLP JSON, Jaeger JSON or Zipkin JSON v2, one value or one a line, gzip or not;
- is the standard input. They may be larger than memory: traces whose spans come far apart are
then cut. Spans that cannot be read are counted by reason; of several files those that are no
traces are left out, which is said.

The URL of a hub is asked for the map of its last 15 minutes, or of the time that from and to say,
each a time (2006-01-02T15:04:05Z) or how long ago (90m). A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

--html writes all of it as one page that loads nothing else: it can be kept and sent as it is.

Exit codes: 0 done, 2 a mistake in the command line, 3 nothing could be read.

"stile map terms" says what each word means.`,
		Example: `  stile map traces/*.json
  stile map traces.json.gz --json | jq '.routes[0]'
  stile map traces.json --html > map.html
  stile map traces.json --dot | dot -Tsvg > map.svg
  stile map http://localhost:4319
  stile map 'http://localhost:4319?from=2h&to=1h'
  stile map terms`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("map needs a FILE of traces, - for the standard input, or the URL of a hub")
			}
			return nil
		},
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asDOT || asHTML && (asJSON || asDOT) {
				return usageError{errors.New("--json, --dot and --html are different forms: give one")}
			}
			if asHTML && !cmd.Flags().Changed("number") {
				rows = htmlRows
			}
			return cmp.Or(atLeastOne("number", rows), atLeastOne("spans", spans))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			report, left, err := mapFiles(cmd.Context(), args, spans, cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), mapJSON{report, left})
			case asDOT:
				return printDOT(cmd.OutOrStdout(), report)
			case asHTML:
				return printHTML(cmd.OutOrStdout(), report, left, rows)
			}
			return printMap(cmd.OutOrStdout(), terminal.For(cmd.OutOrStdout()), report, left, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asDOT, "dot", false, "print a graph for Graphviz")
	cmd.Flags().BoolVar(&asHTML, "html", false, "print a page for a browser")
	cmd.Flags().IntVarP(&rows, "number", "n", 10, fmt.Sprintf("how `many` lines of each kind to show; on a page %d", htmlRows))
	cmd.Flags().IntVar(&spans, "spans", routemap.DefaultSpans, "how `many` spans to hold until their traces are complete")
	cmd.AddCommand(newMapDiff(), newMapBurn(), newMapHost(), newMapTerms())
	return cmd
}

// mapJSON is what --json prints.
type mapJSON struct {
	*routemap.Report
	LeftOut map[string]uint64 `json:"leftOut"` // spans, by reason
}

// mapFiles reads files, and tells how many spans were left out and why. One that is cut off is told, and counts as far as it goes.
func mapFiles(ctx context.Context, files []string, spans int, stdin io.Reader, stderr io.Writer) (*routemap.Report, map[string]uint64, error) {
	for _, name := range files {
		if isURL(name) && len(files) > 1 {
			return nil, nil, usageError{fmt.Errorf("%s is a hub, whose map is shown alone", name)}
		} else if isURL(name) {
			return hubMap(ctx, name)
		}
	}
	m := routemap.New()
	left := map[string]uint64{}
	a := routemap.NewAssembler(spans, m.Add)
	var n, told = uint64(0), time.Now()
	take := func(s routemap.Span) error {
		a.Add(s)
		n++
		if n%1024 == 0 {
			if time.Since(told) >= time.Second {
				told = time.Now()
				fmt.Fprintf(stderr, "%d spans\n", n)
			}
			return ctx.Err()
		}
		return nil
	}
	for _, name := range files {
		counts, err := mapFile(name, stdin, take)
		for why, n := range counts.LeftOut {
			left[why] += n
		}
		switch {
		case err == nil:
		case counts.Spans > 0 && ctx.Err() == nil:
			fmt.Fprintf(stderr, "stile: %s: %v; the %d spans before that count\n", name, err, counts.Spans)
		case errors.Is(err, tracefile.ErrUnknown) && len(files) > 1:
			fmt.Fprintf(stderr, "stile: %s is left out: %v\n", name, err)
		case errors.Is(err, fs.ErrNotExist) && strings.Contains(name, ":"):
			return nil, nil, usageError{fmt.Errorf("%s: there is no such file; the URL of a hub begins with http:// or https://", name)}
		default:
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if n == 0 && len(left) == 0 {
		return nil, nil, tracefile.ErrUnknown
	}
	a.Flush()
	if over := a.LeftOut(); over > 0 {
		left[routemap.FaultTooLarge] += over
	}
	return m.Report(), left, nil
}

func mapFile(name string, stdin io.Reader, take func(routemap.Span) error) (tracefile.Counts, error) {
	if name == "-" {
		return tracefile.Read(stdin, take)
	}
	f, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return tracefile.Counts{}, err
	}
	defer f.Close()
	return tracefile.Read(f, take)
}

func newMapTerms() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "terms [WORD]",
		Short:   "Say what the map's words mean",
		Example: `  stile map terms "hot path"`,
		Args:    between(0, 1, "no more than one WORD; one of several words needs quotes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := routemap.Terms()
			if len(args) == 1 {
				var some []routemap.Term
				for _, t := range all {
					if strings.EqualFold(t.Name, args[0]) || strings.EqualFold(t.Name, strings.TrimSuffix(args[0], "s")) {
						some = append(some, t)
					}
				}
				if some == nil {
					return usageError{fmt.Errorf("%q is none of the map's words: see stile map terms", args[0])}
				}
				all = some
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			for _, t := range all {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s.\n", t.Name, t.Definition); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
