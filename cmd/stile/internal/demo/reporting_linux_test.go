package demo

import (
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
// trusted. For each operation new sets are started, since one of two that are alike may use some percent more as long as it lives.
// They have load at the same time, so that what else the machine does is the same for all, at rates that differ by a request
// a second: at one rate a set would stand behind the same other one with each request. What is counted begins when each has told
// two windows, for the first takes what is done once. The shop is the one in bin/shop: run "make build" before.
func BenchmarkReporting(b *testing.B) {
	const warm, length, rate = 22 * time.Second, 20 * time.Second, 120
	ctx := b.Context()
	cfg := Config{Shop: "../../../../bin/shop", Duration: time.Minute, Network: "unix", Progress: io.Discard}
	err := within(ctx, cfg, func(ctx context.Context, d *demo) error {
		h, err := hub.Open(ctx, hub.Config{Dir: filepath.Join(d.temp, "hub"), OTLPGRPC: "127.0.0.1:0", OTLPHTTP: hub.Off, HTTP: hub.Off, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer func() { _ = h.Close(context.WithoutCancel(ctx)) }()
		names := [3]string{"without", "again", "with"}
		var cpu, switches [3][]float64 // of a request
		for n := range b.N {
			var sets [3]*set
			for turn := range sets {
				i := (turn + n) % len(sets)
				folder := filepath.Join(d.temp, fmt.Sprint(names[i], n))
				if err := os.Mkdir(folder, 0o700); err != nil {
					return err
				}
				cfg := setConfig{bin: d.cfg.Shop, data: folder, network: "unix", sockets: folder, stile: "on", dir: d.doors(), inFlight: mostInFlight}
				if names[i] == "with" {
					cfg.hub = h.Addrs()["OTLP/gRPC"]
				}
				if sets[i], err = d.startSet(ctx, cfg); err != nil {
					return err
				}
			}
			var rates [3]float64
			for i := range rates {
				rates[i] = rate + float64((i+n)%len(rates))
			}
			if _, _, err := d.used(ctx, sets, rates, warm); err != nil {
				return err
			}
			c, s, err := d.used(ctx, sets, rates, length)
			if err != nil {
				return err
			}
			for i, set := range sets {
				cpu[i], switches[i] = append(cpu[i], c[i]), append(switches[i], s[i])
				if err := set.stop(ctx); err != nil {
					return err
				}
			}
		}
		for i, name := range names {
			b.ReportMetric(median(slices.Clone(cpu[i])), "µs/request-"+name)
			b.ReportMetric(median(slices.Clone(switches[i])), "switches/request-"+name)
		}
		more := func(name string, is, than func(n int) float64) {
			ratios := make([]float64, b.N)
			for n := range ratios {
				ratios[n] = 100*is(n)/than(n) - 100
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/4], "%-"+name+"-q1")
			b.ReportMetric(median(ratios), "%-"+name)
			b.ReportMetric(ratios[len(ratios)*3/4], "%-"+name+"-q3")
		}
		more("again", func(n int) float64 { return cpu[1][n] }, func(n int) float64 { return cpu[0][n] })
		more("with", func(n int) float64 { return cpu[2][n] }, func(n int) float64 { return (cpu[0][n] + cpu[1][n]) / 2 })
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// used has sets answer requests at the same time, as usedFor does.
func (d *demo) used(ctx context.Context, sets [3]*set, rates [3]float64, length time.Duration) (cpu, switches [3]float64, err error) {
	var all errgroup.Group
	for i, set := range sets {
		all.Go(func() (err error) {
			cpu[i], switches[i], err = d.usedFor(ctx, set, rates[i], length)
			return err
		})
	}
	err = all.Wait()
	return cpu, switches, err
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
