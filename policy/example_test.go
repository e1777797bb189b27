package policy_test

import (
	"fmt"

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
