package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes of every command.
const (
	exitOK      = 0
	exitFinding = 1
	exitUsage   = 2
	exitFailure = 3
)

// errFinding has a command end with exitFinding, when it has said what it found.
var errFinding = errors.New("finding")

// usageError is a mistake in the command line that only the command itself could
// see.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run runs the command that args name and returns its exit code. SIGINT, SIGTERM
// and SIGHUP end it in good order; a second one ends it at once.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	started := false
	root := newRoot(&started)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	text := ""
	if err != nil {
		text = strings.TrimPrefix(err.Error(), "stile: ")
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFinding):
		return exitFinding
	case !started || errors.As(err, &usage):
		fmt.Fprintf(stderr, "stile: %s\nSee %q.\n", text, cmd.CommandPath()+" --help")
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "stile: interrupted")
		return exitFailure
	}
	fmt.Fprintf(stderr, "stile: %s\n", text)
	return exitFailure
}

// newRoot returns the command that all others are under. started is set when one
// of them begins, its command line being right.
func newRoot(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "stile",
		Short: "Let calls between services cross without opening the gate",
		Long: `Stile takes gRPC calls between processes of one host through shared memory, and
leaves all others to grpc-go.

Exit codes: 0 all is well, 1 something was found, 2 a mistake in the command
line, 3 a failure.`,
		Example: `  stile doctor dns:///catalog:50051
  stile bench
  stile demo`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { *started = true },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		DisableAutoGenTag: true,
	}
	root.AddCommand(newDoctor(), newBench(), newDemo(), newPolicy(), newMap(), newHub(), newTop(), newQueue(), newVersion())
	return root
}

// printJSON prints v for a program to read.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// atLeastOne tells what is wrong with a number that a flag has.
func atLeastOne(flag string, n int) error {
	if n < 1 {
		return usageError{fmt.Errorf("--%s has to be 1 or more", flag)}
	}
	return nil
}
