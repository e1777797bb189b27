package rpc

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Config is what every program of the shop can be told.
type Config struct {
	Listen string        // host:port, port 0 for any, or unix:///path
	Drain  time.Duration // how long calls in flight may take after SIGTERM
	level  slog.Level
}

// Flags declares the flags that every program has. The environment gives the
// defaults.
func Flags(listen string) *Config {
	cfg := &Config{}
	flag.StringVar(&cfg.Listen, "listen", Env("SHOP_LISTEN", listen), "`address` to serve on: host:port or unix:///path (SHOP_LISTEN)")
	flag.DurationVar(&cfg.Drain, "drain", 10*time.Second, "how long calls in flight may take after SIGTERM")
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
	if err := run(ctx); err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
}
