package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/cmd/stile/internal/demo"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

// errFailedRequests is the failure of a demo in which requests failed.
var errFailedRequests = errors.New("requests failed")

// shortestDemo is about what it takes to have a few requests in each window.
const shortestDemo = time.Second

func newDemo() *cobra.Command {
	cfg := demo.Config{Duration: 40 * time.Second}
	if os.Getenv("CI") == "true" {
		cfg.Duration = 20 * time.Second
	}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a shop of six services over grpc-go, move it to Stile under load, and compare",
		Long: `Demo starts the shop's six programs over plain grpc-go and sends requests to
their gateway; starts them a second time, over Stile; moves the load to and fro
between both while it runs; and at last stops the first six. It prints requests/s,
response times, CPU time and context switches of all six programs, side by side.

Requests are sent at fixed times, however slow the answers are, and each is timed
from when it was due. The result goes to standard output, all else to standard
error. On Linux the services end with this program, whatever ends it.

Exit codes: 0 no request failed, 2 a mistake in the command line, 3 a request
failed, or the demo did.`,
		Example: `  stile demo
  stile demo --duration 2m --rate 200
  stile demo --json >result.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Progress = cmd.ErrOrStderr()
			return runDemo(cmd.Context(), cmd.OutOrStdout(), cfg, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&cfg.Duration, "duration", cfg.Duration, "how long the load runs; 20s if CI is true and it is not given")
	flags.Float64Var(&cfg.Rate, "rate", 0, "`requests`/s; if not given, a third or so of what the services over grpc-go can answer here, 1000 at most")
	flags.StringVar(&cfg.Shop, "shop", "", "`folder` with the six programs; shop beside this one if not given")
	flags.StringVar(&cfg.Network, "network", demo.DefaultNetwork(), "how the services listen: unix or tcp")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func runDemo(ctx context.Context, w io.Writer, cfg demo.Config, asJSON bool) error {
	if err := checkDemo(&cfg); err != nil {
		return err
	}
	// Of the two sets one has Stile on, whatever the environment of this process.
	if err := os.Unsetenv("STILE"); err != nil {
		return err
	}
	cfg.Live = terminal.For(cfg.Progress).On()
	cfg.Way = func(ctx context.Context, target, dir string) (string, string, error) {
		d, err := stile.Diagnose(ctx, target, grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithDir(dir))
		return d.Way, d.Reason, err
	}
	result, err := demo.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w, result)
	} else {
		_, err = io.WriteString(w, "\n"+result.Table(terminal.For(w)))
	}
	if err == nil && result.Failed > 0 {
		err = fmt.Errorf("%d of %d %w", result.Failed, result.Requests, errFailedRequests)
	}
	return err
}

func checkDemo(cfg *demo.Config) error {
	switch {
	case cfg.Duration < shortestDemo:
		return usageError{fmt.Errorf("--duration is %v; it must be %v or more", cfg.Duration, shortestDemo)}
	case cfg.Rate < 0 || math.IsNaN(cfg.Rate) || cfg.Rate > 1e6:
		return usageError{fmt.Errorf("--rate is %v; it must be from 0 to 1000000", cfg.Rate)}
	case cfg.Network != "unix" && cfg.Network != "tcp":
		return usageError{fmt.Errorf("--network is %q; it must be unix or tcp", cfg.Network)}
	}
	if cfg.Shop == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cfg.Shop = filepath.Join(filepath.Dir(self), "shop")
	}
	if err := demo.FindShop(cfg.Shop); err != nil {
		return fmt.Errorf("%w\nRun \"make demo\" in a copy of the repository, which builds them, or tell where they are with --shop", err)
	}
	return nil
}
