package queue

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// BenchmarkLayer is what the package itself costs a message of 256 bytes: the envelope and the log's header on one side, reading on the other. The
// marshalling of the message is in it.
func BenchmarkLayer(b *testing.B) {
	top := &Topic[text]{name: "orders", address: addressOf("orders", "google.protobuf.StringValue", "0123456789abcdef"), key: func(m text) string { return "customer" }}
	m := wrapperspb.String(strings.Repeat("x", 256))
	now := time.Now()
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			msg, err := top.envelope(m, publishing{}, now)
			if err != nil {
				b.Fatal(err)
			}
			_ = wireHeader(msg.Header)
		}
	})
	msg, err := top.envelope(m, publishing{}, now)
	if err != nil {
		b.Fatal(err)
	}
	msg.Reply = "$JS.ACK.bench.bench.1.7.7.1700000000000000000.0"
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d, err := delivered(msg)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := top.read(d, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
