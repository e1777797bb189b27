package policy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const cached = "timeout: 1s, x-stile: {idempotency: NO_SIDE_EFFECTS, cache: {ttl: 2s, staleIfError: 30s, keyFields: [response_size]}, fallback: {cache: true}}"

// numbered answers each call with its number.
func numbered(s *testServer) func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: fmt.Sprint(s.calls.Load())}, nil
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		srv := &testServer{}
		srv.unary = numbered(srv)
		client := dial(t, serve(t, srv), obeying(rule(t, cached, rec))...)
		ask := func(ctx context.Context, size int32, opts ...grpc.CallOption) string {
			t.Helper()
			got, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: size, FillUsername: size%2 == 0}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			return got.GetUsername()
		}
		ctx := context.Background()
		as := func(who string) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "authorization", who)
		}
		traced := metadata.AppendToOutgoingContext(ctx, "traceparent", "00-1")
		for i, c := range []struct {
			ctx  context.Context
			size int32
			want string
		}{
			{ctx, 1, "1"}, {ctx, 1, "1"}, {ctx, 2, "2"}, {traced, 1, "1"},
			{as("ann"), 1, "3"}, {as("bob"), 1, "4"}, {as("ann"), 1, "3"},
		} {
			if got := ask(c.ctx, c.size); got != c.want {
				t.Errorf("call %d was answered %s, want %s", i, got, c.want)
			}
		}
		creds := grpc.PerRPCCredentials(secret{})
		if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1}, creds); err == nil {
			t.Error("a call with credentials of its own was answered from the cache")
		}
		time.Sleep(2 * time.Second)
		if got := ask(ctx, 1); got != "5" {
			t.Errorf("after the ttl: %s", got)
		}
		srv.unary = failing(codes.Unavailable)
		time.Sleep(10 * time.Second)
		if got := ask(ctx, 1); got != "5" || len(rec.of(StaleServed)) != 1 {
			t.Errorf("stale: %s, told %v", got, rec.of(StaleServed))
		}
		srv.unary = failing(codes.NotFound)
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1})
		wantCode(t, err, codes.NotFound) // an answer, not an outage
		srv.unary = failing(codes.Unavailable)
		time.Sleep(30 * time.Second)
		_, err = client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1})
		wantCode(t, err, codes.Unavailable)
	})
}

func TestNothingIsCachedOfWhatChangesThings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{}
		srv.unary = numbered(srv)
		p := rule(t, "x-stile: {idempotency: IDEMPOTENT, cache: {ttl: 2s}, coalesce: true}", nil)
		client := dial(t, serve(t, srv), obeying(p)...)
		for range 3 {
			if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if srv.calls.Load() != 3 {
			t.Errorf("the server saw %d calls of 3", srv.calls.Load())
		}
	})
}

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{}
		srv.unary = func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			time.Sleep(100 * time.Millisecond)
			return numbered(srv)(ctx, req)
		}
		p := rule(t, "timeout: 1s, x-stile: {idempotency: NO_SIDE_EFFECTS, coalesce: true}", nil)
		client := dial(t, serve(t, srv), obeying(p)...)
		answers := make(chan string, 10)
		call := func(ctx context.Context) {
			got, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1})
			if err != nil {
				answers <- status.Code(err).String()
				return
			}
			answers <- got.GetUsername()
		}
		first, cancel := context.WithCancel(context.Background())
		go call(first)
		synctest.Wait()
		for range 3 {
			go call(context.Background())
		}
		short, end := context.WithTimeout(context.Background(), 60*time.Millisecond)
		defer end()
		go call(short)
		time.Sleep(50 * time.Millisecond)
		cancel() // the first leaves: another one asks anew
		got := map[string]int{}
		for range 5 {
			got[<-answers]++
		}
		last := fmt.Sprint(srv.calls.Load()) // 2, or 3 if the impatient one had led
		if got["Canceled"] != 1 || got["DeadlineExceeded"] != 1 || got[last] != 3 || last > "3" {
			t.Errorf("answers %v after %s calls", got, last)
		}
	})
}

const hedged = "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.03s, maxAttempts: 3}}"

func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		srv := &testServer{}
		var ended sync.WaitGroup
		var mu sync.Mutex
		var saw []string
		srv.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			ended.Add(1)
			defer ended.Done()
			n := attemptsOf(ctx)
			mu.Lock()
			saw = append(saw, n)
			mu.Unlock()
			_ = grpc.SetHeader(ctx, metadata.Pairs("from", n))
			if n != "1" { // hangs until it is cancelled
				<-ctx.Done()
				return nil, contextStatus(ctx.Err())
			}
			time.Sleep(50 * time.Millisecond)
			return &pb.SimpleResponse{Username: n}, nil
		}
		client := dial(t, serve(t, srv), obeying(rule(t, hedged, rec))...)
		begin := time.Now()
		var header metadata.MD
		got, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}, grpc.Header(&header))
		if err != nil || got.GetUsername() != "1" || len(header["from"]) != 1 || header["from"][0] != "1" {
			t.Errorf("got %v, header %v, %v", got, header, err)
		}
		if took := time.Since(begin); took != 80*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if won := rec.of(HedgeWon); len(won) != 1 || len(rec.of(Retried)) != 2 {
			t.Errorf("won %v, attempts %v", won, rec.of(Retried))
		}
		ended.Wait() // the losers were cancelled, long before their deadline
		if took := time.Since(begin); took != 80*time.Millisecond {
			t.Errorf("the losers ended after %v", took)
		}
	})
}

// TestHedgeOutcomes lets attempts fail in different ways.
func TestHedgeOutcomes(t *testing.T) {
	fail := func(code codes.Code, after time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(after):
			case <-ctx.Done():
			}
			return status.Error(code, "as told")
		}
	}
	hang := func(ctx context.Context) error { <-ctx.Done(); return contextStatus(ctx.Err()) }
	for _, c := range []struct {
		name     string
		attempts []func(context.Context) error // nil: answers at once
		want     codes.Code
		took     time.Duration
		calls    int64
	}{
		{"the first answers at once", []func(context.Context) error{nil}, codes.OK, 0, 1},
		{"the first fails for good", []func(context.Context) error{fail(codes.NotFound, 0)}, codes.NotFound, 0, 1},
		{"the first fails, the next is made at once", []func(context.Context) error{fail(codes.Unavailable, 0), nil}, codes.OK, 0, 2},
		{"all fail", []func(context.Context) error{fail(codes.Unavailable, 0), fail(codes.Unavailable, 0), fail(codes.Unavailable, 0)}, codes.Unavailable, 0, 3},
		{"the second fails for good while the first hangs", []func(context.Context) error{hang, fail(codes.NotFound, 0)}, codes.NotFound, 30 * time.Millisecond, 2},
		{"the first fails late, the second answers later", []func(context.Context) error{fail(codes.Unavailable, 40*time.Millisecond), func(context.Context) error { time.Sleep(90 * time.Millisecond); return nil }, hang}, codes.OK, 120 * time.Millisecond, 3},
		{"all hang", []func(context.Context) error{hang, hang, hang}, codes.DeadlineExceeded, time.Second, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &testServer{}
				var n atomic.Int64
				srv.unary = func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					if f := c.attempts[n.Add(1)-1]; f != nil {
						if err := f(ctx); err != nil {
							return nil, err
						}
					}
					return answer(ctx, req)
				}
				client := dial(t, serve(t, srv), obeying(rule(t, hedged, nil))...)
				begin := time.Now()
				_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
				wantCode(t, err, c.want)
				if took := time.Since(begin); took != c.took || srv.calls.Load() != c.calls {
					t.Errorf("took %v, %d attempts; want %v, %d", took, srv.calls.Load(), c.took, c.calls)
				}
			})
		})
	}
}

// TestHedgeAtPercentile: the delay follows what calls take.
func TestHedgeAtPercentile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{}
		srv.unary = func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			d := 10 * time.Millisecond
			if attemptsOf(ctx) == "0" && srv.calls.Load()%50 == 0 {
				d = 500 * time.Millisecond
			}
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			return answer(ctx, req)
		}
		p := rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: p95}}", nil)
		client := dial(t, serve(t, srv), obeying(p)...)
		slow := 0
		for i := range 500 {
			begin := time.Now()
			if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); i >= 100 && took > 25*time.Millisecond {
				slow++
			}
		}
		if slow > 0 || p.Count(HedgeWon) == 0 {
			t.Errorf("%d calls were slow, %d hedges won", slow, p.Count(HedgeWon))
		}
	})
}

// secret is a credential that asks for a connection that keeps secrets.
type secret struct{}

func (secret) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}
func (secret) RequireTransportSecurity() bool { return true }

// TestHedgeKeepsBackoff: beside a retryPolicy an attempt that fails is followed after the backoff, also
// while the percentile that is the delay is not known.
func TestHedgeKeepsBackoff(t *testing.T) {
	for _, delay := range []string{"0.9s", "p99"} {
		t.Run(delay, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var at []time.Duration
				begin := time.Now()
				srv := &testServer{unary: func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					mu.Lock()
					defer mu.Unlock()
					at = append(at, time.Since(begin))
					return nil, status.Error(codes.Unavailable, "down")
				}}
				p := rule(t, "timeout: 5s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: "+delay+"}}", nil)
				client := dial(t, serve(t, srv), obeying(p)...)
				_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
				wantCode(t, err, codes.Unavailable)
				mu.Lock()
				defer mu.Unlock()
				if len(at) != 3 || at[1] == at[0] || at[2] == at[1] || at[2] > 200*time.Millisecond {
					t.Errorf("attempts at %v", at)
				}
			})
		})
	}
}

// TestBaggage: what handlers may read is part of a cache's key.
func TestBaggage(t *testing.T) {
	for name, want := range map[string]bool{"traceparent": true, "x-b3-traceid": true, "x-datadog-trace-id": true, "baggage": false, "uberctx-tenant": false, "grpc-tags-bin": false, "authorization": false} {
		if tracing(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
