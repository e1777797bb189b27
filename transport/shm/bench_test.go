//go:build linux

package shm

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport/wire"
)

// BenchmarkPingPong is one caller and an echo in another process: the cost of
// two frames and of whoever has to be woken for them.
func BenchmarkPingPong(b *testing.B) { benchmarkCaller(b, 0) }

// BenchmarkPaced is one call a millisecond: both sides sleep in between.
func BenchmarkPaced(b *testing.B) { benchmarkCaller(b, time.Millisecond) }

// benchmarkCaller makes one call after another, with a rest before each.
func benchmarkCaller(b *testing.B, rest time.Duration) {
	p := startChild(b, "echo", Config{})
	cs := newCallers(1)
	p.conn.Start(cs)
	payload := make([]byte, 64)
	for range 100 {
		mustCall(b, cs, p.conn, 0, payload, true)
	}
	m := startMeter(p)
	took := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if rest > 0 {
			time.Sleep(rest)
		}
		start := time.Now()
		mustCall(b, cs, p.conn, 0, payload, true)
		if len(took) < cap(took) {
			took = append(took, time.Since(start))
		}
	}
	m.report(b, p)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// BenchmarkEcho64 is 64 callers at once, without and with polling.
func BenchmarkEcho64(b *testing.B) {
	for _, poll := range []bool{false, true} {
		b.Run(fmt.Sprintf("poll=%v", poll), func(b *testing.B) { benchmarkEcho(b, 64, 64, poll) })
	}
}

// BenchmarkEcho8 is a few callers, of whom more than one waits at a time.
func BenchmarkEcho8(b *testing.B) {
	for _, poll := range []bool{false, true} {
		b.Run(fmt.Sprintf("poll=%v", poll), func(b *testing.B) { benchmarkEcho(b, 8, 64, poll) })
	}
}

// BenchmarkLarge is frames of the largest size, four of which fill a ring.
func BenchmarkLarge(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) { benchmarkEcho(b, n, wire.MaxPayload, n == 1) })
	}
}

func benchmarkEcho(b *testing.B, n, size int, poll bool) {
	p := startChild(b, "echo", Config{})
	cs := newCallers(n)
	p.conn.Start(cs)
	mustCall(b, cs, p.conn, 0, []byte{1}, true)
	m := startMeter(p)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	for i := range n {
		wg.Go(func() {
			payload := make([]byte, size)
			for left.Add(-1) >= 0 {
				if ok, err := cs.call(p.conn, i, payload, poll); !ok || err != nil {
					b.Errorf("call: %v %v", ok, err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	m.report(b, p)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func mustCall(b *testing.B, cs *callers, c *Conn, i int, payload []byte, poll bool) {
	if ok, err := cs.call(c, i, payload, poll); !ok || err != nil {
		b.Fatalf("call: %v %v", ok, err)
	}
}

// meter counts what both processes do during a benchmark.
type meter struct {
	stats Stats
	ru    unix.Rusage
}

func startMeter(p *child) meter {
	m := meter{stats: p.conn.Stats()}
	_ = unix.Getrusage(unix.RUSAGE_SELF, &m.ru)
	return m
}

// report ends the child and adds its counts, which include its start, to ours.
func (m meter) report(b *testing.B, p *child) {
	b.Helper()
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	s := p.conn.Stats()
	p.in.Close()
	var bells, parks, polls, spin, switches, cpu int64
	if _, err := fmt.Fscan(p.out, &bells, &parks, &polls, &spin, &switches, &cpu); err != nil {
		b.Fatal(err)
	}
	n := float64(b.N)
	per := func(v float64, unit string) { b.ReportMetric(v/n, unit+"/op") }
	per(float64(int64(s.Doorbells-m.stats.Doorbells)+bells), "bells")
	per(float64(int64(s.Parks-m.stats.Parks)+parks), "parks")
	per(float64(ru.Nvcsw+ru.Nivcsw-m.ru.Nvcsw-m.ru.Nivcsw+switches), "switches")
	per(float64(ru.Utime.Nano()+ru.Stime.Nano()-m.ru.Utime.Nano()-m.ru.Stime.Nano()+cpu), "cpu-ns")
	per(float64(s.Spin-m.stats.Spin)+float64(spin), "spin-ns")
}
