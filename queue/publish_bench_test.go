package queue

import (
	"strings"
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
