package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/policy/policytest"
)

// randomRetries is a random retryPolicy, and maybe throttling.
func randomRetries(r *rand.Rand) string {
	all := []string{"UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	text := fmt.Sprintf(`methodConfig: [{name: [{}], timeout: 100s, retryPolicy: {maxAttempts: %d, initialBackoff: 0.01s, maxBackoff: 0.1s, backoffMultiplier: 2, retryableStatusCodes: [%s]}, x-stile: {idempotency: IDEMPOTENT}}]`,
		2+r.IntN(5), strings.Join(all[:1+r.IntN(3)], ", "))
	if r.IntN(2) == 0 {
		text += fmt.Sprintf("\nretryThrottling: {maxTokens: %d, tokenRatio: 0.%d}", 2+r.IntN(8), 1+r.IntN(9))
	}
	return text
}

// talk makes calls to a scripted server and returns what both sides saw.
func talk(t *testing.T, steps []policytest.Step, calls int, opts ...grpc.DialOption) []string {
	s := &policytest.Server{Steps: steps}
	client := dial(t, serve(t, s), opts...)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return s.Talk(ctx, client, calls)
}

// unlimited gives a service a budget that forbids nothing, which is what grpc-go has.
func unlimited(p *Policy, target string) {
	c := p.Config()
	b := &budget{budget: control.NewBudget(1e6, 1e6), of: c.Stile.RetryBudget, gRPC: c.RetryThrottling}
	if th := c.RetryThrottling; th != nil {
		b.throttle = control.NewThrottle(th.MaxTokens, th.TokenRatio)
	}
	p.attach(target).budgets["/grpc.testing.TestService/"] = b
}

// TestRetriesLikeGRPC lets grpc-go and the chain meet the same server: it must see the same attempts, and
// callers the same outcomes.
func TestRetriesLikeGRPC(t *testing.T) {
	rounds := 300
	if testing.Short() || raceDetector {
		rounds = 30
	}
	attempts := 0
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		text := randomRetries(r)
		steps := policytest.RandomSteps(r, 60)
		const calls = 20
		var theirs, ours []string
		synctest.Test(t, func(t *testing.T) {
			c, err := Parse("test.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			vanilla, err := json.Marshal(json.RawMessage(c.ServiceConfig(true)))
			if err != nil {
				t.Fatal(err)
			}
			theirs = talk(t, steps, calls, grpc.WithDefaultServiceConfig(string(vanilla)))
		})
		synctest.Test(t, func(t *testing.T) {
			p := file(t, text, nil)
			unlimited(p, "passthrough:///memory")
			ours = talk(t, steps, calls, obeying(p)...)
		})
		attempts += len(theirs) - calls
		for i := range max(len(theirs), len(ours)) {
			if i >= len(theirs) || i >= len(ours) || theirs[i] != ours[i] {
				t.Fatalf("seed %d, %s\nsteps %+v\ngrpc-go: %q\nours:    %q\nfirst difference at %d", seed, text, steps, theirs, ours, i)
			}
		}
	}
	t.Logf("%d rounds, %d lines of attempts compared", rounds, attempts)
}

// TestAmplification counts the attempts at a server that fails all.
func TestAmplification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{unary: failing(codes.Unavailable)}
		rec := &tape{}
		p := rule(t, "timeout: 10s, retryPolicy: {maxAttempts: 5, initialBackoff: 0.01s, maxBackoff: 0.1s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT}", rec)
		client := dial(t, serve(t, srv), obeying(p)...)
		const callers, each = 50, 40
		done := make(chan struct{})
		for range callers {
			go func() {
				defer func() { done <- struct{}{} }()
				for range each {
					_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
					wantCode(t, err, codes.Unavailable)
					time.Sleep(time.Millisecond)
				}
			}()
		}
		for range callers {
			<-done
		}
		const calls = callers * each
		if got := float64(srv.calls.Load()) / calls; got > 1.2+10.0/calls {
			t.Errorf("the server saw %.3f attempts a call", got)
		}
		if want := uint64(srv.calls.Load()); p.Count(Retried)+calls != want {
			t.Errorf("%d retries of %d calls told, the server saw %d", p.Count(Retried), calls, want)
		}
		if p.Count(BudgetEmpty) == 0 || len(rec.of(RetryGivenUp)) == 0 {
			t.Error("nobody was told")
		}
	})
}

func TestRetryGivesWay(t *testing.T) {
	retry := func(more string) string {
		return "timeout: 10s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.01s, maxBackoff: 0.1s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE, RESOURCE_EXHAUSTED]}, x-stile: {" + more + "}"
	}
	shed := func(method string) func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(lazyctx.NotBegun, method, pushback, "20"))
			return nil, refusal(codes.ResourceExhausted, ReasonOverloaded, "busy", time.Second)
		}
	}
	again := metadata.NewIncomingContext(context.Background(), metadata.Pairs(previousAttempts, "1"))
	for _, c := range []struct {
		name  string
		entry string
		ctx   context.Context
		unary func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)
		want  int64 // attempts
	}{
		{"idempotent", retry("idempotency: IDEMPOTENT"), context.Background(), failing(codes.Unavailable), 3},
		{"not known to be idempotent", retry(""), context.Background(), failing(codes.Unavailable), 1},
		{"not idempotent, but not begun", retry(""), context.Background(), shed(unaryMethod), 3},
		{"another method has not begun", retry(""), context.Background(), shed("/other.Service/Method"), 1},
		{"not listed", retry("idempotency: IDEMPOTENT"), context.Background(), failing(codes.NotFound), 1},
		{"a retry above", retry("idempotency: IDEMPOTENT"), again, failing(codes.Unavailable), 1},
		{"tried again below", retry("idempotency: IDEMPOTENT"), context.Background(), func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			return nil, exhausted(status.Error(codes.Unavailable, "below"), 3)
		}, 1},
		{"shadow", retry("idempotency: IDEMPOTENT, shadow: true"), context.Background(), failing(codes.Unavailable), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &testServer{unary: c.unary}
				client := dial(t, serve(t, srv), obeying(rule(t, c.entry, nil))...)
				finished := 0
				_, err := client.UnaryCall(c.ctx, &pb.SimpleRequest{}, grpc.OnFinish(func(error) { finished++ }))
				if err == nil || srv.calls.Load() != c.want || finished != 1 {
					t.Errorf("%v after %d attempts, want %d; OnFinish %d times", err, srv.calls.Load(), c.want, finished)
				}
			})
		})
	}
}

// TestPerTryTimeout: an attempt that hangs leaves room for others.
func TestPerTryTimeout(t *testing.T) {
	for name, entry := range map[string]string{
		"perTryTimeout": "timeout: 1s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT, perTryTimeout: 0.2s}",
		"split":         "timeout: 0.6s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE, DEADLINE_EXCEEDED]}, x-stile: {idempotency: IDEMPOTENT}",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &testServer{}
				srv.unary = func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					if srv.calls.Load() < 3 {
						<-ctx.Done()
						return nil, contextStatus(ctx.Err())
					}
					return answer(ctx, req)
				}
				client := dial(t, serve(t, srv), obeying(rule(t, entry, nil))...)
				begin := time.Now()
				if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
					t.Errorf("after %d attempts: %v", srv.calls.Load(), err)
				}
				if took := time.Since(begin); took < 395*time.Millisecond || took > 410*time.Millisecond {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestExhaustedSaysSo(t *testing.T) {
	err := exhausted(status.Error(codes.Unavailable, "down"), 3)
	st := status.Convert(err)
	if st.Message() != "down" || reasonOf(st) != ReasonRetriesExhausted {
		t.Errorf("got %v with %v", err, st.Details())
	}
	if info := st.Details()[0].(*errdetails.ErrorInfo); info.GetMetadata()["attempts"] != "3" {
		t.Errorf("got %v", info)
	}
}

// TestStreamOfTwoGoroutines: one sends while another receives, and the attempts fail under both.
func TestStreamOfTwoGoroutines(t *testing.T) {
	srv := &testServer{duplex: func(pb.TestService_FullDuplexCallServer) error { return status.Error(codes.Unavailable, "no") }}
	p := rule(t, "timeout: 20s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT}", nil)
	unlimited(p, "passthrough:///memory")
	client := dial(t, serve(t, srv), obeying(p)...)
	for range 200 {
		stream, err := client.FullDuplexCall(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for stream.Send(&pb.StreamingOutputCallRequest{}) == nil {
			}
		}()
		_, err = stream.Recv()
		wantCode(t, err, codes.Unavailable)
		<-sent
	}
	if srv.calls.Load() == 200 {
		t.Error("nothing was tried again")
	}
}

// TestStreamBothWays: one sends while another receives, and the first attempt fails in the middle: the stream goes on, whoever sees that first.
func TestStreamBothWays(t *testing.T) {
	const messages = 40
	srv := &testServer{duplex: func(ss pb.TestService_FullDuplexCallServer) error {
		for i := 1; ; i++ {
			m, err := ss.Recv()
			switch {
			case err != nil:
				return nil // the client has sent all
			case attemptsOf(ss.Context()) == "0":
				if i == 3 {
					return status.Error(codes.Unavailable, "in the middle")
				}
				continue
			}
			if err := ss.Send(&pb.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
				return err
			}
		}
	}}
	p := rule(t, "timeout: 20s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT}", nil)
	client := dial(t, serve(t, srv), obeying(p)...)
	payload := &pb.Payload{Body: make([]byte, 4000)}
	var callers sync.WaitGroup
	var refused atomic.Int64 // by the budget
	for range 6 {
		callers.Go(func() {
			for range 10 {
				s, err := client.FullDuplexCall(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					for range messages {
						if s.Send(&pb.StreamingOutputCallRequest{Payload: payload}) != nil {
							return
						}
					}
					_ = s.CloseSend()
				}()
				n := 0
				for ; ; n++ {
					if _, err = s.Recv(); err != nil {
						break
					}
				}
				switch {
				case status.Code(err) == codes.Unavailable:
					refused.Add(1)
				case err != io.EOF || n != messages:
					t.Errorf("%d messages, then %v", n, err)
				}
			}
		})
	}
	callers.Wait()
	if refused.Load() == 60 {
		t.Error("no stream was tried again")
	}
}
