package stile

import (
	"bytes"
	"errors"
	"testing"

	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/transport"
)

// vtPayload is a message with vtprotobuf's methods, which it counts.
type vtPayload struct {
	*pb.Payload
	marshals, unmarshals *int
	fail                 error
}

func (p vtPayload) SizeVT() int { return proto.Size(p.Payload) }

func (p vtPayload) MarshalToSizedBufferVT(b []byte) (int, error) {
	if p.fail != nil {
		return 0, p.fail
	}
	*p.marshals++
	data, err := proto.Marshal(p.Payload)
	copy(b[len(b)-len(data):], data)
	return len(data), err
}

func (p vtPayload) UnmarshalVT(b []byte) error {
	*p.unmarshals++
	return proto.UnmarshalOptions{Merge: true}.Unmarshal(b, p.Payload)
}

// oneLoan is a lender with memory for one message.
type oneLoan struct {
	transport.Lender
	room     []byte
	returned int
}

func (l *oneLoan) Lend(n int) (transport.Loan, bool) {
	if n > len(l.room) {
		return transport.Loan{}, false
	}
	return transport.Loan{B: l.room[:n:n]}, true
}

func (l *oneLoan) Return(transport.Loan) { l.returned++ }

// Messages with vtprotobuf's methods are written and read by them, small ones into
// buffers and large ones into lent memory.
func TestVTProtobuf(t *testing.T) {
	for _, size := range []int{0, 100, 100_000} {
		var marshals, unmarshals int
		m := vtPayload{Payload: payload(size), marshals: &marshals, unmarshals: &unmarshals}
		l := &oneLoan{room: make([]byte, 200_000)}
		k := packer{codec: protoCodec, lender: l}
		var p packed
		if err := k.pack(&p, m); err != nil {
			t.Fatal(err)
		}
		if want, _ := proto.Marshal(m.Payload); !bytes.Equal(p.data, want) || marshals != 1 || (p.lender != nil) != (size >= minLoan) {
			t.Errorf("%d bytes: %d bytes packed, %d marshals, lent: %v", size, len(p.data), marshals, p.lender != nil)
		}
		got := vtPayload{Payload: payload(7), marshals: &marshals, unmarshals: &unmarshals}
		u := unpacker{codec: protoCodec, limit: 1 << 20}
		if _, err := u.unpack(&message{data: p.data}, got); err != nil || !proto.Equal(got.Payload, m.Payload) || unmarshals != 1 {
			t.Errorf("%d bytes: %d bytes unpacked over 7, %d unmarshals, %v", size, len(got.GetBody()), unmarshals, err)
		}
		p.free()
	}
}

// A message that cannot be marshalled, or panics, leaves no loan behind.
func TestLoanGivenBack(t *testing.T) {
	l := &oneLoan{room: make([]byte, 200_000)}
	k := packer{codec: protoCodec, lender: l}
	var p packed
	m := vtPayload{Payload: payload(100_000), fail: errors.New("no")}
	if err := k.pack(&p, m); err == nil || l.returned != 1 {
		t.Errorf("%v, %d loans returned", err, l.returned)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		m.fail = nil // without a counter it panics
		_ = k.pack(&p, m)
	}()
	if l.returned != 2 || p.lender != nil {
		t.Errorf("%d loans returned after a panic", l.returned)
	}
}
