package stile

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/telemetry"
)

// stretch is when something was done.
type stretch struct{ from, to time.Time }

func (s stretch) long() time.Duration { return max(s.to.Sub(s.from), 0) }

// with is what two stretches have in common.
func (s stretch) with(o stretch) stretch {
	if o.from.After(s.from) {
		s.from = o.from
	}
	if o.to.Before(s.to) {
		s.to = o.to
	}
	return s
}

// sluggish waits in its handler, or where messages are decoded, and notes when it did.
type sluggish struct {
	pb.UnimplementedTestServiceServer
	handler, codec time.Duration

	mu     sync.Mutex
	waited map[int32]stretch // by what the call asks for
}

func (s *sluggish) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.wait(r.GetResponseSize(), s.handler)
	return &pb.SimpleResponse{}, nil
}

func (s *sluggish) Name() string                  { return "proto" }
func (s *sluggish) Marshal(v any) ([]byte, error) { return proto.Marshal(v.(proto.Message)) }

func (s *sluggish) Unmarshal(data []byte, v any) error {
	s.wait(0, s.codec)
	return proto.Unmarshal(data, v.(proto.Message))
}

func (s *sluggish) wait(call int32, d time.Duration) {
	if d == 0 {
		return
	}
	begin := time.Now()
	time.Sleep(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waited[call] = stretch{begin, time.Now()}
}

// waitsRound is some calls at once: how long they took, for how much of it they waited themselves and for each other, and where Stile says they were.
type waitsRound struct {
	took, own, others time.Duration
	found             telemetry.Waits
}

// disturbed is the share of the time that nobody has put there.
func (r *waitsRound) disturbed() float64 { return float64(r.took-r.own-r.others) / float64(r.took) }

func (s *sluggish) round(t *testing.T, client pb.TestServiceClient, n int) (r waitsRound) {
	t.Helper()
	s.waited = map[int32]stretch{}
	calls := make([]stretch, n)
	var all sync.WaitGroup
	for i := range calls {
		all.Go(func() {
			calls[i].from = time.Now()
			if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{ResponseSize: int32(i)}); err != nil {
				t.Error(err)
			}
			calls[i].to = time.Now()
		})
	}
	all.Wait()
	for i, c := range calls {
		own := s.waited[int32(i)]
		r.took, r.own = r.took+c.long(), r.own+own.long()
		for j, other := range s.waited {
			if int(j) != i {
				r.others += stretch{c.from, own.from}.with(other).long()
			}
		}
	}
	r.found = counted(t, "/grpc.testing.TestService/UnaryCall", uint64(2*n))[telemetry.Client]["shm"].Waits
	if r.found.Calls != uint64(n) {
		t.Errorf("%d calls of %d are found", r.found.Calls, n)
	}
	return r
}

// TestWaits: 10 ms that are put into each part of a call are found there, ±10 % of what they were as measured, and not in the others. Of many rounds it judges the one that the machine has disturbed
// least.
func TestWaits(t *testing.T) {
	const added, rounds, calm, bar = 10 * time.Millisecond, 50, 0.05, 0.1
	turns := "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 100, maxQueueDelay: 10s}}"
	limit := "methodConfig: [{name: [{}], timeout: 10s, x-stile: {limit: {maxRequests: 1, maxPendingRequests: 100}}}]"
	for _, c := range []struct {
		name   string
		part   func(telemetry.Waits) int64
		impl   *sluggish
		server []grpc.ServerOption
		client []grpc.DialOption
		each   int // calls at once, that wait for each other if they are several
	}{
		{"handler", func(w telemetry.Waits) int64 { return w.Handler }, &sluggish{handler: added}, nil, nil, 1},
		{"transport", func(w telemetry.Waits) int64 { return w.Transport }, &sluggish{codec: added}, nil, nil, 1},
		{"streams", func(w telemetry.Waits) int64 { return w.ClientQueue }, &sluggish{handler: added}, []grpc.ServerOption{MaxConcurrentStreams(1)}, nil, 5},
		{"limit", func(w telemetry.Waits) int64 { return w.ClientQueue }, &sluggish{handler: added}, nil, []grpc.DialOption{WithPolicy(testPolicy(t, limit))}, 5},
		{"admission", func(w telemetry.Waits) int64 { return w.ServerQueue }, &sluggish{handler: added}, []grpc.ServerOption{Policy(testPolicy(t, turns))}, nil, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, _, _ := startServer(t, c.impl, c.server...)
			client := dialTest(t, target, append(c.client, grpc.WithDefaultCallOptions(grpc.ForceCodec(c.impl)))...)
			telemetry.Process().Take()
			r := c.impl.round(t, client, c.each)
			for n := 1; n < rounds && r.disturbed() > calm; n++ {
				if next := c.impl.round(t, client, c.each); next.disturbed() < r.disturbed() {
					r = next
				}
			}
			w := r.found
			got, put, rest := c.part(w), r.own, w.ClientQueue+w.Transport+w.ServerQueue+w.Handler
			rest -= got
			if c.each > 1 {
				put, rest = r.others, rest-w.Handler
				if off := float64(w.Handler)/float64(r.own) - 1; off < -bar || off > bar {
					t.Errorf("%v of %v are found in handlers", time.Duration(w.Handler), r.own)
				}
			}
			if off := float64(got)/float64(put) - 1; off < -bar || off > bar || float64(rest) > bar*float64(r.took) {
				t.Errorf("%v of %v are found, and %v elsewhere: %+v of %v, %.1f %% of which nobody has put there", time.Duration(got), put, time.Duration(rest), w, r.took, 100*r.disturbed())
			}
		})
	}
}
