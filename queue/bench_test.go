package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// BenchmarkLayer is what the package itself costs a message of 256 bytes: the envelope and the log's header on one side, reading on the other. The
// marshalling of the message is in it.
func BenchmarkLayer(b *testing.B) {
	top := &Topic[text]{name: "orders", schema: "google.protobuf.StringValue", source: "stile:topic:orders", key: func(m text) string { return "customer" }}
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
	d := delivery{fakeMsg{msg: msg}, &jetstream.MsgMetadata{}}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := top.read(d, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fakeMsg is a message of no server.
type fakeMsg struct {
	jetstream.Msg
	msg *nats.Msg
}

func (m fakeMsg) Headers() nats.Header { return m.msg.Header }
func (m fakeMsg) Data() []byte         { return m.msg.Data }
