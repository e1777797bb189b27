package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

func newHubPolicies() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "policies [URL]",
		Short: "List which policies are in force where, and who lags",
		Long: `Policies lists the policies that are in force in the processes that report to a hub (STILE_HUB, or
stile.ReportTo), by where they come from: which version, since when, and why a later one is not taken. A process
lags that has another version than the one that came into force last; versions are named by the hash of what
they say. Without a URL the hub of the folder is asked. A hub with tokens wants one that reads, in
STILE_HUB_TOKEN.

Exit codes: 0 all is well, 1 a process lags or refuses a version, 2 a mistake in the command line,
3 it could not be asked.`,
		Example: `  stile hub policies
  stile hub policies http://localhost:4319 --json | jq '.policies[] | select(.lags)'`,
		Args: between(0, 1, "no more than one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := hubAt(dir, args)
			if err != nil {
				return err
			}
			var p hub.Policies
			if err := askHub(cmd.Context(), at, "policies", &p); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), p)
			} else {
				err = printPolicies(cmd.OutOrStdout(), &p)
			}
			for _, s := range p.Sources {
				if err == nil && s.Lagging+s.Refusing > 0 {
					err = errFinding
				}
			}
			return err
		},
	}
	cmd.Flags().Var((*folder)(&dir), "dir", "`folder` of the hub, instead of a URL")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printPolicies(out io.Writer, p *hub.Policies) error {
	if len(p.Sources) == 0 {
		_, err := fmt.Fprintln(out, "none: processes tell of their policies that have STILE_HUB in their environment, and stile.WithPolicy, stile.Policy or an interceptor of package policy in their code")
		return err
	}
	b := bufio.NewWriter(out)
	newest := map[string]string{}
	for _, s := range p.Sources {
		newest[s.Source+"\x00"+s.Service] = s.Newest
		fmt.Fprintf(b, "%s: %d in force, %d lag, %d refuse a version\n", sourceName(s.Source, s.Service), s.Processes, s.Lagging, s.Refusing)
		if s.Newest != "" {
			fmt.Fprintf(b, "  newest %s since %s\n", versionName(s.Newest, versionOf(s)), s.Since.Local().Format(time.DateTime))
		}
	}
	fmt.Fprintln(b)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tPID\tHOST\tPOLICY\tVERSION\tSTANDS\tSINCE\tFROM")
	for _, one := range p.Policies {
		service := ""
		if one.Source == "" {
			service = one.Service
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(one.Service), one.PID, plain(one.Host), sourceName(one.Source, service), versionName(one.ID, one.Version),
			standing(&one, newest[one.Source+"\x00"+service]), one.Since.Local().Format(time.DateTime), plain(one.From))
	}
	_ = w.Flush() // to memory
	for _, one := range p.Policies {
		if one.Refused != "" {
			fmt.Fprintf(b, "\n%s %d refuses what is there now:\n", plain(one.Service), one.PID)
			for line := range strings.SplitSeq(one.Refused, "\n") {
				fmt.Fprintf(b, "  %s\n", plain(line))
			}
		}
	}
	if more := p.All - len(p.Policies); more > 0 {
		fmt.Fprintf(b, "… and %d more\n", more)
	}
	return b.Flush()
}

// standing is how a process stands to the newest version.
func standing(p *hub.PolicyReport, newest string) string {
	switch {
	case p.Refused != "" && p.Lags > 0:
		return "refuses a version, lags " + routemap.Readable(int64(p.Lags))
	case p.Refused != "":
		return "refuses a version"
	case p.Lags > 0:
		return "lags " + routemap.Readable(int64(p.Lags))
	case p.ID == newest:
		return "newest"
	}
	return "not known" // it has not reported for a while
}

func sourceName(source, service string) string {
	if source == "" {
		return "(code of " + plain(service) + ")"
	}
	return plain(source)
}

// versionName is what people tell versions apart by.
func versionName(id, version string) string {
	name := id[:min(len(id), 8)]
	if version != "" {
		name += " " + plain(version)
	}
	return name
}

func versionOf(s hub.PolicySource) string {
	for _, v := range s.Versions {
		if v.ID == s.Newest {
			return v.Version
		}
	}
	return ""
}
