package policy_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile/policy"
)

func ExampleParse() {
	_, err := policy.Parse("policy.yaml", []byte(`
methodConfig:
- name: [{service: shop.v1.Pricing, method: Quote}]
  timeout: 250ms
  x-stile: {perTryTimeouts: 0.08s}
`))
	fmt.Println(err)
	// Output:
	// policy.yaml:4:12: methodConfig[0].timeout: "250ms" is not how gRPC writes durations: write "0.25s"
	// policy.yaml:5:13: methodConfig[0].x-stile.perTryTimeouts: is not a key of x-stile (did you mean perTryTimeout?)
}

func ExampleConfig_Effective() {
	c, err := policy.Parse("policy.yaml", []byte(`
methodConfig:
- name: [{service: shop.v1.Pricing}]
  timeout: 1s
- name: [{service: shop.v1.Pricing, method: Quote}]
  timeout: 0.25s
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, method := range []string{"/shop.v1.Pricing/Quote", "/shop.v1.Pricing/List", "/shop.v1.Orders/Place"} {
		e := c.Effective(method, nil)
		fmt.Println(method, e.Timeout, e.Entry)
	}
	// Output:
	// /shop.v1.Pricing/Quote 0.25s methodConfig[1]
	// /shop.v1.Pricing/List 1s methodConfig[0]
	// /shop.v1.Orders/Place 10s
}

func ExampleDiff() {
	before, _ := policy.Parse("before.yaml", []byte(`methodConfig: [{name: [{}], timeout: 1s}]`))
	after, _ := policy.Parse("after.yaml", []byte(`methodConfig: [{name: [{}], timeout: 0.3s, x-stile: {perTryTimeout: 0.2s}, retryPolicy: {maxAttempts: 3,
  initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}}]`))
	for _, c := range policy.Diff(before, after, nil) {
		fmt.Println(c)
	}
	// Output:
	// timeout 1s → 0.3s
	// worst-case attempts 1 → 3
	// worst-case time 1s → 0.8s > timeout 0.3s
	// one attempt none → 0.2s
	// retried after nothing → UNAVAILABLE, 3 attempts
	// backoff none → 0.1s to 0.1s, ×1
}

func ExampleUnaryClientInterceptor() {
	c, err := policy.Parse("policy.yaml", []byte(`methodConfig: [{name: [{}], timeout: 0.25s, x-stile: {breaker: {}}}]`))
	if err != nil {
		log.Fatal(err)
	}
	p := policy.New(c)
	conn, err := grpc.NewClient("dns:///pricing:50051",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), // the policy retries
		grpc.WithChainUnaryInterceptor(policy.UnaryClientInterceptor(p)),
		grpc.WithChainStreamInterceptor(policy.StreamClientInterceptor(p)))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(p.Config().Effective("/shop.pricing.v1.Pricing/Quote", nil).Timeout)
	// Output: 0.25s
}

func ExampleUnaryServerInterceptor() {
	c, err := policy.Parse("policy.yaml", []byte(`x-stile: {admission: {maxRequests: 200, adaptive: true}}`))
	if err != nil {
		log.Fatal(err)
	}
	p := policy.New(c)
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(policy.UnaryServerInterceptor(p)),
		grpc.ChainStreamInterceptor(policy.StreamServerInterceptor(p)))
	defer server.Stop()
	fmt.Println(p.Count(policy.CallShed))
	// Output: 0
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "policy")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(path, []byte("x-stile: {version: v1}"), 0o600); err != nil {
		log.Fatal(err)
	}
	p, err := policy.Open(path, policy.WithLastGoodDir(filepath.Join(dir, "copies")))
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	fmt.Println(p.Status().Version, p.Status().Source)
	// Output: v1 file
}

// channel is a policy.Feed whose versions a program sends itself.
type channel chan string

func (channel) Name() string { return "example://channel" }

func (c channel) Next(ctx context.Context) ([]byte, error) {
	select {
	case text := <-c:
		return []byte(text), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func ExampleFollow() {
	feed := make(channel, 1)
	feed <- "x-stile: {version: v1}"
	p, err := policy.Follow(context.Background(), feed, policy.WithoutLastGood())
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	fmt.Println(p.Status().Version, p.Status().Source)
	// Output: v1 feed
}
