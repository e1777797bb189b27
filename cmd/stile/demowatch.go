package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// watcher has a hub take what the shop traces and counts.
type watcher struct {
	progress io.Writer
	keep     bool // the hub stays open in the end
	seen     *routemap.Report
	dir      string // the hub's, when it is its own
	hub      *hub.Hub
}

// watch begins, and returns where the hub takes what is sent, and what ends that and fills in the map, if there is one.
func (w *watcher) watch(ctx context.Context, dir string) (string, func(context.Context) error, error) {
	if w.keep {
		var err error
		if w.dir, err = os.MkdirTemp("", "stile-demo-hub"); err != nil {
			return "", nil, err
		}
		dir = w.dir
	}
	if err := w.open(ctx, hub.Config{Dir: dir, OTLPGRPC: "127.0.0.1:0"}); err != nil {
		return "", nil, err
	}
	fmt.Fprintf(w.progress, "while it runs, the hub's dashboard is at %s\n", w.at())
	return "http://" + w.hub.Addrs()["OTLP/gRPC"], func(ctx context.Context) error { return w.end(ctx, dir) }, nil
}

func (w *watcher) open(ctx context.Context, cfg hub.Config) (err error) {
	cfg.OTLPHTTP, cfg.HTTP, cfg.Logger = hub.Off, "127.0.0.1:0", slog.New(slog.DiscardHandler) // what is wrong is returned
	w.hub, err = hub.Open(ctx, cfg)
	return err
}

func (w *watcher) at() string { return "http://" + w.hub.Addrs()["API"] + "/" }

// end completes the traces, and looks at them.
func (w *watcher) end(ctx context.Context, dir string) error {
	if err := w.hub.Close(ctx); err != nil {
		return err
	}
	if err := w.open(ctx, hub.Config{Dir: dir, OTLPGRPC: hub.Off}); err != nil {
		return err
	}
	m, err := w.hub.Map(ctx, time.Now().Add(-time.Hour), time.Now())
	if err == nil && m.Spans > 0 { // programs of another shop may trace nothing
		w.seen = m.Report
	}
	if w.keep {
		return err
	}
	err = errors.Join(err, w.hub.Close(ctx))
	w.hub = nil
	return err
}

// stay leaves the hub open until ctx ends.
func (w *watcher) stay(ctx context.Context) {
	if w.hub == nil {
		return
	}
	fmt.Fprintf(w.progress, "\nwhat the hub saw is at %s until this is interrupted\n", w.at())
	<-ctx.Done()
}

func (w *watcher) close() {
	if w.hub != nil && w.keep {
		_ = w.hub.Close(context.Background()) // nothing is lost that anybody wants
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}
