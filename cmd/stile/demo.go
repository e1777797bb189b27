package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/cmd/stile/internal/demo"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/queue"
	"github.com/stile-ipc/stile/routemap"
)

// errFailedRequests is the failure of a demo in which requests failed.
var errFailedRequests = errors.New("requests failed")

// errNoHelp is the failure of a demo of faults in which the policy was of no use.
var errNoHelp = errors.New("goodput was not better with the policy")

// What it takes about to have a few requests in each window, or in each phase.
const (
	shortestDemo  = time.Second
	shortestChaos = 6 * time.Second
)

func newDemo() *cobra.Command {
	cfg := demo.Config{}
	var asJSON, chaos, keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a shop of six services over grpc-go, move it to Stile under load, and compare",
		Long: `Demo starts the shop's six programs over plain grpc-go and sends requests to
their gateway; starts them a second time, over Stile; moves the load to and fro
between both while it runs; and at last stops the first six. It prints requests/s,
response times, CPU time and context switches of all six programs, side by side.
Then it makes the mailer slow, and compares how long it takes to place an order
when orders calls the mailer, and when the mailer hears of orders by a queue; and
shows what a hub sees of the shop (neither on Windows). The address of the hub's dashboard is
printed; with --keep it stays open in the end.

With --chaos it runs the shop over Stile twice, first without a policy file, then
with one, and has the same things go wrong at the same moments: pricing is slowed,
inventory fails 3 calls in 10, catalog is killed and started again. It prints what
was answered well within a second (goodput), what failed, and response times for each
phase, side by side, and how soon goodput was back.

Requests are sent at fixed times, however slow the answers are, and each is timed
from when it was due. The result goes to standard output, all else to standard
error. On Linux the services end with this program, whatever ends it.

Exit codes: 0 no request failed, 2 a mistake in the command line, 3 a request
failed, or the demo did. With --chaos: 0 the policy bettered goodput under each fault, 2
a mistake in the command line, 3 it did not, or the demo failed.`,
		Example: `  stile demo
  stile demo --duration 2m --rate 200
  stile demo --keep
  stile demo --json >result.json
  stile demo --chaos
  stile demo --chaos --policy my.yaml --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Progress = cmd.ErrOrStderr()
			if !cmd.Flags().Changed("duration") {
				cfg.Duration = usualDuration(chaos)
			}
			if err := checkDemo(&cfg, chaos); err != nil {
				return err
			}
			if chaos {
				return runChaos(cmd.Context(), cmd.OutOrStdout(), cfg, asJSON)
			}
			return runDemo(cmd.Context(), cmd.OutOrStdout(), cfg, asJSON, keep)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&chaos, "chaos", false, "have services fail, without a policy and with one")
	flags.StringVar(&cfg.Policy, "policy", "", "with --chaos, the policy `file`; the shop's own if not given")
	flags.DurationVar(&cfg.Duration, "duration", 0, "how long the load runs; 40s if not given, 1m with --chaos, and half of that if CI is true")
	flags.Float64Var(&cfg.Rate, "rate", 0, "`requests`/s; if not given, a third or so of what the services can answer here without Stile, 1000 at most; with --chaos, without a policy, 200 at most")
	flags.StringVar(&cfg.Shop, "shop", "", "`folder` with the six programs; shop beside this one if not given")
	flags.StringVar(&cfg.Network, "network", demo.DefaultNetwork(), "how the services listen: unix or tcp")
	flags.BoolVar(&keep, "keep", false, "leave the hub open in the end, until this is interrupted, to look at what it saw in a browser")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.MarkFlagsMutuallyExclusive("chaos", "keep")
	return cmd
}

// usualDuration is how long the load runs if nobody says.
func usualDuration(chaos bool) time.Duration {
	d := 40 * time.Second
	if chaos {
		d = time.Minute
	}
	if os.Getenv("CI") == "true" {
		d /= 2
	}
	return d
}

func runDemo(ctx context.Context, w io.Writer, cfg demo.Config, asJSON, keep bool) error {
	if err := prepareDemo(&cfg); err != nil {
		return err
	}
	watched := watcher{progress: cfg.Progress, keep: keep}
	defer watched.close()
	cfg.Watch = watched.watch
	result, err := demo.Run(ctx, cfg)
	if err != nil {
		return err
	}
	seen := watched.seen
	if asJSON {
		err = printJSON(w, demoJSON{result, seen})
	} else {
		_, err = io.WriteString(w, "\n"+result.Table(terminal.For(w))+seenTable(terminal.For(w), seen))
	}
	if err == nil && result.Failed > 0 {
		err = fmt.Errorf("%d of %d %w", result.Failed, result.Requests, errFailedRequests)
	}
	if m := result.Mail; err == nil && m != nil && m.Called.Failed+m.Queued.Failed > 0 {
		err = fmt.Errorf("while the mailer was slow, %d %w", m.Called.Failed+m.Queued.Failed, errFailedRequests)
	}
	if err == nil && keep {
		watched.stay(ctx)
	}
	return err
}

// demoJSON is what --json prints.
type demoJSON struct {
	demo.Result
	Map *routemap.Report `json:"map,omitempty"`
}

// seenRows is how many routes of the shop are shown.
const seenRows = 12

// seenTable is what a hub saw of the shop.
func seenTable(style terminal.Style, r *routemap.Report) string {
	if r == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n", style.Strong(fmt.Sprintf("What a hub saw of %d traces of the shop (stile hub, stile map)", r.Traces)))
	printRoutes(&b, style, r.Routes, spent(r), seenRows)
	printCounted(&b, style, r.Routes, seenRows)
	printStands(&b, style, r.Findings, seenRows)
	return b.String()
}

func runChaos(ctx context.Context, w io.Writer, cfg demo.Config, asJSON bool) error {
	if err := prepareDemo(&cfg); err != nil {
		return err
	}
	result, err := demo.Chaos(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w, result)
	} else {
		_, err = io.WriteString(w, "\n"+result.Table(terminal.For(w)))
	}
	if err == nil && !result.Helped {
		err = fmt.Errorf("%w while: %s", errNoHelp, strings.Join(result.Unhelped(), ", "))
	}
	return err
}

func prepareDemo(cfg *demo.Config) error {
	// Which sets have Stile on is said here, whatever the environment of this process.
	if err := os.Unsetenv("STILE"); err != nil {
		return err
	}
	cfg.Live = terminal.For(cfg.Progress).On()
	cfg.Way = func(ctx context.Context, target, dir string) (string, string, error) {
		d, err := stile.Diagnose(ctx, target, grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithDir(dir))
		return d.Way, d.Reason, err
	}
	if runtime.GOOS != "windows" { // no process is the guest of another's queue there
		cfg.Queue = mailerDepth
	}
	return nil
}

// mailerDepth asks the program orders, whose queue it is, what the mailer has not sent.
func mailerDepth(ctx context.Context, dir string) (demo.Depth, error) {
	q, err := queue.Open(ctx, queue.Config{URL: "unix://" + dir})
	if err != nil {
		return demo.Depth{}, err
	}
	st, err := q.GroupStats(ctx, "orders.placed", "mailer")
	return demo.Depth{
		Depth: st.Lag + uint64(st.InFlight), Lag: st.Lag, Oldest: float64(st.OldestAge) / float64(time.Millisecond), Dead: st.Dead,
	}, errors.Join(err, q.Close())
}

func checkDemo(cfg *demo.Config, chaos bool) error {
	shortest := shortestDemo
	if chaos {
		shortest = shortestChaos
	}
	switch {
	case cfg.Duration < shortest:
		return usageError{fmt.Errorf("--duration is %v; it must be %v or more", cfg.Duration, shortest)}
	case cfg.Policy != "" && !chaos:
		return usageError{errors.New("--policy is of use with --chaos only")}
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
	if !chaos {
		return nil
	}
	return findPolicy(cfg)
}

// findPolicy makes cfg.Policy the shop's policy file if there is none: beside the programs, or
// in the repository in whose bin they are.
func findPolicy(cfg *demo.Config) error {
	files := []string{cfg.Policy}
	if cfg.Policy == "" {
		files = []string{filepath.Join(cfg.Shop, "policy.yaml"), filepath.Join(cfg.Shop, "..", "..", "examples", "shop", "policy.yaml")}
	}
	for _, file := range files {
		_, err := policy.Load(file)
		if errors.Is(err, fs.ErrNotExist) && cfg.Policy == "" {
			continue
		}
		if err != nil {
			return fmt.Errorf("the policy cannot be used: %w", err)
		}
		cfg.Policy, err = filepath.Abs(file)
		return err
	}
	return fmt.Errorf("no policy file in %s: tell where it is with --policy", cfg.Shop)
}
