package policy

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// Parts of entries, named as in the table of docs/POLICY.md.
const (
	partRetry    = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.000001s, maxBackoff: 0.000001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE, RESOURCE_EXHAUSTED]}"
	partHedge    = "hedge: {hedgingDelay: 0.02s, maxAttempts: 2}"
	partBreaker  = "breaker: {minimumNumberOfCalls: 2, slidingWindowSize: 4, waitDurationInOpenState: 60s, permittedNumberOfCallsInHalfOpenState: 1}"
	partLimit    = "limit: {maxRequests: 1}"
	partQueue    = "limit: {maxRequests: 1, maxPendingRequests: 1}"
	partCache    = "cache: {ttl: 1s, staleIfError: 60s, keyFields: [response_size]}"
	partFallback = partCache + ", fallback: {cache: true}"
	partCoalesce = "coalesce: true"
)

// pair is two policies on one method, and what they do together.
type pair struct {
	names string // of the two
	rule  string // what holds of them
	file  string // further lines of the file
	entry string // retryPolicy and timeout
	own   string // x-stile
	// server says what each attempt meets, the last for all that follow: ok, a code or hang,
	// and how long it takes: "ok+50ms".
	server string
	// calls are "when:key", all at once if they are due at the same time, with * for a stream.
	calls string
	// want is each call's outcome and how long it took: ok1 is the answer to attempt 1, counted from 1.
	want string
}

const idempotent, pure = "idempotency: IDEMPOTENT, ", "idempotency: NO_SIDE_EFFECTS, "

var pairs = []pair{
	{"timeout+retry", "no retry whose backoff outlasts the deadline: the error is told at once", "", "timeout: 1s, " + strings.Replace(partRetry, "0.000001s", "1000000s", 2), idempotent, "Unavailable", "0ms:a", "Unavailable@0s"},
	{"timeout+retry", "all attempts share the timeout", "", "timeout: 1s, " + partRetry, idempotent, "Unavailable+400ms", "0ms:a", "DeadlineExceeded@1s"},
	{"timeout+hedge", "all attempts share the timeout", "", "timeout: 1s", idempotent + partHedge, "hang", "0ms:a", "DeadlineExceeded@1s"},
	{"timeout+breaker", "a call that its deadline ends has failed", "", "timeout: 0.1s", partBreaker, "hang", "0ms:a 200ms:b 400ms:c", "DeadlineExceeded@100ms DeadlineExceeded@100ms Unavailable@0s"},
	{"timeout+limit", "waiting for a place is part of the time", "", "timeout: 0.1s", partQueue, "hang ok+80ms", "0ms:a 50ms:b", "DeadlineExceeded@100ms DeadlineExceeded@100ms"},
	{"timeout+cache", "an answer that is near needs no time", "", "timeout: 0.1s", pure + partCache, "ok hang", "0ms:a 10ms:a 10ms:b", "ok1@0s ok1@0s DeadlineExceeded@100ms"},
	{"timeout+coalesce", "each keeps its own deadline; the end of the first makes another one ask", "", "timeout: 0.1s", pure + partCoalesce, "hang ok+20ms", "0ms:a 50ms:a", "DeadlineExceeded@100ms ok2@70ms"},
	{"timeout+fallback", "an old answer stands in at the deadline", "", "timeout: 0.1s", pure + partFallback, "ok hang", "0ms:a 2s:a", "ok1@0s ok1@100ms"},
	{"retry+hedge", "one maxAttempts, the larger; after a failure the next is made after the backoff, not after the delay", "", "timeout: 1s, " + partRetry, idempotent + partHedge, "Unavailable Unavailable ok", "0ms:a", "ok3@0s"},
	{"retry+breaker", "the breaker judges calls, not attempts", "", "timeout: 1s, " + partRetry, idempotent + partBreaker, "Unavailable Unavailable ok Unavailable ok ok", "0ms:a 1ms:b 2ms:c", "ok3@0s ok5@0s ok6@0s"},
	{"retry+breaker", "what an open breaker refuses is not retried", "", "timeout: 1s, " + partRetry, idempotent + partBreaker, "Internal", "0ms:a 1ms:b 2ms:c", "Internal@0s Internal@0s Unavailable@0s"},
	{"retry+limit", "a call keeps its place over all its attempts", "", "timeout: 1s, " + partRetry, idempotent + partLimit, "Unavailable+20ms ok+20ms", "0ms:a 25ms:b", "ok2@40ms ResourceExhausted@0s"},
	{"retry+cache", "the answer of a retry is kept", "", "timeout: 1s, " + partRetry, pure + partCache, "Unavailable ok hang", "0ms:a 10ms:a", "ok2@0s ok2@0s"},
	{"retry+coalesce", "who waits shares the answer of the retry", "", "timeout: 1s, " + partRetry, pure + partCoalesce, "Unavailable+20ms ok", "0ms:a 10ms:a", "ok2@20ms ok2@10ms"},
	{"retry+fallback", "an old answer stands in when all attempts have failed", "", "timeout: 1s, " + partRetry, pure + partFallback, "ok Unavailable+10ms Unavailable+10ms Unavailable+10ms hang", "0ms:a 2s:a", "ok1@0s ok1@30ms"},
	{"hedge+breaker", "a call that a hedge has saved went well", "", "timeout: 1s", idempotent + partBreaker + ", " + partHedge, "hang ok hang ok hang ok", "0ms:a 100ms:b 200ms:c", "ok2@20ms ok4@20ms ok6@20ms"},
	{"hedge+limit", "the attempts of a call share its place", "", "timeout: 1s", idempotent + partLimit + ", " + partHedge, "hang ok", "0ms:a", "ok2@20ms"},
	{"hedge+cache", "the answer of a hedge is kept", "", "timeout: 1s", pure + partCache + ", " + partHedge, "hang ok hang", "0ms:a 100ms:a", "ok2@20ms ok2@0s"},
	{"hedge+coalesce", "who waits shares the answer of the hedge", "", "timeout: 1s", pure + partCoalesce + ", " + partHedge, "hang ok", "0ms:a 10ms:a", "ok2@20ms ok2@10ms"},
	{"hedge+fallback", "an old answer stands in when all attempts have failed", "", "timeout: 1s", pure + partFallback + ", " + partHedge, "ok Unavailable Unavailable", "0ms:a 2s:a", "ok1@0s ok1@0s"},
	{"breaker+limit", "what the limit refuses does not open the breaker", "", "timeout: 1s", partBreaker + ", " + partLimit, "ok+50ms", "0ms:a 10ms:b 20ms:c 30ms:d 60ms:e", "ok1@50ms ResourceExhausted@0s ResourceExhausted@0s ResourceExhausted@0s ok2@50ms"},
	{"breaker+limit", "what the breaker refuses takes no place", "", "timeout: 0.1s", partBreaker + ", " + partLimit, "Internal", "0ms:a 1ms:b 2ms:c 2ms:d", "Internal@0s Internal@0s Unavailable@0s Unavailable@0s"},
	{"breaker+cache", "an answer that is near passes an open breaker", "", "timeout: 1s", pure + partBreaker + ", " + partCache, "ok Internal", "0ms:a 1ms:b 2ms:c 3ms:d 4ms:a", "ok1@0s Internal@0s Unavailable@0s Unavailable@0s ok1@0s"},
	{"breaker+coalesce", "who waits is one call to the breaker", "", "timeout: 1s", pure + partBreaker + ", " + partCoalesce, "Internal+20ms ok", "0ms:a 1ms:a 2ms:a 50ms:a", "Internal@20ms Internal@19ms Internal@18ms ok2@0s"},
	{"breaker+fallback", "an old answer stands in while the breaker is open", "", "timeout: 1s", pure + partBreaker + ", " + partFallback, "ok Internal", "0ms:a 1ms:b 2ms:c 2s:a", "ok1@0s Internal@0s Unavailable@0s ok1@0s"},
	{"limit+cache", "an answer that is near needs no place", "", "timeout: 1s", pure + partLimit + ", " + partCache, "ok ok+50ms", "0ms:a 10ms:b 20ms:a 20ms:c", "ok1@0s ok2@50ms ok1@0s ResourceExhausted@0s"},
	{"limit+coalesce", "who waits for an equal call needs no place", "", "timeout: 1s", pure + partLimit + ", " + partCoalesce, "ok+50ms", "0ms:a 10ms:a 20ms:a", "ok1@50ms ok1@40ms ok1@30ms"},
	{"limit+fallback", "an old answer stands in for a call that found no place", "", "timeout: 3s", pure + partLimit + ", " + partFallback, "ok ok+2s", "0ms:a 1500ms:b 2s:a", "ok1@0s ok2@2s ok1@0s"},
	{"cache+coalesce", "the answer that is shared is kept", "", "timeout: 1s", pure + partCache + ", " + partCoalesce, "ok+50ms hang", "0ms:a 10ms:a 100ms:a", "ok1@50ms ok1@40ms ok1@0s"},
	{"cache+fallback", "an old answer stands in only when the call has failed, and never an error", "", "timeout: 1s", pure + partFallback, "ok ok Unavailable NotFound", "0ms:a 2s:a 4s:a 6s:a", "ok1@0s ok2@0s ok2@0s NotFound@0s"},
	{"coalesce+fallback", "the old answer stands in for all who waited", "", "timeout: 1s", pure + partCoalesce + ", " + partFallback, "ok Unavailable+50ms", "0ms:a 2s:a 2010ms:a", "ok1@0s ok1@50ms ok1@40ms"},
	{"throttling+retry", "an empty bucket ends retries", "retryThrottling: {maxTokens: 2, tokenRatio: 0.1}", "timeout: 1s, " + partRetry, idempotent, "Unavailable", "0ms:a 1ms:b", "Unavailable@0s Unavailable@0s"},
	{"throttling+hedge", "an empty bucket ends hedges", "retryThrottling: {maxTokens: 2, tokenRatio: 0.1}", "timeout: 1s", idempotent + partHedge, "Unavailable hang ok", "0ms:a 1ms:b", "Unavailable@0s DeadlineExceeded@1s"},
	{"throttling+breaker", "each counts for itself: the breaker opens first here", "retryThrottling: {maxTokens: 100, tokenRatio: 0.1}", "timeout: 1s, " + partRetry, idempotent + partBreaker, "Unavailable", "0ms:a 1ms:b 2ms:c", "Unavailable@0s Unavailable@0s Unavailable@0s"},
	{"throttling+limit", "a refusal takes no token", "retryThrottling: {maxTokens: 2, tokenRatio: 0.1}", "timeout: 1s, " + partRetry, idempotent + partLimit, "ok+50ms Unavailable ok", "0ms:a 1ms:b 2ms:c 60ms:d", "ok1@50ms ResourceExhausted@0s ResourceExhausted@0s Unavailable@0s"},
	{"admission+timeout", "a call that waits at the server is shed at its deadline", "x-stile: {admission: {maxRequests: 1, maxQueueDelay: 10s}}", "timeout: 0.1s", "", "hang ok", "0ms:a 10ms:b", "DeadlineExceeded@100ms ok2@90ms"},
	{"admission+retry", "what is shed had not begun: it is tried again after the pushback, idempotent or not", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0, maxQueueDelay: 0.1s}}", "timeout: 1s, " + partRetry, "", "ok+50ms ok", "0ms:a 10ms:b", "ok1@50ms ok2@100ms"},
	{"admission+hedge", "a hedge that is shed leaves the first attempt alone", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0, maxQueueDelay: 0.1s}}", "timeout: 1s", idempotent + partHedge, "ok+50ms", "0ms:a", "ok1@50ms"},
	{"admission+breaker", "what is shed does not open the breaker", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", "timeout: 1s", partBreaker, "ok+50ms ok", "0ms:a 1ms:b 2ms:c 3ms:d 60ms:e", "ok1@50ms ResourceExhausted@0s ResourceExhausted@0s ResourceExhausted@0s ok2@0s"},
	{"admission+limit", "the caller's limit refuses first", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", "timeout: 1s", partLimit, "ok+50ms", "0ms:a 1ms:b", "ok1@50ms ResourceExhausted@0s"},
	{"admission+cache", "an answer that is near asks no server", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", "timeout: 1s", pure + partCache, "ok ok+50ms", "0ms:a 1ms:b 2ms:a 2ms:c", "ok1@0s ok2@50ms ok1@0s ResourceExhausted@0s"},
	{"admission+coalesce", "who waits for an equal call asks no server", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", "timeout: 1s", pure + partCoalesce, "ok+50ms", "0ms:a 1ms:a", "ok1@50ms ok1@49ms"},
	{"admission+fallback", "an old answer stands in for a call that was shed", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", "timeout: 3s", pure + partFallback, "ok ok+2s", "0ms:a 1500ms:b 2s:a", "ok1@0s ok2@2s ok1@0s"},

	{"stream+timeout", "the timeout is of the whole stream", "", "timeout: 0.1s", "", "hang", "0ms:*", "DeadlineExceeded@100ms"},
	{"stream+retry", "a stream is tried again until its first message", "", "timeout: 1s, " + partRetry, idempotent, "Unavailable ok", "0ms:*", "ok2@0s"},
	{"stream+hedge", "streams are not hedged", "", "timeout: 0.1s", idempotent + partHedge, "hang ok", "0ms:*", "DeadlineExceeded@100ms"},
	{"stream+breaker", "streams count", "", "timeout: 1s", partBreaker, "Internal", "0ms:* 1ms:* 2ms:*", "Internal@0s Internal@0s Unavailable@0s"},
	{"stream+limit", "a stream keeps its place until it ends", "", "timeout: 1s", partLimit, "ok+50ms", "0ms:* 10ms:* 60ms:*", "ok1@50ms ResourceExhausted@0s ok2@50ms"},
	{"stream+cache", "streams are not cached", "", "timeout: 1s", pure + partCache, "ok", "0ms:* 1ms:*", "ok1@0s ok2@0s"},
	{"stream+coalesce", "streams are not coalesced", "", "timeout: 1s", pure + partCoalesce, "ok+50ms", "0ms:* 10ms:*", "ok1@50ms ok2@50ms"},
	{"stream+fallback", "nothing stands in for a stream", "", "timeout: 1s", pure + partFallback, "ok Unavailable", "0ms:* 2s:*", "ok1@0s Unavailable@0s"},
	{"stream+throttling", "an empty bucket ends retries of streams too", "retryThrottling: {maxTokens: 2, tokenRatio: 0.1}", "timeout: 1s, " + partRetry, idempotent, "Unavailable ok", "0ms:*", "Unavailable@0s"},
	{"stream+admission", "a stream is one call under way; one that is shed is tried again", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0, maxQueueDelay: 0.1s}}", "timeout: 1s, " + partRetry, "", "ok+50ms ok", "0ms:* 10ms:*", "ok1@50ms ok2@100ms"},
}

// TestPairs holds each two policies to what is written of them.
func TestPairs(t *testing.T) {
	for _, c := range pairs {
		t.Run(c.names, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text := fmt.Sprintf("%s\nmethodConfig: [{name: [{}], %s, x-stile: {%s}}]", c.file, c.entry, c.own)
				p := file(t, text, nil)
				srv := &testServer{}
				play(srv, strings.Fields(c.server))
				client := dial(t, serve(t, srv, serving(p)...), obeying(p)...)
				if got := outcomes(client, strings.Fields(c.calls)); got != c.want {
					t.Errorf("%s\n%s\nserver %s, calls %s\ngot  %s\nwant %s", c.rule, text, c.server, c.calls, got, c.want)
				}
			})
		})
	}
}

// TestAllPairs sees that no pair is missing.
func TestAllPairs(t *testing.T) {
	names := []string{"timeout", "retry", "hedge", "breaker", "limit", "cache", "coalesce", "fallback", "throttling", "admission", "stream"}
	apart := map[string]bool{ // that never meet
		"throttling+timeout": true, "throttling+cache": true, "throttling+coalesce": true, "throttling+fallback": true, "admission+throttling": true,
	}
	have := map[string]bool{}
	for _, c := range pairs {
		have[c.names] = true
	}
	for i, a := range names {
		for _, b := range names[i+1:] {
			if x, y := a+"+"+b, b+"+"+a; !have[x] && !have[y] && !apart[x] && !apart[y] {
				t.Errorf("no case of %s", x)
			}
		}
	}
}

// play makes srv do what the words say, attempt by attempt.
func play(srv *testServer, words []string) {
	var mu sync.Mutex
	n := 0
	do := func(ctx context.Context) (string, error) {
		mu.Lock()
		n++
		number, word := n, words[min(n, len(words))-1]
		mu.Unlock()
		word, after, _ := strings.Cut(word, "+")
		if word == "hang" {
			<-ctx.Done()
			return "", contextStatus(ctx.Err())
		}
		if d, _ := time.ParseDuration(after); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		var code codes.Code
		if word != "ok" {
			if err := code.UnmarshalJSON([]byte(strconv.Quote(screaming(word)))); err != nil {
				panic(err)
			}
		}
		return "ok" + strconv.Itoa(number), status.Error(code, "as told")
	}
	srv.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		text, err := do(ctx)
		if err != nil {
			return nil, err
		}
		return &pb.SimpleResponse{Username: text}, nil
	}
	srv.duplex = func(ss pb.TestService_FullDuplexCallServer) error {
		text, err := do(ss.Context())
		if err != nil {
			return err
		}
		return ss.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: []byte(text)}})
	}
}

// screaming turns NotFound into NOT_FOUND.
func screaming(word string) string {
	var b strings.Builder
	for i, r := range word {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToUpper(string(r)))
	}
	return b.String()
}

// outcomes makes the calls, each when it is due, and returns what came of them.
func outcomes(client pb.TestServiceClient, calls []string) string {
	got := make([]string, len(calls))
	var wg sync.WaitGroup
	start := time.Now()
	for i, c := range calls {
		when, key, _ := strings.Cut(c, ":")
		due, err := time.ParseDuration(when)
		if err != nil {
			panic(err)
		}
		time.Sleep(time.Until(start.Add(due)))
		wg.Go(func() {
			begin := time.Now()
			text, err := one(client, key)
			if err != nil {
				text = status.Code(err).String()
			}
			got[i] = text + "@" + time.Since(begin).Round(time.Millisecond).String()
		})
		synctest.Wait()
	}
	wg.Wait()
	return strings.Join(got, " ")
}

// one makes a call for a key, or a stream for *.
func one(client pb.TestServiceClient, key string) (string, error) {
	ctx := context.Background()
	if key != "*" {
		got, err := client.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: int32(key[0])})
		return got.GetUsername(), err
	}
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return "", err
	}
	if err := stream.Send(&pb.StreamingOutputCallRequest{}); err != nil && err != io.EOF {
		return "", err
	}
	_ = stream.CloseSend()
	text := ""
	for {
		got, err := stream.Recv()
		if err == io.EOF {
			return text, nil
		}
		if err != nil {
			return "", err
		}
		text = string(got.GetPayload().GetBody())
	}
}

// TestPairsAreDocumented holds the table of docs/POLICY.md to the cases.
func TestPairsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("| policies | together |\n|---|---|\n")
	for _, c := range pairs {
		fmt.Fprintf(&b, "| %s | %s |\n", strings.Replace(c.names, "+", ", ", 1), c.rule)
	}
	const path, head = "../docs/POLICY.md", "| policies | together |\n"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(doc), head)
	if at < 0 {
		t.Fatalf("%s has no table of pairs", path)
	}
	want := string(doc[:at]) + b.String()
	if want == string(doc) {
		return
	}
	if !*update {
		t.Fatalf("the table of %s is not what the cases say: go test -update writes it", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
