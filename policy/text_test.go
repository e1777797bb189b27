package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func TestExplain(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct{ file, method string }{
		{"shop.yaml", "/shop.pricing.v1.Pricing/Quote"},
		{"shop.yaml", "/shop.catalog.v1.Catalog/List"},
		{"shop.yaml", "/other.Service/Method"},
		{"anchors.yaml", "/a.B/M"},
		{"nothing.yaml", "/a.B/M"},
	} {
		config := load(t, c.file)
		e := config.Effective(c.method, nil)
		fmt.Fprintf(&b, "%s %s: %q, which names %s\n", c.file, c.method, e.Entry, e.Matched)
		for _, s := range config.Explain(e) {
			fmt.Fprintf(&b, "  %s = %s (%s, line %d)\n", s.Key, s.Value, s.Source, s.Line)
		}
	}
	golden(t, "explain", b.String())
}

// What explain says is in a line is there.
func TestExplainLines(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "valid", "shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	c := load(t, "shop.yaml")
	for _, s := range c.Explain(c.Effective("/shop.pricing.v1.Pricing/Quote", nil)) {
		last := s.Key[strings.LastIndex(s.Key, ".")+1:]
		if s.Source == "file" && !strings.Contains(lines[s.Line-1], last+":") {
			t.Errorf("%s is not in line %d: %s", s.Key, s.Line, lines[s.Line-1])
		}
	}
}

func TestExplainProto(t *testing.T) {
	methods := pricing(t)
	c := parse(t, "methodConfig: [{name: [{}], timeout: 1s}]")
	got := fmt.Sprint(c.Explain(c.Effective("/shop.Pricing/Set", methods["/shop.Pricing/Set"])))
	if !strings.Contains(got, "{x-stile.idempotency IDEMPOTENT proto ") {
		t.Errorf("explained as %s", got)
	}
}

func TestDiff(t *testing.T) {
	const before = `
retryThrottling: {maxTokens: 100, tokenRatio: 0.1}
methodConfig:
- name: [{service: shop.Pricing, method: Quote}]
  timeout: 0.5s
  retryPolicy: {maxAttempts: 3, initialBackoff: 0.02s, maxBackoff: 0.02s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}
  x-stile: {perTryTimeout: 0.08s, breaker: {failureRateThreshold: 50}}
- name: [{service: shop.Pricing}]
  timeout: 1s
`
	const after = `
# the same in other words, and some changes
x-stile: {defaultTimeout: 5s, admission: {maxRequests: 50, adaptive: true}}
methodConfig:
- name: [{service: shop.Pricing}]
  timeout: 1.0s
- name: [{service: shop.Pricing, method: Quote}]
  timeout: 0.5s
  retryPolicy: {maxAttempts: 5, initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE, ABORTED]}
  x-stile: {perTryTimeout: 0.08s, coalesce: true, cache: {ttl: 2s, keyFields: [sku_name]}, limit: {maxRequests: 10, adaptive: true}, transport: {prefer: [shm]}, slo: {latency: 0.1s}}
- name: [{service: shop.Pricing, method: Set}]
  timeout: 2s
`
	a, b := parse(t, before), parse(t, after)
	var out strings.Builder
	for _, methods := range []Methods{nil, pricing(t)} {
		fmt.Fprintf(&out, "%d methods known\n", len(methods))
		for _, c := range Diff(a, b, methods) {
			fmt.Fprintf(&out, "%q: %s\n", c.Name, c)
		}
	}
	golden(t, "diff", out.String())
	for _, c := range []*Config{a, b} {
		if d := Diff(c, c, nil); d != nil {
			t.Errorf("a file differs from itself in %v", d)
		}
	}
}

func TestServiceConfig(t *testing.T) {
	c := load(t, "shop.yaml")
	vanilla := string(c.ServiceConfig(true))
	if strings.Contains(vanilla, extensionKey) {
		t.Errorf("vanilla has x-stile:\n%s", vanilla)
	}
	if !strings.Contains(string(c.ServiceConfig(false)), extensionKey) {
		t.Error("x-stile is lost")
	}
	if got := string(load(t, "grpc.json").ServiceConfig(true)); !strings.Contains(got, `"futureKey"`) {
		t.Errorf("a key that is not ours is lost:\n%s", got)
	}
}

// The schema takes what we take, and refuses most of what we refuse.
func TestSchema(t *testing.T) {
	golden(t, "schema", string(Schema()))
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	valid := func(file string) error {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		v, err = jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	for _, file := range []string{"shop.yaml", "nothing.yaml"} {
		if err := valid(filepath.Join("testdata", "valid", file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	var missed []string
	files := filesIn(t, "malformed")
	for _, file := range files {
		if valid(file) == nil {
			missed = append(missed, filepath.Base(file))
		}
	}
	golden(t, "schema-misses", strings.Join(missed, "\n")+"\n")
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "acb", 1}, {"timeout", "timout", 1}, {"versoin", "version", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
