package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

// samplesOf makes rounds with these medians; each round is off by a tenth.
func samplesOf(p50 float64) []sample {
	var list []sample
	for _, f := range []float64{0.9, 1, 1.1} {
		list = append(list, sample{p50: p50 * f, p99: 3 * p50 * f, rate: 1e6 / (p50 * f), cpu: 2 * p50 * f, switches: 1, hasUsage: true})
	}
	return list
}

// resultOf is what was measured when the ways had these p50 in each cell.
func resultOf(rounds int, cells []cell, ways []string, p50 ...[]float64) *Result {
	b := &bench{cfg: Config{Rounds: rounds, Window: time.Second}, method: "a.B/C"}
	for _, name := range ways {
		b.ways = append(b.ways, &Way{Name: name})
	}
	samples := make([][][]sample, len(cells))
	for i := range cells {
		for _, v := range p50[i] {
			samples[i] = append(samples[i], samplesOf(v))
		}
	}
	return b.result(cells, samples)
}

var echoCells = []cell{{size: 64, callers: 1, pace: time.Millisecond}, {size: 64, callers: 1}}

func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		name     string
		cells    []cell
		ways     []string
		p50      [][]float64
		use      string
		says     string
		findings []string
	}{
		{"a gain", echoCells, []string{"shm", "unix", "grpc-unix", "grpc-tcp"}, [][]float64{{50, 90, 100, 120}, {3, 60, 90, 100}},
			"shm", "Use shared memory; stile.NewClient does by itself. Against gRPC over a unix socket p50 is 2.00 to 30.0 times lower, and a call takes 2.00 to 30.0 times less CPU.", nil},
		{"the same way twice", echoCells, []string{"shm", "grpc"}, [][]float64{{50, 52}, {90, 86}},
			"shm", "Shared memory and gRPC do not differ by more than these rounds do among themselves", nil},
		{"a loss", echoCells, []string{"shm", "grpc"}, [][]float64{{50, 51}, {90, 45}},
			"grpc", "Use gRPC: over all cells shared memory gains nothing here.",
			[]string{"64 B, 1 caller: p50 over gRPC is 2.00 times lower than over shared memory", "64 B, 1 caller: gRPC answers 2.00 times the calls/s of shared memory"}},
		{"another of ours is better", echoCells[:1], []string{"shm", "unix", "grpc"}, [][]float64{{90, 45, 200}},
			"shm", "Against gRPC p50 is 2.22 times lower", []string{"64 B, one call a millisecond at most: p50 over Stile's unix socket is 2.00 times lower than over shared memory"}},
		{"a lower median and a longer tail", echoCells[1:], []string{"shm", "grpc"}, [][]float64{{90, 45}},
			"grpc", "", []string{"64 B, 1 caller: gRPC answers 2.00 times the calls/s of shared memory"}},
		{"a handler that takes its time", []cell{{size: -1, callers: 1}}, []string{"shm", "grpc"}, [][]float64{{100_000, 100_100}},
			"shm", "Shared memory and gRPC do not differ by more than these rounds do among themselves: what costs is elsewhere.", nil},
		{"a part of a call", []cell{{size: -1, callers: 1}}, []string{"shm", "grpc"}, [][]float64{{500, 1000}},
			"shm", "Of the 1000 µs that a call takes over gRPC with one caller, 500 (50 %) are saved; what is left is the handler's, the messages' and Stile's.", nil},
		{"a gain and a loss", append(echoCells, cell{size: 64, callers: 8}), []string{"shm", "grpc"}, [][]float64{{50, 200}, {3, 90}, {90, 45}},
			"shm", "Against gRPC p50 is 4.00 to 30.0 times lower, and a call takes 4.00 to 30.0 times less CPU, but in 1 of 3 cells p50 is higher, up to 2.00 times.",
			[]string{"64 B, 8 callers: p50 over gRPC is 2.00 times lower than over shared memory", "64 B, 8 callers: gRPC answers 2.00 times the calls/s of shared memory"}},
		{"no shared memory", echoCells[:1], []string{"unix", "grpc"}, [][]float64{{50, 100}},
			"unix", "Use Stile's unix socket", nil},
	} {
		r := resultOf(3, c.cells, c.ways, c.p50...)
		if strings.HasSuffix(c.name, "longer tail") {
			r.Rows[1].P99 = Stat{1e6, 1e6, 1e6}
		}
		a := r.advise()
		if why := strings.Join(a.Why, " "); a.Use != c.use || !strings.Contains(why, c.says) {
			t.Errorf("%s: use %q: %s\nwant %q: %s", c.name, a.Use, why, c.use, c.says)
		}
		if strings.Join(a.Findings, "\n") != strings.Join(c.findings, "\n") {
			t.Errorf("%s: findings %q, want %q", c.name, a.Findings, c.findings)
		}
	}
}

func TestAdviceWithoutLocalWay(t *testing.T) {
	b := &bench{cfg: Config{Rounds: 1}, ways: []*Way{{Name: "grpc"}}, absent: []Absent{{"unix", "no door"}, {"shm", "no door"}}}
	a := b.result(echoCells[1:], [][][]sample{{samplesOf(90)}}).Advice
	if got := strings.Join(a.Why, " "); a.Use != "grpc" || got != "Use gRPC: there is no local way here. No door." {
		t.Errorf("use %q: %s", a.Use, got)
	}
	few := resultOf(1, echoCells[1:], []string{"shm", "grpc"}, []float64{90, 3}).Advice
	if len(few.Findings) > 0 {
		t.Errorf("one round finds %q", few.Findings)
	}
	if got := strings.Join(few.Why, " "); !strings.Contains(got, "fewer than 3 rounds") {
		t.Errorf("one round: %s", got)
	}
}

func TestUnknownUsage(t *testing.T) {
	w := &window{elapsed: time.Second}
	w.times.Record(time.Millisecond)
	known := &window{elapsed: time.Second, used: &measure.Usage{CPU: 3 * time.Millisecond, Switches: 4}}
	known.times.Record(time.Millisecond)
	known.times.Record(time.Millisecond)
	row := rowOf("grpc", echoCells[0], []sample{sampleOf(w), sampleOf(known)})
	if row.CPU != nil || row.Switches != nil {
		t.Errorf("a round of unknown usage: CPU %v, switches %v", row.CPU, row.Switches)
	}
	row = rowOf("grpc", echoCells[0], []sample{sampleOf(known)})
	if row.CPU == nil || row.CPU.Median != 1500 || row.Switches.Median != 2 || row.CallsPerS.Median != 2 {
		t.Errorf("%+v", row)
	}
}

// What turns Stile off in this environment is said.
func TestAdviceWithStileOff(t *testing.T) {
	r := resultOf(3, echoCells[1:], []string{"shm", "grpc"}, []float64{3, 90})
	r.Environment = "STILE=off"
	if got := strings.Join(r.advise().Why, " "); !strings.Contains(got, "stile.NewClient would, but for STILE=off in this environment") {
		t.Errorf("%s", got)
	}
}
