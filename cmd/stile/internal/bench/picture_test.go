package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

// elements counts those of a picture by name, and fails if it is not XML.
func elements(t *testing.T, picture string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		if start, ok := token.(xml.StartElement); ok {
			count[start.Name.Local]++
		}
	}
}

func TestSVG(t *testing.T) {
	cells := []cell{{size: 64, callers: 1, pace: time.Millisecond}, {size: 64, callers: 1}, {size: 64, callers: 8}, {size: 1024, callers: 1}}
	p50 := []float64{3, 90}
	r := resultOf(3, cells, []string{"shm", "grpc"}, p50, p50, p50, p50)
	r.Method = `a.B/<script>"&`
	r.Machine.CPU = "<&>"
	picture := r.SVG()
	got := elements(t, picture)
	// 2 ways in 4 cells and 2 quantities, and 2 in the legend; a line where a way has 2
	// cells without pause.
	if got["circle"] != 2*4*2+2 || got["polyline"] != 2*2 {
		t.Errorf("%v", got)
	}
	if strings.Contains(picture, "<script") || strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") {
		t.Errorf("%s", picture)
	}
}

// TestSVGWithoutUsage draws what is known.
func TestSVGWithoutUsage(t *testing.T) {
	r := resultOf(3, echoCells[1:], []string{"grpc"}, []float64{90})
	for i := range r.Rows {
		r.Rows[i].CPU, r.Rows[i].Switches = nil, nil
	}
	if got := elements(t, r.SVG()); got["circle"] != 2 {
		t.Errorf("%v", got)
	}
	if table := r.Table(terminal.Style{}); !strings.Contains(table, "–") {
		t.Errorf("%s", table)
	}
}

func TestTable(t *testing.T) {
	r := resultOf(3, echoCells, []string{"shm", "grpc"}, []float64{60, 120}, []float64{90, 45})
	r.Machine = Machine{CPU: "Z80", Cores: 2, Go: "go1", GRPC: "1.85.0"}
	const want = `Z80, 2 cores, go1, grpc-go 1.85.0
a.B/C: medians of 3 rounds of 1 s, the ways in turns
(…×): times better than gRPC; ±: half the range of p50 over the rounds

64 B, one call a millisecond at most
  way   p50 µs        ±     p99 µs       calls/s  CPU µs/call  switches/call
  shm   60.0 (2.00×)  10 %  180 (2.00×)  16667    120 (2.00×)  1.00 (1.00×)
  grpc  120           10 %  360          8333     240          1.00

64 B, 1 caller
  way   p50 µs        ±     p99 µs       calls/s        CPU µs/call  switches/call
  shm   90.0 (0.50×)  10 %  270 (0.50×)  11111 (0.50×)  180 (0.50×)  1.00 (1.00×)
  grpc  45.0          10 %  135          22222          90.0         1.00

Use gRPC: over all cells shared memory gains nothing here.

Not the best way everywhere:
  64 B, 1 caller: p50 over gRPC is 2.00 times lower than over shared memory
  64 B, 1 caller: gRPC answers 2.00 times the calls/s of shared memory
`
	if got := r.Table(terminal.Style{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
