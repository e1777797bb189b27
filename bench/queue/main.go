// Command queue compares package queue with other durable queues that a Go process can have inside: how many messages a second
// are published with a receipt that says "on disk", how fast they are consumed, and how long one takes from publisher to handler. All run in
// turns on one folder's disk; losing cells are printed as they are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// body is what a message holds: the issue of comparing is not marshalling.
const bodySize = 256

// peer is a queue to compare.
type peer struct {
	name  string
	level string // what a receipt says
	open  func(dir string) (instance, error)
}

// instance is a peer on a folder.
type instance interface {
	// publish returns when there is a receipt.
	publish(ctx context.Context, body []byte) error
	// subscribe has messages handled, by 8 handlers at most, until stop is called.
	subscribe(ctx context.Context, handle func(body []byte)) (stop func(), err error)
	close() error
}

func main() {
	dir := flag.String("dir", "", "existing folder on the disk to measure (default: a temporary one)")
	rounds := flag.Int("rounds", 3, "rounds")
	seconds := flag.Float64("seconds", 1.5, "measured seconds of each cell")
	names := flag.String("peers", "", "comma-separated parts of names (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *rounds, time.Duration(*seconds*float64(time.Second)), *names); err != nil {
		fmt.Fprintln(os.Stderr, "bench/queue:", err)
		os.Exit(1)
	}
}

var callers = []int{1, 16, 256}

func run(ctx context.Context, dir string, rounds int, window time.Duration, names string) error {
	peers := slices.DeleteFunc(allPeers(), func(p peer) bool {
		return names != "" && !slices.ContainsFunc(strings.Split(names, ","), func(n string) bool { return strings.Contains(p.name, n) })
	})
	if len(peers) == 0 || rounds < 1 || window <= 0 {
		return errors.New("there is nothing to measure")
	}
	cells := map[string][]float64{}
	for round := range rounds {
		for _, p := range peers {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, p.name)
			if err := measure(ctx, p, dir, window, cells); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	print(peers, cells)
	return nil
}

// columns are the cells of a peer, in order.
func columns() []string {
	var all []string
	for _, n := range callers {
		all = append(all, publishColumn(n))
	}
	return append(all, "consume/s", "p50 µs", "p99 µs")
}

func publishColumn(n int) string { return fmt.Sprintf("publish/s, %d callers", n) }

func print(peers []peer, cells map[string][]float64) {
	fmt.Printf("| peer | a receipt says | %s |\n|---|---|%s\n", strings.Join(columns(), " | "), strings.Repeat("---|", len(columns())))
	for _, p := range peers {
		fmt.Printf("| %s | %s |", p.name, p.level)
		for _, c := range columns() {
			v := slices.Sorted(slices.Values(cells[p.name+c]))
			fmt.Printf(" %.0f (%.0f to %.0f) |", v[len(v)/2], v[0], v[len(v)-1])
		}
		fmt.Println()
	}
	fmt.Printf("\nMedians (least to most), %d-byte messages.\n", bodySize)
}

func measure(ctx context.Context, p peer, dir string, window time.Duration, cells map[string][]float64) error {
	dir, err := os.MkdirTemp(dir, "bench-queue-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in, err := p.open(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer in.close()
	put := func(column string, v float64) { cells[p.name+column] = append(cells[p.name+column], v) }
	published := 0
	for _, n := range callers {
		made, rate, err := publishFor(ctx, in, n, window)
		if err != nil {
			return err
		}
		published += made
		put(publishColumn(n), rate)
	}
	rate, err := consumeAll(ctx, in, published)
	if err != nil {
		return err
	}
	put("consume/s", rate)
	took, err := paced(ctx, in, window)
	if err != nil {
		return err
	}
	put("p50 µs", float64(took[len(took)/2].Microseconds()))
	put("p99 µs", float64(took[len(took)*99/100].Microseconds()))
	return nil
}

// publishFor publishes from n goroutines.
func publishFor(ctx context.Context, in instance, n int, window time.Duration) (made int, rate float64, err error) {
	var count atomic.Int64
	var failed atomic.Pointer[error]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var ended atomic.Bool
	for range n {
		wg.Go(func() {
			body := make([]byte, bodySize)
			for !ended.Load() && ctx.Err() == nil {
				if err := in.publish(ctx, body); err != nil {
					failed.Store(&err)
					cancel()
					return
				}
				count.Add(1)
			}
		})
	}
	wait(ctx, window/5)
	before, began := count.Load(), time.Now()
	wait(ctx, window)
	rate = float64(count.Load()-before) / time.Since(began).Seconds()
	ended.Store(true)
	wg.Wait()
	if e := failed.Load(); e != nil {
		return 0, 0, *e
	}
	return int(count.Load()), rate, ctx.Err()
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// consumeAll handles what was published.
func consumeAll(ctx context.Context, in instance, published int) (rate float64, err error) {
	var count atomic.Int64
	done := make(chan struct{})
	began := time.Now()
	stop, err := in.subscribe(ctx, func([]byte) {
		if int(count.Add(1)) == published {
			close(done)
		}
	})
	if err != nil {
		return 0, err
	}
	defer stop()
	select {
	case <-done:
		return float64(published) / time.Since(began).Seconds(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(2 * time.Minute):
		return 0, fmt.Errorf("%d of %d messages were handled in 2 minutes", count.Load(), published)
	}
}

// paced publishes a message every 2 ms, and returns how long each takes from before it is published until it is handled, sorted.
func paced(ctx context.Context, in instance, window time.Duration) ([]time.Duration, error) {
	came := make(chan time.Time, 1)
	stop, err := in.subscribe(ctx, func([]byte) { came <- time.Now() })
	if err != nil {
		return nil, err
	}
	defer stop()
	body := make([]byte, bodySize)
	var took []time.Duration
	for began := time.Now(); time.Since(began) < window; {
		at := time.Now()
		if err := in.publish(ctx, body); err != nil {
			return nil, err
		}
		select {
		case t := <-came:
			took = append(took, t.Sub(at))
		case <-time.After(10 * time.Second):
			return nil, errors.New("a message did not come")
		}
		wait(ctx, 2*time.Millisecond)
	}
	slices.Sort(took)
	return took, ctx.Err()
}
