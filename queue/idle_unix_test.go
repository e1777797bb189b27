//go:build unix

package queue

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkIdle is what a process costs whose queue has nothing to do, with a server of its own and a topic: an operation is a second.
func BenchmarkIdle(b *testing.B) {
	for _, subscriptions := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("subscriptions=%d", subscriptions), func(b *testing.B) {
			top := topic(b, open(b, b.TempDir()), "orders")
			var subs []*Subscription
			for i := range subscriptions {
				subs = append(subs, subscribe(b, top, fmt.Sprintf("g%d", i), func(context.Context, *Msg[text]) error { return nil }))
			}
			publish(b, top, "one")
			for _, s := range subs {
				until(b, func() bool { st, err := s.Stats(b.Context()); return err == nil && st.Lag == 0 && st.InFlight == 0 })
			}
			before := usage(b)
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Second)
			}
			b.StopTimer()
			after := usage(b)
			busy := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
			b.ReportMetric(100*busy.Seconds()/b.Elapsed().Seconds(), "%core")
			b.ReportMetric(float64(after.Nvcsw+after.Nivcsw-before.Nvcsw-before.Nivcsw)/float64(b.N), "switches/s")
		})
	}
}

func usage(b *testing.B) (u unix.Rusage) {
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}
