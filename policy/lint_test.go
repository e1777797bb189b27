package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// pricing is a service with a method of each kind.
func pricing(t testing.TB) Methods {
	t.Helper()
	message := func(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	field := func(name string, number int32, typ descriptorpb.FieldDescriptorProto_Type, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{
			Name: &name, Number: &number, Type: &typ, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
		if typeName != "" {
			f.TypeName = &typeName
		}
		return f
	}
	method := func(name string, level descriptorpb.MethodOptions_IdempotencyLevel, stream bool) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: proto.String(".shop.Ask"), OutputType: proto.String(".shop.Answer"), ServerStreaming: &stream,
			Options: &descriptorpb.MethodOptions{IdempotencyLevel: &level},
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("shop.proto"), Package: proto.String("shop"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("Item", field("id", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, "")),
			message("Ask", field("sku_name", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
				field("item", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".shop.Item")),
			message("Answer"),
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Pricing"),
			Method: []*descriptorpb.MethodDescriptorProto{
				method("Quote", descriptorpb.MethodOptions_NO_SIDE_EFFECTS, false),
				method("Set", descriptorpb.MethodOptions_IDEMPOTENT, false),
				method("Add", descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN, false),
				method("Watch", descriptorpb.MethodOptions_NO_SIDE_EFFECTS, true),
			},
		}},
	}
	f, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := new(protoregistry.Files)
	if err := files.RegisterFile(f); err != nil {
		t.Fatal(err)
	}
	return MethodsOf(files)
}

func TestLint(t *testing.T) {
	methods := pricing(t)
	const retry = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}"
	entry := func(method, body string) string {
		return fmt.Sprintf("methodConfig: [{name: [{service: shop.Pricing%s}], %s}]", method, body)
	}
	quote, set, add, watch := ", method: Quote", ", method: Set", ", method: Add", ", method: Watch"
	for _, c := range []struct {
		name, text string
		methods    Methods
		want       string // rule and a part of the text of the only finding; empty: none
	}{
		{"nothing", "{}", methods, ""},
		{"good", entry(quote, "timeout: 1s, "+retry), methods, ""},
		{"no timeout", entry(quote, retry), methods, "no-timeout: has no timeout; the default, 10s"},
		{"a queue longer than a call", "x-stile: {admission: {maxRequests: 9, maxQueueDelay: 1s}}\n" + entry(quote, "timeout: 1s"), methods, "queue-outlasts-attempts: is 1s, but an attempt of shop.Pricing/Quote has 1s"},
		{"a queue longer than an attempt", "x-stile: {admission: {maxRequests: 9, maxQueueDelay: 0.4s}}\n" + entry(quote, "timeout: 1s, "+strings.Replace(retry, "[UNAVAILABLE]", "[UNAVAILABLE, DEADLINE_EXCEEDED]", 1)), methods, "queue-outlasts-attempts: is 0.4s, but an attempt of shop.Pricing/Quote has 0.333333333s"},
		{"a number that nobody needs", "x-stile: {admission: {maxRequests: 1000000000000}}\n" + entry(quote, "timeout: 1s"), methods, "unusual: is 1000000000000, which is probably a mistake: more than 1000000 is of no use"},
		{"a timeout of days", entry(quote, "timeout: 90000s"), methods, "unusual: is 90000s, which is probably a mistake: more than 86400s is of no use"},
		{"more hedges than are made", "x-stile: {retryBudget: {}}\n" + entry(quote, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s, maxAttempts: 99}}"), methods, "unusual: is 99, which is probably a mistake: more than 5 is of no use"},
		{"a queue that fits", "x-stile: {admission: {maxRequests: 9}}\n" + entry(quote, "timeout: 1s"), methods, ""},
		{"no timeout at all", "methodConfig: [{name: [{}], x-stile: {owner: me}}]", nil, "no-timeout: "},
		{"wait without deadline", entry(quote, "waitForReady: true"), methods, "wait-without-deadline: "},
		{"wait with deadline", entry(quote, "waitForReady: true, timeout: 1s"), methods, ""},

		{"retry what may not run twice", entry(add, "timeout: 1s, "+retry), methods, "retry-not-idempotent: shop.Pricing/Add is retried, and is not marked IDEMPOTENT"},
		{"retry what is idempotent", entry(set, "timeout: 1s, "+retry), methods, ""},
		{"retry by service", entry("", "timeout: 1s, "+retry), methods, "retry-not-idempotent: shop.Pricing/Add is retried"},
		{"retry of all", "methodConfig: [{name: [{}], timeout: 1s, " + retry + "}]", methods, "retry-not-idempotent: shop.Pricing/Add is retried"},
		{"retry with more hedges", "x-stile: {retryBudget: {}}\n" + entry(quote, "timeout: 1s, x-stile: {perTryTimeout: 0.3s, hedge: {hedgingDelay: 0.1s, maxAttempts: 5}}, "+retry), methods, "but 5 attempts of 0.3s with their backoffs take up to 1.9s"},
		{"hedges that begin for ever after", "x-stile: {retryBudget: {}}\n" + entry(quote, "timeout: 1s, x-stile: {perTryTimeout: 0.3s, hedge: {hedgingDelay: 9223372036s}}"), methods, "attempts-do-not-fit"},
		{"retry of the unknown", entry(quote, "timeout: 1s, "+retry), nil, "show lint the .proto files"},
		{"retry as the file says", entry(add, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT}, "+retry), nil, ""},
		{"the file is nearer than the proto", entry(quote, "timeout: 1s, x-stile: {idempotency: IDEMPOTENCY_UNKNOWN}, "+retry), methods, "retry-not-idempotent"},

		{"attempts that do not fit", entry(quote, "timeout: 1s, x-stile: {perTryTimeout: 0.4s}, "+retry), methods, "attempts-do-not-fit: is 1s, but 3 attempts of 0.4s with their backoffs take up to 1.4s"},
		{"attempts that fit", entry(quote, "timeout: 1.4s, x-stile: {perTryTimeout: 0.4s}, "+retry), methods, ""},
		{"an attempt longer than the call", entry(quote, "timeout: 1s, x-stile: {perTryTimeout: 2s}"), methods, "attempts-do-not-fit: is 2s, longer than the timeout of the call, 1s"},
		{"backoff", entry(quote, "timeout: 1s, retryPolicy: {maxAttempts: 2, initialBackoff: 1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [ABORTED]}"), methods, "backoff-order"},

		{"hedge without budget", entry(quote, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s}}"), methods, "hedge-without-budget"},
		{"hedge with throttling", "retryThrottling: {maxTokens: 10, tokenRatio: 0.1}\n" + entry(quote, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s}}"), methods, ""},
		{"hedge with budget", "x-stile: {retryBudget: {budgetPercent: 5}}\n" + entry(quote, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s}}"), methods, ""},
		{"hedge what may not run twice", "x-stile: {retryBudget: {}}\n" + entry(add, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s}}"), methods, "hedge-not-idempotent"},
		{"hedge a stream", "x-stile: {retryBudget: {}}\n" + entry(watch, "timeout: 1s, x-stile: {hedge: {hedgingDelay: 0.1s}}"), methods, "stream-not-unary: is for unary methods, and shop.Pricing/Watch is a stream"},
		{"grpc-go passes over", "x-stile: {retryBudget: {}}\n" + entry(quote, "timeout: 1s, hedgingPolicy: {maxAttempts: 2}"), methods, "passed-over: is passed over by grpc-go"},
		{"nobody's key", "colour: blue", nil, "passed-over: is not a key of gRPC's service config"},

		{"cache", entry(quote, "timeout: 1s, x-stile: {cache: {ttl: 1s, keyFields: [sku_name, item.id, skuName]}}"), methods, ""},
		{"cache with side effects", entry(set, "timeout: 1s, x-stile: {cache: {ttl: 1s}}"), methods, "cache-with-side-effects: shop.Pricing/Set is cached, and is not marked NO_SIDE_EFFECTS"},
		{"cache a stream", entry(watch, "timeout: 1s, x-stile: {cache: {ttl: 1s}}"), methods, "stream-not-unary"},
		{"coalesce with side effects", entry(add, "timeout: 1s, x-stile: {coalesce: true}"), methods, "coalesce-with-side-effects"},
		{"a key that is no field", entry(quote, "timeout: 1s, x-stile: {cache: {ttl: 1s, keyFields: [sku]}}"), methods, "unknown-field: the request of shop.Pricing/Quote has no field sku"},
		{"a key in what is no message", entry(quote, "timeout: 1s, x-stile: {cache: {ttl: 1s, keyFields: [item.id.x]}}"), methods, "unknown-field"},
		{"stale without fallback", entry(quote, "timeout: 1s, x-stile: {cache: {ttl: 1s, staleIfError: 5s}}"), methods, "stale-unused"},
		{"stale with fallback", entry(quote, "timeout: 1s, x-stile: {cache: {ttl: 1s, staleIfError: 5s}, fallback: {cache: true}}"), methods, ""},

		{"no such method", entry(", method: Qoute", "timeout: 1s"), methods, "unknown-name: no method is named shop.Pricing/Qoute (did you mean shop.Pricing/Quote?)"},
		{"no such service", "methodConfig: [{name: [{service: shop.Prices}], timeout: 1s}]", methods, "unknown-name: no service is named shop.Prices"},
		{"no entry for nothing", "methodConfig: [{timeout: 1s}]", methods, "passed-over: has no name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range Lint(parse(t, c.text), c.methods) {
				if f.Line == 0 || f.Severity == "" {
					t.Errorf("without a place or severity: %+v", f)
				}
				got = append(got, f.Rule+": "+f.Text)
			}
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("%s\nfound %q\nwant  %q", c.text, got, c.want)
			}
		})
	}
}

// An entry answers only for methods that no more specific one takes away.
func TestLintMostSpecific(t *testing.T) {
	found := Lint(parse(t, `
methodConfig:
- name: [{service: shop.Pricing}]
  timeout: 1s
  retryPolicy: {maxAttempts: 2, initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}
- name: [{service: shop.Pricing, method: Add}]
  timeout: 1s
`), pricing(t))
	if len(found) > 0 {
		t.Errorf("found %v", found)
	}
	found = Lint(parse(t, `
methodConfig:
- name: [{}]
  timeout: 1s
  retryPolicy: {maxAttempts: 2, initialBackoff: 0.1s, maxBackoff: 0.1s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}
- name: [{service: shop.Pricing}]
  timeout: 1s
`), pricing(t))
	if len(found) > 0 {
		t.Errorf("found %v where every method known has an entry of its own", found)
	}
}

// TestReadme: nothing is wrong with the policy that the README shows.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```yaml\n")[1:]
	if len(blocks) == 0 {
		t.Error("no policy")
	}
	for _, b := range blocks {
		b, _, _ = strings.Cut(b, "```")
		for _, f := range Lint(parse(t, b), nil) {
			if f.Severity == SeverityError {
				t.Error(f.Error())
			}
		}
	}
}
