package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stile-ipc/stile/cmd/stile/internal/protos"
	"github.com/stile-ipc/stile/policy"
)

// policyFlags are those of several commands.
type policyFlags struct {
	file        string
	sources     []string
	importPaths []string
	json        bool
}

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, explain and compare policy files",
		Long: `A policy is gRPC's service config, as YAML or JSON, with one more key, x-stile, for
what gRPC lacks.`,
		Example: `  stile policy lint policy.yaml --proto ./proto
  stile policy explain shop.v1.Pricing/Quote --file policy.yaml
  stile policy diff old.yaml new.yaml
  stile policy export --vanilla policy.yaml > service-config.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyLint(), newPolicyExplain(), newPolicyDiff(), newPolicyExport(), newPolicySchema())
	return cmd
}

func (f *policyFlags) addProtos(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.sources, "proto", nil, "`path` of a .proto file, a folder of them, or a descriptor set; may be repeated")
	cmd.Flags().StringArrayVar(&f.importPaths, "import-path", nil, "`folder` in which .proto files look for imports; may be repeated")
}

func (f *policyFlags) addJSON(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// methods returns nil if no .proto was shown.
func (f *policyFlags) methods(ctx context.Context) (policy.Methods, error) {
	if len(f.sources) == 0 {
		if len(f.importPaths) > 0 {
			return nil, usageError{errors.New("--import-path is of use with --proto only")}
		}
		return nil, nil
	}
	if slices.Contains(f.sources, "") {
		return nil, usageError{errors.New("--proto is empty")}
	}
	all, err := protos.Load(ctx, f.sources, f.importPaths)
	if err != nil {
		return nil, err
	}
	m := policy.Methods{}
	for _, files := range all {
		maps.Copy(m, policy.MethodsOf(files))
	}
	if len(m) == 0 {
		return nil, fmt.Errorf("no service in %s", strings.Join(f.sources, ", "))
	}
	return m, nil
}

// exactly wants n arguments, which what names.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s needs %s", cmd.Name(), what)
		}
		return nil
	}
}

func newPolicyLint() *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Say what is wrong or unwise in policy files",
		Long: `Lint reads policy files and says, with the line, what is wrong and what is unwise:
retries of methods that may not run twice, attempts that do not fit the deadline,
names of methods that do not exist, what grpc-go passes over without a word.

FILE may be - for the standard input. With --proto it knows the methods; without, a method may run twice only if the
policy says so.

Exit codes: 0 nothing but warnings, 1 an error was found, 2 a mistake in the command
line, 3 a failure.`,
		Example: `  stile policy lint policy.yaml
  stile policy lint policy.yaml --proto ./proto --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("lint needs a FILE, such as policy.yaml")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			methods, err := f.methods(cmd.Context())
			if err != nil {
				return err
			}
			return lint(cmd.OutOrStdout(), args, methods, f.json)
		},
	}
	f.addProtos(cmd)
	f.addJSON(cmd)
	return cmd
}

func lint(out io.Writer, files []string, methods policy.Methods, asJSON bool) error {
	found := []policy.Finding{}
	var unread []error
	for _, file := range files {
		c, err := loadPolicy(file)
		var faults policy.Problems
		switch {
		case errors.As(err, &faults):
			for _, p := range faults {
				severity := policy.SeverityWarning
				if p.Rule == "" {
					p.Rule, severity = "malformed", policy.SeverityError
				}
				found = append(found, policy.Finding{Problem: p, Severity: severity})
			}
		case err != nil:
			unread = append(unread, err)
		default:
			found = append(found, policy.Lint(c, methods)...)
		}
	}
	if asJSON {
		if err := printJSON(out, found); err != nil {
			return err
		}
	} else if err := printFindings(out, found, len(files)-len(unread)); err != nil {
		return err
	}
	if len(unread) > 0 {
		return errors.Join(unread...)
	}
	if slices.ContainsFunc(found, func(p policy.Finding) bool { return p.Severity == policy.SeverityError }) {
		return errFinding
	}
	return nil
}

func printFindings(out io.Writer, found []policy.Finding, files int) error {
	var b strings.Builder
	for _, p := range found {
		fmt.Fprintf(&b, "%s (%s, %s)\n", p.Error(), p.Severity, p.Rule)
	}
	switch {
	case len(found) > 0 || files == 0:
	case files == 1:
		b.WriteString("nothing found\n")
	default:
		fmt.Fprintf(&b, "nothing found in %d files\n", files)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// loadPolicy reads a policy file; "-" is the standard input.
func loadPolicy(file string) (*policy.Config, error) {
	if file != "-" {
		return policy.Load(file)
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	return policy.Parse("-", data)
}

// explanation is what explain --json prints.
type explanation struct {
	Method   string           `json:"method"`
	File     string           `json:"file"`
	Entry    string           `json:"entry,omitempty"` // such as methodConfig[0]
	Line     int              `json:"line,omitempty"`  // of Entry
	Matched  string           `json:"matched,omitempty"`
	Settings []policy.Setting `json:"settings"`
}

func newPolicyExplain() *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use:   "explain METHOD --file FILE",
		Short: "Say what holds for a method, and which line says so",
		Long: `Explain prints each value that holds for METHOD, with the line of the policy file it
comes from, or that it is a default. The entry with the most specific name holds
alone: method, then service, then {}.`,
		Example: `  stile policy explain shop.v1.Pricing/Quote --file policy.yaml`,
		Args:    exactly(1, "a METHOD, such as shop.v1.Pricing/Quote"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.file == "" {
				return usageError{errors.New("explain needs --file, the policy file")}
			}
			methods, err := f.methods(cmd.Context())
			if err != nil {
				return err
			}
			c, err := loadPolicy(f.file)
			if err != nil {
				return err
			}
			return explain(cmd.OutOrStdout(), c, args[0], methods, f)
		},
	}
	cmd.Flags().StringVar(&f.file, "file", "", "the policy `file`")
	f.addProtos(cmd)
	f.addJSON(cmd)
	return cmd
}

func explain(out io.Writer, c *policy.Config, method string, methods policy.Methods, f policyFlags) error {
	name := "/" + strings.TrimPrefix(method, "/")
	if service, m, ok := strings.Cut(name[1:], "/"); !ok || service == "" || m == "" || strings.Contains(m, "/") {
		return usageError{fmt.Errorf("%q is not a method: write package.Service/Method", method)}
	}
	if methods != nil && methods[name] == nil {
		return fmt.Errorf("no method %s in %s", name[1:], strings.Join(f.sources, ", "))
	}
	e := c.Effective(name, methods[name])
	x := explanation{Method: name, File: f.file, Entry: e.Entry, Settings: c.Explain(e)}
	if e.Entry != "" {
		x.Line, x.Matched = c.Place(e.Entry).Line, e.Matched.String()
	}
	if f.json {
		return printJSON(out, x)
	}
	file, head := policy.Printable(f.file), ""
	if e.Entry == "" {
		head = fmt.Sprintf("%s: no entry of %s names it\n", policy.Printable(name[1:]), file)
	} else {
		head = fmt.Sprintf("%s: %s:%d, which names %s\n", policy.Printable(name[1:]), file, x.Line, x.Matched)
	}
	if _, err := io.WriteString(out, head); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range x.Settings {
		from := s.Source
		if s.Line > 0 {
			from = fmt.Sprintf("%s:%d", file, s.Line)
		}
		if s.Note != "" {
			from += " (" + s.Note + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, policy.Printable(s.Value), from)
	}
	return w.Flush()
}

func newPolicyDiff() *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say what another version of a policy file would change for calls",
		Long: `Diff compares two policy files by what they do, not by how they are written: how long
a call may take, how often it is tried, what opens a breaker.

Exit codes: 0 the same, 1 something differs, 2 a mistake in the command line, 3 a failure.`,
		Example: `  stile policy diff old.yaml new.yaml
  stile policy diff old.yaml new.yaml --proto ./proto --json`,
		Args: exactly(2, "two files, BEFORE and AFTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			methods, err := f.methods(cmd.Context())
			if err != nil {
				return err
			}
			before, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			after, err := loadPolicy(args[1])
			if err != nil {
				return err
			}
			return diff(cmd.OutOrStdout(), policy.Diff(before, after, methods), f.json)
		},
	}
	f.addProtos(cmd)
	f.addJSON(cmd)
	return cmd
}

func diff(out io.Writer, changes []policy.Change, asJSON bool) error {
	if asJSON {
		if changes == nil {
			changes = []policy.Change{}
		}
		if err := printJSON(out, changes); err != nil {
			return err
		}
	} else if err := printChanges(out, changes); err != nil {
		return err
	}
	if len(changes) > 0 {
		return errFinding
	}
	return nil
}

func printChanges(out io.Writer, changes []policy.Change) error {
	var b strings.Builder
	for i, c := range changes {
		if i == 0 || changes[i-1].Name != c.Name {
			b.WriteString(cmp.Or(c.Name, "all calls") + "\n")
		}
		fmt.Fprintf(&b, "  %s\n", policy.Printable(c.String()))
	}
	if len(changes) == 0 {
		b.WriteString("no difference in what happens\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func newPolicyExport() *cobra.Command {
	vanilla := false
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Print a policy file as the JSON that gRPC takes",
		Long: `Export prints a policy as JSON, for grpc.WithDefaultServiceConfig and resolvers.
grpc-go passes over x-stile; --vanilla leaves it out, for parsers that do not.`,
		Example: `  stile policy export --vanilla policy.yaml > service-config.json`,
		Args:    exactly(1, "a FILE, such as policy.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadPolicy(args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v\n", w)
			}
			_, err = cmd.OutOrStdout().Write(c.ServiceConfig(vanilla))
			return err
		},
	}
	cmd.Flags().BoolVar(&vanilla, "vanilla", false, "leave out x-stile")
	addJSONAnyway(cmd)
	return cmd
}

// addJSONAnyway is for commands that print nothing but JSON.
func addJSONAnyway(cmd *cobra.Command) {
	cmd.Flags().Bool("json", true, "print JSON, as it does anyway")
}

func newPolicySchema() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy files, for editors",
		Example: `  stile policy schema > policy.schema.json
  # and in policy.yaml: # yaml-language-server: $schema=policy.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policy.Schema())
			return err
		},
	}
	addJSONAnyway(cmd)
	return cmd
}
