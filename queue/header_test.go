package queue

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestHeader: what is read of the bytes on the wire is what nats.go reads.
func TestHeader(t *testing.T) {
	for _, raw := range []string{
		"NATS/1.0\r\n\r\n",
		"NATS/1.0\r\nce-type: a.B\r\nce-id:1\r\nce-partitionkey:  k: v  \r\nce-time: \r\ncontent-type: application/protobuf; schema=01\r\nA: 1\r\nA: 2\r\n\r\n",
	} {
		want, err := nats.DecodeHeadersMsg([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		h, parsed := Header{raw: []byte(raw)}, Header{parsed: want}
		if a, b := fmt.Sprintf("%q", h.envelope()), fmt.Sprintf("%q", parsed.envelope()); a != b {
			t.Errorf("%q: %s, want %s", raw, a, b)
		}
		all := h.Map()
		if len(all) != len(want) {
			t.Errorf("%q: %v, want %v", raw, all, want)
		}
		for name := range want {
			if h.Get(name) != want.Get(name) || parsed.Get(name) != want.Get(name) || len(all[name]) != len(want[name]) || all.Get(name) != want.Get(name) {
				t.Errorf("%q: %s: %q %v, want %v", raw, name, h.Get(name), all[name], want[name])
			}
		}
	}
	if (Header{}).Get("a") != "" || len((Header{}).Map()) != 0 {
		t.Error("the zero value has headers")
	}
}

// FuzzHeader: whatever bytes come, what nats.go understands is understood in the same way.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nce-id: 1\r\nce-time:\r\n\r\n"))
	f.Add([]byte("NATS/1.0 408 Timeout\r\nA:b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := Header{raw: raw}
		e := h.envelope()
		if string(e.id) != h.Get(headerEventID) && len(h.Map()[headerEventID]) < 2 {
			t.Errorf("%q: %q and %q", raw, e.id, h.Get(headerEventID))
		}
	})
}

// FuzzReply: no word of a server makes readReply panic.
func FuzzReply(f *testing.F) {
	f.Add("$JS.ACK.orders.g.1.2.3.1700000000000000000.0")
	f.Add("$JS.ACK._.hash.orders.g.1.2.3.1700000000000000000.0.token")
	f.Fuzz(func(t *testing.T, reply string) {
		d := delivery{Reply: []byte(reply)}
		if d.readReply() == nil && (d.times < 0 || d.stored.IsZero()) {
			t.Errorf("%q: %+v", reply, d)
		}
	})
}
