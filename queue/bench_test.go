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
		var header []byte
		for b.Loop() {
			msg, err := top.envelope(m, publishing{}, now)
			if err != nil {
				b.Fatal(err)
			}
			header = appendHeader(header[:0], msg.Header)
		}
	})
	msg, err := top.envelope(m, publishing{}, now)
	if err != nil {
		b.Fatal(err)
	}
	reply, header := []byte("$JS.ACK.bench.bench.1.7.7.1700000000000000000.0"), wireHeader(msg.Header)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := delivery{Reply: reply, Header: Header{raw: header}, Data: msg.Data}
			if err := d.readReply(); err != nil {
				b.Fatal(err)
			}
			if _, err := top.read(d, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
