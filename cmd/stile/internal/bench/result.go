package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Result is what was measured. Its JSON form is read by other programs: fields are
// added, not renamed.
type Result struct {
	Method string `json:"method"`
	Target string `json:"target,omitempty"`
	// Environment is what turns Stile's way off for others that run in it.
	Environment string   `json:"environment,omitempty"`
	Machine     Machine  `json:"machine"`
	Rounds      int      `json:"rounds"`
	Window      float64  `json:"window_s"`
	Ways        []*Way   `json:"ways"`
	Absent      []Absent `json:"absent,omitempty"`
	Rows        []Row    `json:"rows"`
	Advice      Advice   `json:"advice"`
}

// Machine is where it was measured.
type Machine struct {
	CPU    string `json:"cpu,omitempty"`
	Cores  int    `json:"cores"` // that this process may use
	Kernel string `json:"kernel,omitempty"`
	Go     string `json:"go"`
	GRPC   string `json:"grpc_go"`
}

// Row is one way in one cell.
type Row struct {
	Way       string  `json:"way"`
	Size      *int    `json:"size,omitempty"` // bytes each way; nil: the user's own message
	Callers   int     `json:"callers"`
	Every     float64 `json:"every_ms,omitempty"` // one call at the beginning of each such interval
	P50       Stat    `json:"p50_us"`
	P99       Stat    `json:"p99_us"`
	CallsPerS Stat    `json:"calls_s"`
	CPU       *Stat   `json:"cpu_us,omitempty"`   // per call, of both processes; nil where it is not known
	Switches  *Stat   `json:"switches,omitempty"` // per call, of both processes

	cell cell
}

// Stat is one quantity over the rounds.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// sample is one window, in the units of Row.
type sample struct {
	p50, p99, rate float64
	cpu, switches  float64
	hasUsage       bool
}

func sampleOf(w *window) sample {
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	n := float64(w.times.Count)
	s := sample{p50: micros(w.times.Quantile(0.5)), p99: micros(w.times.Quantile(0.99)), rate: n / w.elapsed.Seconds()}
	if w.used != nil && w.used.CPU > 0 { // less than what can be counted is not known
		s.hasUsage = true
		s.cpu, s.switches = micros(w.used.CPU)/n, float64(w.used.Switches)/n
	}
	return s
}

// statOf returns the median (of an even number the mean of the middle two), least
// and greatest of what get finds in samples, of which there is at least one.
func statOf(samples []sample, get func(sample) float64) Stat {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = get(s)
	}
	slices.Sort(values)
	n := len(values)
	return Stat{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}
}

func (b *bench) result(cells []cell, samples [][][]sample) *Result {
	r := &Result{
		Method: b.method, Target: b.cfg.Target, Environment: b.cfg.Environment, Machine: thisMachine(),
		Rounds: b.cfg.Rounds, Window: b.cfg.Window.Seconds(), Ways: b.ways, Absent: b.absent,
	}
	for i, c := range cells {
		for n, w := range b.ways {
			r.Rows = append(r.Rows, rowOf(w.Name, c, samples[i][n]))
		}
	}
	r.Advice = r.advise()
	return r
}

func rowOf(way string, c cell, samples []sample) Row {
	row := Row{
		Way: way, Callers: c.callers, Every: float64(c.pace) / float64(time.Millisecond), cell: c,
		P50:       statOf(samples, func(s sample) float64 { return s.p50 }),
		P99:       statOf(samples, func(s sample) float64 { return s.p99 }),
		CallsPerS: statOf(samples, func(s sample) float64 { return s.rate }),
	}
	if c.size >= 0 {
		row.Size = &c.size
	}
	if !slices.ContainsFunc(samples, func(s sample) bool { return !s.hasUsage }) {
		cpu := statOf(samples, func(s sample) float64 { return s.cpu })
		switches := statOf(samples, func(s sample) float64 { return s.switches })
		row.CPU, row.Switches = &cpu, &switches
	}
	return row
}

// byCell returns the rows of each cell, in order.
func (r *Result) byCell() [][]Row {
	return slices.Collect(func(yield func([]Row) bool) {
		for rows := r.Rows; len(rows) > 0; rows = rows[len(r.Ways):] {
			if !yield(rows[:len(r.Ways)]) {
				return
			}
		}
	})
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), GRPC: grpc.Version}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil { // Linux only, and only for people
		if _, rest, ok := strings.Cut(string(text), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			m.CPU = strings.TrimLeft(line, "\t :")
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	return m
}

func (m Machine) String() string {
	parts := []string{fmt.Sprintf("%d cores", m.Cores)}
	if m.CPU != "" {
		parts = append([]string{m.CPU}, parts...)
	}
	if m.Kernel != "" {
		parts = append(parts, "Linux "+m.Kernel)
	}
	return strings.Join(append(parts, m.Go, "grpc-go "+m.GRPC), ", ")
}

func (c cell) String() string {
	var parts []string
	if c.size >= 0 {
		parts = append(parts, sizeText(c.size))
	}
	switch {
	case c.pace > 0:
		parts = append(parts, "one call a millisecond at most")
	case c.callers == 1:
		parts = append(parts, "1 caller")
	default:
		parts = append(parts, fmt.Sprintf("%d callers", c.callers))
	}
	return strings.Join(parts, ", ")
}

func sizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
