package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// BenchmarkPublish publishes to an embedded server, from 256 goroutines.
func BenchmarkPublish(b *testing.B) {
	for _, d := range []Durability{Synced, Buffered} {
		b.Run(d.String(), func(b *testing.B) {
			q := open(b, b.TempDir())
			top := topic(b, q, "orders", Durable(d), Keep(defaultMaxAge, 4<<30))
			m := wrapperspb.String(strings.Repeat("x", 256))
			b.ReportAllocs()
			b.SetParallelism(128)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := top.Publish(b.Context(), m); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkHandle has messages handled that are there.
func BenchmarkHandle(b *testing.B) {
	q := open(b, b.TempDir())
	top := topic(b, q, "orders", Durable(Buffered), Keep(defaultMaxAge, 4<<30))
	ms := make([]text, 500)
	for i := range ms {
		ms[i] = wrapperspb.String(strings.Repeat("x", 256))
	}
	for range (b.N + len(ms) - 1) / len(ms) {
		if _, err := top.PublishAll(b.Context(), ms); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	var n atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	sub, err := top.Subscribe(b.Context(), "billing", func(context.Context, *Msg[text]) error {
		if int(n.Add(1)) == b.N {
			close(done)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	<-done
	b.StopTimer()
	sub.Stop()
}

// BenchmarkPoison is how long messages take from before they are published until they are handled, one a millisecond, while there are others besides: none, one for a hundred or
// for ten, which are handled as well, or cannot be and die after three attempts.
func BenchmarkPoison(b *testing.B) {
	for _, c := range []struct {
		name   string
		every  int // so many messages have another one beside them; 0: none has
		poison bool
	}{{"none", 0, false}, {"1%-handled", 100, false}, {"1%-poison", 100, true}, {"10%-handled", 10, false}, {"10%-poison", 10, true}} {
		b.Run(c.name, func(b *testing.B) {
			top := topic(b, open(b, b.TempDir()), "orders")
			took := make(chan time.Duration, b.N)
			sub, err := top.Subscribe(b.Context(), "g", func(_ context.Context, m *Msg[text]) error {
				if m.Value.GetValue() == "good" {
					took <- time.Since(m.Published)
				} else if c.poison {
					return errors.New("bad")
				}
				return nil
			}, Retry(3, 10*time.Millisecond, 50*time.Millisecond))
			if err != nil {
				b.Fatal(err)
			}
			defer sub.Stop()
			for i := range b.N {
				if c.every > 0 && i%c.every == 5 {
					go func() {
						if _, err := top.Publish(b.Context(), wrapperspb.String("other")); err != nil {
							b.Error(err)
						}
					}()
				}
				publish(b, top, "good")
				time.Sleep(time.Millisecond)
			}
			all := make([]time.Duration, b.N)
			for i := range all {
				all[i] = <-took
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		})
	}
}
