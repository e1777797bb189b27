package wire

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// sameAsParseCall parses b both ways and compares.
func sameAsParseCall(t *testing.T, c *CallCache, b []byte, limit int) {
	t.Helper()
	want, werr := ParseCall(b, limit)
	got, err := c.Parse(b, limit)
	if (err == nil) != (werr == nil) {
		t.Fatalf("error %v, ParseCall has %v", err, werr)
	}
	if err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, ParseCall has %+v", got, want)
	}
}

func TestCallCache(t *testing.T) {
	var c CallCache
	for round := range 3 {
		for m := range callCacheSize + 2 {
			call := Call{Method: fmt.Sprintf("/s/m%d", m), Authority: "a", UserAgent: "u", AcceptEncoding: "gzip"}
			for _, timeout := range []time.Duration{0, 1, time.Second, 1<<63 - 1} {
				for _, md := range []MD{nil, {"k": {"v", "w"}}, {"x-bin": {"\x00"}, "y": {""}}} {
					call.Timeout, call.MD = timeout, md
					sameAsParseCall(t, &c, AppendCall(nil, &call), noLimit)
				}
			}
			if round == 1 {
				call.Encoding = "gzip" // another call of the same method
				sameAsParseCall(t, &c, AppendCall(nil, &call), noLimit)
			}
		}
	}
	// One method's name begins with another's.
	for _, m := range []string{"/a", "/ab", "/a", "", "/ab"} {
		sameAsParseCall(t, &c, AppendCall(nil, &Call{Method: m, Authority: "ab"}), noLimit)
	}
	traced := sampleCall
	traced.Trace = &Trace{[16]byte{1}, 2}
	for _, md := range []MD{nil, traced.MD} {
		traced.MD = md
		b := AppendCall(nil, &traced)
		for i := range b {
			sameAsParseCall(t, &c, b[:i], noLimit)
		}
		sameAsParseCall(t, &c, b, noLimit)
		sameAsParseCall(t, &c, b, 10)
		sameAsParseCall(t, &c, AppendCall(nil, &sampleCall), noLimit) // of no trace, and not that of the one before
	}
	b := AppendCall(nil, &sampleCall)
	for range 2 {
		sameAsParseCall(t, &c, b, noLimit)
		sameAsParseCall(t, &c, b, 10) // metadata over the limit
		for i := range b {
			sameAsParseCall(t, &c, b[:i], noLimit)
		}
		sameAsParseCall(t, &c, append(b, 0), noLimit)
	}
}

func TestCallCacheBounded(t *testing.T) {
	var c CallCache
	for i := range 100 {
		call := Call{Method: strings.Repeat("m", i*100)}
		if _, err := c.Parse(AppendCall(nil, &call), noLimit); err != nil {
			t.Fatal(err)
		}
	}
	size := 0
	for _, e := range c.entries {
		size += len(e.method) + len(e.fixed)
	}
	if size > callCacheSize*callCacheBytes {
		t.Errorf("%d bytes are kept", size)
	}
}

func TestCallCacheAllocs(t *testing.T) {
	var c CallCache
	b := AppendCall(nil, &Call{Method: "/shop.catalog.v1.Catalog/Get", Timeout: time.Second, Authority: "catalog"})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := c.Parse(b, noLimit); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCallCache feeds pairs of sections to one cache: it must agree with ParseCall
// whatever came before.
func FuzzCallCache(f *testing.F) {
	b := AppendCall(nil, &sampleCall)
	f.Add(b, b)
	f.Add(AppendCall(nil, &Call{Method: "/a"}), AppendCall(nil, &Call{Method: "/a", Timeout: 300}))
	traced := sampleCall
	traced.Trace = &Trace{[16]byte{1}, 2}
	f.Add(b, AppendCall(nil, &traced))
	f.Add(b, append([]byte{0x80 | 5, 0}, "/a/b/"...))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var c CallCache
		for _, s := range [][]byte{a, b, a} {
			sameAsParseCall(t, &c, s, noLimit)
		}
	})
}

// What is kept of a call does not hold on to the section it came in.
func TestCallCacheMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cache := new(CallCache)
	for i := range 8 {
		call := Call{Method: fmt.Sprintf("/a/%d", i), MD: MD{"k": {strings.Repeat("x", 4<<20)}}}
		if _, err := cache.Parse(AppendCall(nil, &call), 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("the cache keeps %d KiB", grown>>10)
	}
	runtime.KeepAlive(cache)
}
