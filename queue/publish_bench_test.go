package queue

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

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
