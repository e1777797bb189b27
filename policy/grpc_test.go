package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/serviceconfig"
)

// grpcParser is grpc-go's own parser, which only resolvers meet.
func grpcParser(t testing.TB) func(string) *serviceconfig.ParseResult {
	t.Helper()
	r := manual.NewBuilderWithScheme("policy")
	built := make(chan resolver.ClientConn, 1)
	r.BuildCallback = func(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) { built <- cc }
	conn, err := grpc.NewClient("policy:///", grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Connect()
	return (<-built).ParseServiceConfig
}

// same compares what grpc-go and we make of a method.
func same(t *testing.T, c *Config, methods map[string]grpc.MethodConfig, method string) {
	t.Helper()
	var theirs grpc.MethodConfig
	for _, key := range []string{method, serviceOf(method), ""} {
		if m, ok := methods[key]; ok {
			theirs = m
			break
		}
	}
	e := c.Effective(method, nil)
	ours := e.Config
	if got, want := ours.WaitForReady, theirs.WaitForReady != nil && *theirs.WaitForReady; got != want {
		t.Errorf("%s waitForReady: %v, grpc-go %v", method, got, want)
	}
	if got, want := time.Duration(ours.Timeout), theirs.Timeout; (want == nil) != (got == 0) || want != nil && *want != got {
		t.Errorf("%s timeout: %v, grpc-go %v", method, got, want)
	}
	for _, s := range []struct {
		what   string
		ours   *int64
		theirs *int
	}{{"maxRequestMessageBytes", ours.MaxRequestMessageBytes, theirs.MaxReqSize}, {"maxResponseMessageBytes", ours.MaxResponseMessageBytes, theirs.MaxRespSize}} {
		if (s.ours == nil) != (s.theirs == nil) || s.ours != nil && int(*s.ours) != *s.theirs {
			t.Errorf("%s %s: %v, grpc-go %v", method, s.what, s.ours, s.theirs)
		}
	}
	r := theirs.RetryPolicy
	if (ours.RetryPolicy == nil) != (r == nil) {
		t.Errorf("%s retryPolicy: %v, grpc-go %v", method, ours.RetryPolicy, r)
		return
	}
	if r == nil {
		return
	}
	codesOf := map[codes.Code]bool{}
	for _, code := range ours.RetryPolicy.RetryableStatusCodes {
		codesOf[codes.Code(code)] = true
	}
	got := []any{min(ours.RetryPolicy.MaxAttempts, 5), time.Duration(ours.RetryPolicy.InitialBackoff), time.Duration(ours.RetryPolicy.MaxBackoff), ours.RetryPolicy.BackoffMultiplier, codesOf}
	want := []any{r.MaxAttempts, r.InitialBackoff, r.MaxBackoff, r.BackoffMultiplier, r.RetryableStatusCodes}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s retryPolicy: %v, grpc-go %v", method, got, want)
	}
}

func compare(t *testing.T, parser func(string) *serviceconfig.ParseResult, c *Config, extra ...string) {
	t.Helper()
	for _, vanilla := range []bool{false, true} {
		json := string(c.ServiceConfig(vanilla))
		res := parser(json)
		if res.Err != nil {
			t.Errorf("grpc-go refuses\n%s\n%v", json, res.Err)
			return
		}
		methods := res.Config.(*grpc.ServiceConfig).Methods
		for _, m := range append(extra, "/a.B/M", "/a.B/Other", "/a.C/M", "/x.Y/Z") {
			same(t, c, methods, m)
		}
		if t.Failed() {
			t.Logf("of\n%s", json)
			return
		}
	}
}

// What we take, grpc-go takes, and makes the same of it.
func TestSameAsGRPC(t *testing.T) {
	parser := grpcParser(t)
	for _, file := range filesIn(t, "valid") {
		c, err := Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		compare(t, parser, c, "/shop.pricing.v1.Pricing/Quote", "/shop.pricing.v1.Pricing/Other", "/shop.catalog.v1.Catalog/List")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		c, err := Parse("random", []byte(randomPolicy(random)))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, parser, c)
		if t.Failed() {
			return
		}
	}
}

// randomPolicy writes a valid policy.
func randomPolicy(r *rand.Rand) string {
	var b strings.Builder
	maybe := func(format string, args ...any) {
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, format, args...)
		}
	}
	duration := func() string {
		return []string{"1s", "0.25s", ".5s", "3.s", "0.000000001s", "315576000000s", "12.345678901s"}[r.IntN(7)]
	}
	maybe("retryThrottling: {maxTokens: %d, tokenRatio: %v}\n", 1+r.IntN(1000), r.Float64()+0.001)
	maybe("x-stile: {version: v, defaultTimeout: %s}\n", duration())
	names := []string{"{}", "{service: a.B}", "{service: a.C}", "{service: a.B, method: M}", "{service: a.C, method: M}", "{service: x.Y, method: Z}"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:r.IntN(len(names)+1)]
	if len(names) > 0 {
		b.WriteString("methodConfig:\n")
	}
	for part := range slices.Chunk(names, 1+r.IntN(3)) {
		fmt.Fprintf(&b, "- name: [%s]\n", strings.Join(part, ", "))
		maybe("  timeout: %s\n", duration())
		maybe("  waitForReady: %v\n", r.IntN(2) == 0)
		maybe("  maxRequestMessageBytes: %d\n", r.Int64N(1<<40))
		maybe("  maxResponseMessageBytes: %d\n", r.IntN(1000))
		maybe("  retryPolicy: {maxAttempts: %d, initialBackoff: %s, maxBackoff: %s, backoffMultiplier: %v, retryableStatusCodes: [%s, %s, %d]}\n",
			2+r.IntN(6), duration(), duration(), r.Float64()*4+0.01, codeNames[r.IntN(17)], codeNames[r.IntN(17)], r.IntN(17))
		maybe("  x-stile: {owner: me, coalesce: true, perTryTimeout: %s}\n", duration())
	}
	if b.Len() == 0 {
		return "{}"
	}
	return b.String()
}

// What grpc-go refuses, we refuse.
func TestRefusedAsByGRPC(t *testing.T) {
	parser := grpcParser(t)
	for _, json := range []string{
		`{"methodConfig": [{"name": [{}], "timeout": "1"}]}`,
		`{"methodConfig": [{"name": [{}], "timeout": 1}]}`,
		`{"methodConfig": [{"name": [{}], "timeout": "s"}]}`,
		`{"methodConfig": [{"name": [{"method": "M"}]}]}`,
		`{"methodConfig": [{"name": [{}, {}]}]}`,
		`{"methodConfig": [{"name": [{}], "retryPolicy": {}}]}`,
		`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 1, "initialBackoff": "1s", "maxBackoff": "1s", "backoffMultiplier": 1, "retryableStatusCodes": [14]}}]}`,
		`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff": "1s", "maxBackoff": "1s", "backoffMultiplier": 1, "retryableStatusCodes": ["Unavailable"]}}]}`,
		`{"methodConfig": [], "retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}`,
		`{"methodConfig": [], "retryThrottling": {"maxTokens": 10, "tokenRatio": 0}}`,
		`{"methodConfig": [{"name": [{}], "waitForReady": "yes"}]}`,
		`{"methodConfig": {}}`,
		``, `{`, `[]`,
	} {
		if parser(json).Err == nil {
			t.Errorf("grpc-go takes %s", json)
		}
		if _, err := Parse("p.json", []byte(json)); err == nil {
			t.Errorf("taken: %s", json)
		}
	}
}
