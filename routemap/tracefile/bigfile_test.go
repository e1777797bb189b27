package tracefile

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	heapmetrics "runtime/metrics"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// TestBigFile: a file of ten times the size takes no more memory, in each format. What is read is made as it is read: 160 MiB, and 8 MiB with -short, as for the race detector.
func TestBigFile(t *testing.T) {
	const slack = 128 << 10 // bytes, of what else the process has
	small := int64(16 << 20)
	if testing.Short() {
		small /= 20
	}
	for name, f := range map[string]bigFile{
		"OTLP":   {begin: `{"resourceSpans":[`, element: resourceOfOTLP, spans: inOne, end: `]}`},
		"Jaeger": {begin: `{"data":[`, element: traceOfJaeger, spans: inOne, end: `],"total":0}`},
		"Zipkin": {begin: `[`, element: spanOfZipkin, spans: 1, end: `]`},
	} {
		t.Run(name, func(t *testing.T) {
			of, tenfold := readBig(t, f, small), readBig(t, f, 10*small)
			t.Logf("at most %d KiB in use for %d MiB, %d KiB for ten times that", of>>10, small>>20, tenfold>>10)
			if tenfold > of+slack {
				t.Errorf("at most %d bytes in use for a file of %d, %d for one of ten times that", of, small, tenfold)
			}
		})
	}
}

// readBig reads a file of a size, in bytes, and returns how many bytes of the heap that had in use at most, of a hundred moments.
func readBig(t *testing.T, f bigFile, size int64) int64 {
	t.Helper()
	f.left, f.each, f.then = size, size/100, size
	before := inUse()
	counts, err := Read(&f, func(s routemap.Span) error {
		if s.Service != "shop" || s.Parent == 0 || s.End <= s.Start {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	if err != nil || counts.Spans != f.elements*f.spans || len(counts.LeftOut) > 0 || f.left > 0 {
		t.Errorf("%d spans of %d elements, left out %v, %d bytes not read, %v", counts.Spans, f.elements, counts.LeftOut, f.left, err)
	}
	return f.most - before
}

// inUse is how many bytes of objects there are that can be reached.
func inUse() int64 {
	runtime.GC()
	s := []heapmetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heapmetrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// bigFile is a file that is there as it is read: elements until there are enough bytes of them.
type bigFile struct {
	begin, end string
	element    func(to []byte, n uint64) []byte
	spans      uint64 // of an element

	left     int64 // bytes, about
	each     int64 // after so many, the heap is looked at
	then     int64 // what is left then
	most     int64 // of the heap's bytes
	elements uint64
	text     []byte // to read next
	buffer   []byte
}

func (f *bigFile) Read(p []byte) (int, error) {
	if f.left <= f.then {
		f.most, f.then = max(f.most, inUse()), f.then-f.each
	}
	if len(f.text) == 0 {
		f.text = f.next(f.buffer[:0])
		f.buffer = f.text
	}
	if len(f.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.text)
	f.text = f.text[n:]
	f.left -= int64(n)
	return n, nil
}

// next is the next element, with what is before it, or the end.
func (f *bigFile) next(to []byte) []byte {
	switch {
	case f.left <= 0:
		to = append(to, f.end...)
		f.end = ""
		return to
	case f.elements == 0:
		to = append(to, f.begin...)
	default:
		to = append(to, ',')
	}
	f.elements++
	return f.element(to, f.elements)
}

// inOne is how many spans a trace has, or a resource.
const inOne = 50

// stack is what nobody asks for, as spans have it.
var stack = strings.Repeat(`at com.example.shop.Catalog.get(Catalog.java:42)\n`, 60)

func resourceOfOTLP(to []byte, n uint64) []byte {
	to = append(to, `{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"scope":{"name":"net/http"},"spans":[`...)
	for i := range uint64(inOne) {
		to = fmt.Appendf(separated(to, i), `{"traceId":"%032x","spanId":"%016x","parentSpanId":"%016x","name":"GET /products/%d","kind":3,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[`+
			`{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"url.full","value":{"stringValue":"http://catalog:8080/products/%d"}},{"key":"exception.stacktrace","value":{"stringValue":"%s"}},{"key":"http.response.status_code","value":{"intValue":"200"}}]}`,
			n, n*inOne+i, n, i, n+1, n+i+1000, n, stack)
	}
	return append(to, `]}]}`...)
}

func traceOfJaeger(to []byte, n uint64) []byte {
	to = fmt.Appendf(to, `{"traceID":"%032x","spans":[`, n)
	for i := range uint64(inOne) {
		to = fmt.Appendf(separated(to, i), `{"traceID":"%032x","spanID":"%016x","operationName":"GET /products/%d","references":[{"refType":"CHILD_OF","traceID":"%032x","spanID":"%016x"}],"startTime":%d,"duration":%d,"processID":"p1",`+
			`"tags":[{"key":"span.kind","type":"string","value":"client"},{"key":"http.status_code","type":"int64","value":200},{"key":"http.url","type":"string","value":"http://catalog:8080/products/%d"}],"logs":[{"timestamp":1,"fields":[{"key":"stack","type":"string","value":"%s"}]}]}`,
			n, n*inOne+i, i, n, n, n+1, i+1000, n, stack)
	}
	return append(to, `],"processes":{"p1":{"serviceName":"shop","tags":[]}}}`...)
}

func spanOfZipkin(to []byte, n uint64) []byte {
	return fmt.Appendf(to, `{"traceId":"%032x","id":"%016x","parentId":"%016x","kind":"CLIENT","name":"get /products/%d","timestamp":%d,"duration":%d,"localEndpoint":{"serviceName":"shop","ipv4":"10.0.0.1"},`+
		`"remoteEndpoint":{"serviceName":"catalog"},"tags":{"http.method":"GET","http.path":"/products/%d","stack":"%s"}}`, n, n, n+1, n%inOne, n+1, n%inOne+1000, n, stack)
}

func separated(to []byte, i uint64) []byte {
	if i > 0 {
		return append(to, ',')
	}
	return to
}

// TestLongValue: a value that is no span is counted, however long it is.
func TestLongValue(t *testing.T) {
	if _, counts, err := all(t, strings.NewReader(`["`+strings.Repeat("x", 1<<20)+`"]`)); !errors.Is(err, ErrUnknown) || counts.LeftOut[NotASpan] != 1 {
		t.Errorf("%+v, %v", counts, err)
	}
}

// TestEndlessValue: a value that does not end is an error.
func TestEndlessValue(t *testing.T) {
	if testing.Short() {
		t.Skip("make test-load reads it, without the race detector")
	}
	endless := io.MultiReader(strings.NewReader(`["`), endlessly('x'))
	if _, _, err := all(t, endless); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("an endless value: %v", err)
	}
}

type endlessly byte

func (e endlessly) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}
