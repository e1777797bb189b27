package rpc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/policy"
)

// Config is what every program of the shop can be told.
type Config struct {
	Listen string        // host:port, port 0 for any, or unix:///path
	Drain  time.Duration // how long calls in flight may take after SIGTERM
	Policy string        // policy file that calls obey; empty: none
	Faults string        // control file of injected faults, for demonstrations; empty: none
	level  slog.Level

	policy  *policy.Policy // what is in Policy; nil: none
	tracing bool           // spans are sent somewhere
}

// Flags declares the flags that every program has. The environment gives the
// defaults.
func Flags(listen string) *Config {
	cfg := &Config{}
	flag.StringVar(&cfg.Listen, "listen", Env("SHOP_LISTEN", listen), "`address` to serve on: host:port or unix:///path (SHOP_LISTEN)")
	flag.DurationVar(&cfg.Drain, "drain", 10*time.Second, "how long calls in flight may take after SIGTERM")
	flag.StringVar(&cfg.Policy, "policy", Env("SHOP_POLICY", ""), "policy `file` that calls made and served obey; empty for none (SHOP_POLICY)")
	flag.StringVar(&cfg.Faults, "faults", Env("SHOP_FAULTS", ""), "for demonstrations: `file` that has served calls delayed or failed, such as delay=200ms fail=0.3 (SHOP_FAULTS)")
	flag.TextVar(&cfg.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	return cfg
}

// Env returns the environment variable name, or fallback where it is not set.
func Env(name, fallback string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return fallback
}

// Main parses the flags, runs the program until SIGTERM or SIGINT, and exits
// with status 1 if it failed, 2 if it was called wrongly. A second signal ends the program at once.
func Main(name string, cfg *Config, run func(context.Context) error) {
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "%s: unexpected argument %q\n", name, flag.Arg(0))
		os.Exit(2)
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.level})).With("service", name))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	if err := cfg.report(ctx, name, run); err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
}

// report runs the program, and has told a hub what it counted when it returns, if STILE_HUB names one. Without this it would do so, too, but for the last 10 seconds.
func (cfg *Config) report(ctx context.Context, name string, run func(context.Context) error) error {
	hub := os.Getenv("STILE_HUB")
	if hub == "" {
		return cfg.trace(ctx, name, run)
	}
	stop, err := stile.ReportTo(hub)
	if err != nil {
		return err
	}
	err = cfg.trace(ctx, name, run)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancel()
	stop(ctx)
	return err
}

// trace runs the program, and has sent what it traced when it returns.
func (cfg *Config) trace(ctx context.Context, name string, run func(context.Context) error) error {
	stop, err := startTracing(ctx, name)
	if err != nil {
		return err
	}
	if stop == nil {
		return cfg.obey(ctx, run)
	}
	cfg.tracing = true
	err = cfg.obey(ctx, run)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancel()
	if err := stop(ctx); err != nil {
		slog.Warn("spans were not sent", "error", err)
	}
	return err
}

// obey runs the program with its policy in force, whose changes it follows.
func (cfg *Config) obey(ctx context.Context, run func(context.Context) error) error {
	if cfg.Policy == "" {
		return run(ctx)
	}
	p, err := policy.Open(cfg.Policy)
	if err != nil {
		return err
	}
	cfg.policy = p
	return errors.Join(run(ctx), p.Close())
}
