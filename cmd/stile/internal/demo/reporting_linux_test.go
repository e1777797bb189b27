package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/hub"
)

// BenchmarkReporting compares what the shop uses for a request when its programs count and tell a hub, which they do for a second set
// of them, with what it uses when they do not, and that with a third set that does not either: how far the numbers can be
// trusted. One operation is 20 s, two windows of reports, of load on all three at the same time, so that what else the machine does is the same for them.
// The shop is the one in bin/shop: run "make build" before.
func BenchmarkReporting(b *testing.B) {
	const length, rate = 20 * time.Second, 1
	ctx := b.Context()
	cfg := Config{Shop: "../../../../bin/shop", Duration: time.Minute, Network: "unix", Progress: io.Discard}
	err := within(ctx, cfg, func(ctx context.Context, d *demo) error {
		h, err := hub.Open(ctx, hub.Config{Dir: filepath.Join(d.temp, "hub"), OTLPGRPC: "127.0.0.1:0", OTLPHTTP: hub.Off, HTTP: hub.Off, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer func() { _ = h.Close(context.WithoutCancel(ctx)) }()
		names := [3]string{"without", "again", "with"}
		var sets [3]*set
		for i, name := range names {
			folder := filepath.Join(d.temp, name)
			if err := os.Mkdir(folder, 0o700); err != nil {
				return err
			}
			set := setConfig{bin: cmp.Or(os.Getenv("DEV_"+name), d.cfg.Shop), data: folder, network: "unix", sockets: folder, stile: "on", dir: d.doors(), inFlight: mostInFlight}
			if name == "with" || os.Getenv("DEV_HUB_"+name) != "" {
				set.hub = h.Addrs()["OTLP/gRPC"]
			}
			if sets[i], err = d.startSet(ctx, set); err != nil {
				return err
			}
			if err := d.warm(ctx, sets[i]); err != nil {
				return err
			}
		}
		var cpu, switches [3][]float64 // of a request
		for range b.N {
			var all errgroup.Group
			for i, set := range sets {
				all.Go(func() error {
					c, s, err := d.usedFor(ctx, set, rate, length)
					cpu[i], switches[i] = append(cpu[i], c), append(switches[i], s)
					return err
				})
			}
			if err := all.Wait(); err != nil {
				return err
			}
			b.Logf("%.0f %.0f %.0f", cpu[0][len(cpu[0])-1], cpu[1][len(cpu[1])-1], cpu[2][len(cpu[2])-1])
		}
		for i, name := range names {
			b.ReportMetric(median(slices.Clone(cpu[i])), "µs/request-"+name)
			b.ReportMetric(median(slices.Clone(switches[i])), "switches/request-"+name)
		}
		for i, name := range names[1:] {
			ratios := make([]float64, b.N)
			for n := range ratios {
				ratios[n] = 100*cpu[i+1][n]/cpu[0][n] - 100
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/4], "%-"+name+"-q1")
			b.ReportMetric(median(ratios), "%-"+name)
			b.ReportMetric(ratios[len(ratios)*3/4], "%-"+name+"-q3")
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// usedFor has a set answer requests, and returns the µs of processor time and the context switches of each.
func (d *demo) usedFor(ctx context.Context, s *set, rate float64, length time.Duration) (cpu, switches float64, err error) {
	w := newWindow(s.send)
	l := &load{rate: rate, inFlight: mostInFlight, sleep: preciseSleep}
	ran, err := ranFor(s.pids())
	if err != nil {
		return 0, 0, err
	}
	before, err := measure.UsageOf(s.pids())
	if err != nil {
		return 0, 0, err
	}
	l.enter(w)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	l.run(ctx)
	after, err := measure.UsageOf(s.pids())
	if err != nil {
		return 0, 0, err
	}
	now, err := ranFor(s.pids())
	if err != nil {
		return 0, 0, err
	}
	done, failed := w.counts()
	if failed > 0 {
		return 0, 0, fmt.Errorf("%d requests failed: %w", failed, w.err)
	}
	return float64((now - ran).Microseconds()) / float64(done), float64(after.Since(before).Switches) / float64(done), nil
}

// ranFor is how long the threads that live have run: finer than a process's usage.
func ranFor(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // the thread has ended
			}
			ns, _, _ := strings.Cut(string(text), " ")
			n, err := strconv.ParseInt(ns, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			sum += time.Duration(n)
		}
	}
	return sum, nil
}
