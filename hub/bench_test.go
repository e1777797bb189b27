package hub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/emptypb"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
)

// raw is a codec for requests that are marshalled already.
type raw struct{ encoding.CodecV2 }

func (r raw) Marshal(v any) (mem.BufferSlice, error) {
	if body, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(body)}, nil
	}
	return r.CodecV2.Marshal(v)
}

// request is one that is marshalled, and where its traces' IDs are.
type exportRequest struct {
	body []byte
	ids  []int
}

// of makes a request whose traces are not those of another.
func (r *exportRequest) of(number uint64) []byte {
	body := bytes.Clone(r.body)
	for _, at := range r.ids {
		binary.BigEndian.PutUint64(body[at+1:], number) // id has zeros there
	}
	return body
}

func requestOf(b *testing.B, first, n int, to string) *exportRequest {
	data := callSpans(first, n, to)
	for _, rs := range data.ResourceSpans {
		for _, s := range rs.ScopeSpans[0].Spans { // as otelgrpc has them
			for _, name := range []string{"rpc.system", "rpc.grpc.status_code", "server.address", "server.port", "network.peer.address", "network.peer.port", "network.transport", "thread.name"} {
				s.Attributes = append(s.Attributes, attribute(name, "10.1.2.3"))
			}
		}
	}
	r := &exportRequest{body: marshal(b, data)}
	for i := range n {
		for at := 0; ; at += 16 {
			next := bytes.Index(r.body[at:], id(uint64(first+i), 16))
			if next < 0 {
				break
			}
			at += next
			r.ids = append(r.ids, at)
		}
	}
	if len(r.ids) != 2*n {
		b.Fatalf("%d IDs of %d spans", len(r.ids), 2*n)
	}
	return r
}

// BenchmarkIngest sends spans of ten attributes over gRPC as exporters do, 512 a request, from 8 of them. The senders' work is part of what is measured; they
// marshal nothing.
func BenchmarkIngest(b *testing.B) {
	for _, services := range []int{10, 1000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			h := openHub(b, Config{})
			cc := dial(b, h)
			const requests, each = 64, 256 // of two spans
			var all []*exportRequest
			for i := range requests {
				all = append(all, requestOf(b, i*each, each, fmt.Sprint("service ", i%services)))
			}
			var next atomic.Int64
			var senders sync.WaitGroup
			var peak atomic.Uint64
			stop := make(chan struct{})
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak.Store(max(peak.Load(), m.HeapInuse))
					}
				}
			}()
			b.ResetTimer()
			for range 8 {
				senders.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := cc.Invoke(b.Context(), exportMethod, all[n%requests].of(uint64(n)), new(emptypb.Empty), grpc.ForceCodecV2(raw{encoding.GetCodecV2("proto")})); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			senders.Wait()
			b.StopTimer()
			close(stop)
			b.ReportMetric(float64(b.N)*2*each/b.Elapsed().Seconds(), "spans/s")
			b.ReportMetric(float64(peak.Load())/(1<<20), "MiB-heap")
			closeHub(b, h)
		})
	}
}
