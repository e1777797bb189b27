package wire

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

const noLimit = 1 << 30

var sampleCall = Call{
	Method: "/shop.catalog.v1.Catalog/Get", Timeout: 250 * time.Millisecond, Authority: "catalog:50051",
	UserAgent: "grpc-go/1.85.0", ContentSubtype: "proto", Encoding: "gzip", AcceptEncoding: "gzip,zstd",
	MD: MD{"a": {"1", "2", ""}, "b-bin": {"\x00\xff"}},
}

func TestSectionsRoundTrip(t *testing.T) {
	if got, err := ParseCall(AppendCall(nil, &sampleCall), noLimit); err != nil || !reflect.DeepEqual(got, sampleCall) {
		t.Errorf("call: %+v, %v", got, err)
	}
	if got, err := ParseCall(AppendCall(nil, &Call{Timeout: -1}), noLimit); err != nil || !reflect.DeepEqual(got, Call{}) {
		t.Errorf("empty call: %+v, %v", got, err)
	}
	traced := sampleCall
	traced.Trace = &Trace{[16]byte{15: 1}, 1 << 63}
	for _, md := range []MD{nil, traced.MD} {
		traced.MD = md
		if got, err := ParseCall(AppendCall(nil, &traced), noLimit); err != nil || !reflect.DeepEqual(got, traced) {
			t.Errorf("call of a trace: %+v, %v", got, err)
		}
	}
	for _, zero := range []*Trace{{Span: 1}, {ID: [16]byte{1}}} {
		if _, err := ParseCall(AppendCall(nil, &Call{Trace: zero}), noLimit); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", zero, err)
		}
	}
	head := Head{ContentSubtype: "json", Encoding: "gzip", MD: MD{"k": {"v"}}}
	if got, err := ParseHead(AppendHead(nil, &head), noLimit); err != nil || !reflect.DeepEqual(got, head) {
		t.Errorf("head: %+v, %v", got, err)
	}
	for _, trailer := range []Trailer{
		{Code: 1<<32 - 1, Message: "snow ☃\n", MD: MD{"k": {"v"}}},
		{Code: 3, MD: MD{"k": {"v"}}, Times: Times{true, 0, math.MaxInt64}},
		{Times: Times{true, 1, 1 << 40}}, {Times: Times{Known: true}}, {},
	} {
		if got, err := ParseTrailer(AppendTrailer(nil, &trailer), noLimit); err != nil || !reflect.DeepEqual(got, trailer) {
			t.Errorf("trailer: %+v, %v", got, err)
		}
	}
	reset := Reset{Code: 1, Message: "gone"}
	if got, err := ParseReset(AppendReset(nil, &reset)); err != nil || got != reset {
		t.Errorf("reset: %+v, %v", got, err)
	}
	if got, err := ParseWindow(AppendWindow(nil, 1<<31)); err != nil || got != 1<<31 {
		t.Errorf("window: %d, %v", got, err)
	}
	b := EndSection(AppendReset(BeginSection([]byte("x")), &reset), 1)
	section, rest, err := CutSection(append(b[1:], "rest"...))
	if err != nil || string(rest) != "rest" {
		t.Fatalf("section: rest %q, %v", rest, err)
	}
	if got, err := ParseReset(section); err != nil || got != reset {
		t.Errorf("section: %+v, %v", got, err)
	}
}

// Every proper prefix of a valid section, and one with a byte more, is refused.
func TestSectionsTruncated(t *testing.T) {
	whole := AppendCall(nil, &sampleCall)
	for i := range whole {
		if _, err := ParseCall(whole[:i], noLimit); !errors.Is(err, ErrMalformed) {
			t.Errorf("first %d of %d bytes: %v, want ErrMalformed", i, len(whole), err)
		}
	}
	if _, err := ParseCall(append(whole, 0), noLimit); !errors.Is(err, ErrMalformed) {
		t.Errorf("one byte too many: %v, want ErrMalformed", err)
	}
	for _, b := range [][]byte{nil, {0, 0, 0}, {1, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 1}} {
		if _, _, err := CutSection(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("section %v: %v, want ErrMalformed", b, err)
		}
	}
}

func FuzzSections(f *testing.F) {
	f.Add(AppendCall(nil, &sampleCall))
	f.Add(AppendTrailer(nil, &Trailer{Code: 5, Message: "m", MD: MD{"k": {"v", "w"}}}))
	f.Add(AppendTrailer(nil, &Trailer{Times: Times{true, 1e6, 1e9}}))
	f.Add([]byte{0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Add(AppendHead(nil, &Head{MD: MD{"k": {"v"}}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCall(b, noLimit); err == nil {
			again, err := ParseCall(AppendCall(nil, &c), noLimit)
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Fatalf("call %+v came back as %+v, %v", c, again, err)
			}
		}
		if c, err := ParseTrailer(b, noLimit); err == nil {
			if again, err := ParseTrailer(AppendTrailer(nil, &c), noLimit); err != nil || !reflect.DeepEqual(c, again) {
				t.Fatalf("trailer %+v came back as %+v, %v", c, again, err)
			}
		}
		_, _ = ParseHead(b, noLimit)
		_, _ = ParseReset(b)
		_, _ = ParseWindow(b)
		if s, rest, err := CutSection(b); err == nil && len(s)+len(rest)+4 != len(b) {
			t.Fatalf("section %d + rest %d of %d bytes", len(s), len(rest), len(b))
		}
	})
}

func TestHeaderListLimit(t *testing.T) {
	md := MD{"key": {"value", "value"}} // 2 x (3 + 5 + 32)
	b := AppendCall(nil, &Call{Method: "/s/m", MD: md})
	if _, err := ParseCall(b, 80); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := ParseCall(b, 79); !errors.Is(err, ErrHeaderList) {
		t.Errorf("over the limit: %v, want ErrHeaderList", err)
	}
}
