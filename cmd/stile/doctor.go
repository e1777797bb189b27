package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

type doctorFlags struct {
	dir      string
	allowUID []int
	timeout  time.Duration
	json     bool
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor TARGET",
		Short: "Tell which way a call to a target would go, and why",
		Long: `Doctor resolves TARGET as a gRPC client would, looks for a local door beside each
of its addresses, and says whether a call from here would go through it or over
gRPC. It makes no call. The client is assumed to use no TLS.

What matters is the user, host and container that doctor runs in, and its
environment (STILE, STILE_DIR, STILE_TRANSPORT, XDG_RUNTIME_DIR): run it as the
client runs.

Exit codes: 0 the call would be local, 1 it would go over gRPC, 2 a mistake in
the command line, 3 a failure.`,
		Example: `  stile doctor dns:///catalog:50051
  stile doctor unix:///run/catalog.sock --json
  stile doctor localhost:50051 --dir /shared/stile --allow-uid 1001`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			return doctor(cmd.Context(), cmd.OutOrStdout(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "", "`folder` of the local doors, if the client uses stile.WithDir")
	flags.IntSliceVar(&f.allowUID, "allow-uid", nil, "user `id` that the server may have, if the client uses stile.WithAllowUIDs; may be repeated")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Second, "how long it may take")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func oneTarget(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return fmt.Errorf("doctor needs a TARGET, what the client dials, such as localhost:50051")
	case len(args) > 1:
		return fmt.Errorf("doctor looks at one TARGET at a time, not at %d", len(args))
	case args[0] == "":
		return fmt.Errorf("the TARGET is empty")
	}
	return nil
}

func doctor(ctx context.Context, w io.Writer, target string, f doctorFlags) error {
	if f.timeout <= 0 {
		return usageError{fmt.Errorf("--timeout is %v; it must be more than 0", f.timeout)}
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if f.dir != "" {
		opts = append(opts, stile.WithDir(f.dir))
	}
	if len(f.allowUID) > 0 {
		for _, uid := range f.allowUID {
			if uid < 0 {
				return usageError{fmt.Errorf("--allow-uid is %d; a user id is not negative", uid)}
			}
		}
		opts = append(opts, stile.WithAllowUIDs(f.allowUID...))
	}
	limited, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	d, err := stile.Diagnose(limited, target, opts...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return usageError{err}
	}
	if f.json {
		err = printJSON(w, d)
	} else {
		err = printDiagnosis(w, d)
	}
	if err == nil && d.Way == "grpc" {
		err = errFinding
	}
	return err
}

// printDiagnosis prints what was looked at, and a sentence.
func printDiagnosis(w io.Writer, d stile.Diagnosis) error {
	style := terminal.For(w)
	var b strings.Builder
	width := 0
	for _, s := range d.Steps {
		width = max(width, len(s.Name))
	}
	for _, s := range d.Steps {
		mark := style.Good("ok")
		if !s.OK {
			mark = style.Bad("no")
		}
		fmt.Fprintf(&b, "%s  %-*s  %s\n", mark, width, s.Name, s.Detail)
	}
	fmt.Fprintf(&b, "\n%s\n", style.Strong(sentence(d)))
	_, err := io.WriteString(w, b.String())
	return err
}

func sentence(d stile.Diagnosis) string {
	way := "over gRPC (grpc-go)"
	switch d.Way {
	case "shm":
		way = "through shared memory"
	case "unix":
		way = "through Stile's unix socket"
	}
	return fmt.Sprintf("A call to %s would go %s: %s.", d.Target, way, strings.TrimSuffix(d.Reason, "."))
}
