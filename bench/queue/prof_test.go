package main

import (
	"context"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestProf(t *testing.T) {
	n := 100000
	for _, p := range allPeers() {
		if p.name != os.Getenv("PEER") {
			continue
		}
		in, err := p.open(t.TempDir() + "/data")
		if err != nil {
			t.Fatal(err)
		}
		made := 0
		for made < n {
			m, _, err := publishFor(context.Background(), in, 256, time.Second/2)
			if err != nil {
				t.Fatal(err)
			}
			made += m
		}
		for r := range 1 {
			_ = r
			if f := os.Getenv("PROF"); f != "" {
				w, _ := os.Create(f)
				pprof.StartCPUProfile(w)
			}
			var a, b runtime.MemStats
			runtime.ReadMemStats(&a)
			c := cpu()
			rate, err := consumeAll(context.Background(), in, made)
			if err != nil {
				t.Fatal(err)
			}
			d := cpu() - c
			runtime.ReadMemStats(&b)
			pprof.StopCPUProfile()
			t.Logf("%s: %d messages, %.0f/s, CPU %v a message, %.1f allocs %.0f B", p.name, made, rate, d/time.Duration(made), float64(b.Mallocs-a.Mallocs)/float64(made), float64(b.TotalAlloc-a.TotalAlloc)/float64(made))
		}
		in.close()
	}
}
