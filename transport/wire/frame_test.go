package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHeaderBytes pins the encoding: a peer of another release must read it.
func TestHeaderBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		h    wire.Header
		want []byte
	}{
		{"zero", wire.Header{}, make([]byte, 16)},
		{
			"call", wire.Header{Len: 0x1234, Type: wire.TypeStream, Flags: wire.FlagCall | wire.FlagHalfClose, Stream: 0x0102030405060708},
			[]byte{0x34, 0x12, 0, 0, 1, 9, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1},
		},
		{
			"largest", wire.Header{Len: wire.MaxPayload, Type: wire.TypeGoAway, Stream: ^uint64(0)},
			[]byte{0xf0, 0xff, 0, 0, 5, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bytes.Repeat([]byte{0xee}, wire.HeaderSize+1)
			wire.PutHeader(got, c.h)
			if !bytes.Equal(got[:wire.HeaderSize], c.want) {
				t.Errorf("encoded % x, want % x", got[:wire.HeaderSize], c.want)
			}
			if got[wire.HeaderSize] != 0xee {
				t.Error("wrote beyond the header")
			}
		})
	}
}

func TestHeaderConstants(t *testing.T) {
	if wire.HeaderSize+wire.MaxPayload != 64<<10 {
		t.Errorf("largest frame is %d bytes", wire.HeaderSize+wire.MaxPayload)
	}
	if wire.VersionMin > wire.VersionMax {
		t.Error("no version is spoken")
	}
}

func TestPutHeaderShort(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a header fits into 15 bytes")
		}
	}()
	wire.PutHeader(make([]byte, wire.HeaderSize-1), wire.Header{})
}

func TestParseHeader(t *testing.T) {
	valid := []byte{8, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0}
	with := func(at int, v ...byte) []byte {
		b := bytes.Clone(valid)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name string
		in   []byte
		want wire.Header
		bad  string // part of the error, if one is due
	}{
		{name: "valid", in: valid, want: wire.Header{Len: 8, Type: wire.TypeStream, Stream: 7}},
		{name: "followed by payload", in: append(bytes.Clone(valid), 1, 2, 3), want: wire.Header{Len: 8, Type: wire.TypeStream, Stream: 7}},
		{name: "all flags", in: with(5, 15), want: wire.Header{Len: 8, Type: wire.TypeStream, Flags: 15, Stream: 7}},
		{name: "empty payload", in: with(0, 0), want: wire.Header{Type: wire.TypeStream, Stream: 7}},
		{name: "largest payload", in: with(0, 0xf0, 0xff), want: wire.Header{Len: wire.MaxPayload, Type: wire.TypeStream, Stream: 7}},
		{name: "last type", in: with(4, 5), want: wire.Header{Len: 8, Type: wire.TypeGoAway, Stream: 7}},
		{name: "nothing", in: nil, bad: "0 bytes"},
		{name: "short", in: valid[:15], bad: "15 bytes"},
		{name: "payload too long", in: with(0, 0xf1, 0xff), bad: "65521"},
		{name: "payload of 4 GiB", in: with(0, 255, 255, 255, 255), bad: "4294967295"},
		{name: "type 0", in: with(4, 0), bad: "type 0"},
		{name: "unknown type", in: with(4, 6), bad: "type 6"},
		{name: "unknown flag", in: with(5, 16), bad: "0x10"},
		{name: "high flag", in: with(5, 0x80), bad: "0x80"},
		{name: "flags on another type", in: with(4, 3, 1), bad: "flags 0x1 on frame type 3"},
		{name: "first reserved byte", in: with(6, 1), bad: "reserved"},
		{name: "second reserved byte", in: with(7, 1), bad: "reserved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := wire.ParseHeader(c.in)
			if c.bad == "" {
				if err != nil || h != c.want {
					t.Errorf("got %+v, %v, want %+v", h, err, c.want)
				}
				return
			}
			if !errors.Is(err, wire.ErrMalformed) || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("got %+v, error %v, want one that wraps ErrMalformed and says %q", h, err, c.bad)
			}
		})
	}
}

func TestHeaderAllocs(t *testing.T) {
	var b [wire.HeaderSize]byte
	if n := testing.AllocsPerRun(100, func() {
		wire.PutHeader(b[:], wire.Header{Len: 1, Type: wire.TypeReset, Stream: 2})
		if _, err := wire.ParseHeader(b[:]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParseHeader checks that what is accepted is within bounds and is the one
// encoding of its header.
func FuzzParseHeader(f *testing.F) {
	f.Add(make([]byte, wire.HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.ParseHeader(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		switch {
		case h.Len > wire.MaxPayload,
			h.Type < wire.TypeStream, h.Type > wire.TypeGoAway,
			h.Flags != 0 && h.Type != wire.TypeStream:
			t.Fatalf("accepted %+v", h)
		}
		enc := make([]byte, wire.HeaderSize)
		wire.PutHeader(enc, h)
		if !bytes.Equal(enc, b[:wire.HeaderSize]) {
			t.Fatalf("% x was read as %+v, which is % x", b[:wire.HeaderSize], h, enc)
		}
	})
}
