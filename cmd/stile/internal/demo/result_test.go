package demo

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

// past is a stretch of a second in which requests took what is given.
func past(measured bool, used measure.Usage, times ...time.Duration) *stretch {
	w := newWindow(nil)
	for _, d := range times {
		w.times.Record(d)
	}
	w.begun = time.Now()
	w.ended = w.begun.Add(time.Second)
	return &stretch{window: w, measured: measured, before: measure.Usage{CPU: time.Hour, Switches: 1000}, after: measure.Usage{CPU: time.Hour + used.CPU, Switches: 1000 + used.Switches}}
}

func example() *demo {
	const ms = time.Millisecond
	d := &demo{}
	d.plain = side{name: "grpc-go", most: []float64{100, 200}, stretches: []*stretch{
		past(false, measure.Usage{CPU: time.Hour, Switches: 1 << 30}, time.Hour),
		past(true, measure.Usage{CPU: 40 * ms, Switches: 400}, 8*ms, 8*ms),
		past(true, measure.Usage{CPU: 20 * ms, Switches: 200}, 4*ms, 4*ms),
		past(true, measure.Usage{CPU: 90 * ms, Switches: 900}, 9*ms, 90*ms),
	}}
	d.stile = side{name: "Stile", most: []float64{600}, stretches: []*stretch{
		past(true, measure.Usage{CPU: 10 * ms, Switches: 10}, 2*ms, 16*ms),
	}}
	return d
}

func TestResultTakesMedians(t *testing.T) {
	r := example().result(7)
	if r.Windows != 3 || r.Requests != 9 || r.Failed != 0 || r.Plain.Requests != 6 {
		t.Errorf("%+v", r)
	}
	about := func(name string, got, want float64) {
		t.Helper()
		if got < want*0.97 || got > want*1.03 {
			t.Errorf("%s %v, want %v", name, got, want)
		}
	}
	about("p50", r.Plain.P50, 8)
	about("p99", r.Plain.P99, 8)
	about("CPU", *r.Plain.CPU, 20)
	about("switches", *r.Plain.Switches, 200)
	about("most", r.Plain.Most, 150)
	about("requests/s", r.Plain.PerSecond, 2)
	about("ratio of p50", r.Ratio.P50, 4)
	about("ratio of p99", r.Ratio.P99, 0.5)
	about("ratio of CPU", *r.Ratio.CPU, 4)
	about("ratio of switches", *r.Ratio.Switches, 40)
	about("ratio of most", r.Ratio.Most, 4)
}

func TestResultTellsFailures(t *testing.T) {
	d := example()
	w := d.plain.stretches[0] // not measured: it counts all the same
	w.failed, w.err = 2, errOverflow
	r := d.result(7)
	if r.Failed != 2 || r.Plain.Failed != 2 || r.Requests != 11 || !strings.Contains(r.Failure, errOverflow.Error()) {
		t.Errorf("%+v", r)
	}
	if text := r.Table(terminal.Style{}); !strings.Contains(text, "2 of 11 requests failed. The first: grpc-go: not sent") {
		t.Error(text)
	}
}

func TestResultWithoutUsage(t *testing.T) {
	d := example()
	d.stile.stretches[0].usageErr = errors.New("none")
	r := d.result(7)
	if r.Stile.CPU != nil || r.Ratio.CPU != nil || r.Plain.CPU == nil {
		t.Errorf("%+v", r)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"cpu":null`) {
		t.Errorf("%s %v", text, err)
	}
	if text := r.Table(terminal.Style{}); !strings.Contains(text, "–") {
		t.Error(text)
	}
}

func TestResultOfNothing(t *testing.T) {
	var d demo
	r := d.result(1)
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	_ = r.Table(terminal.Style{})
}

func TestTable(t *testing.T) {
	const want = `                                      grpc-go      Stile   ratio
requests/s, as sent                      2.00       2.00   
p50, ms                                  8.03       2.01   4.0× lower
p99, ms                                  8.03       16.1   2.0× higher
CPU ms a request, six programs           20.0       5.00   4.0× lower
context switches a request                200       5.00   40.0× lower
requests/s at most                        150        600   4.0× more
failed requests                             0          0   

Medians of 3 windows a side, taken in turns; 7 requests/s (` + Mix + `), timed from when each was due.
The load moved from grpc-go to Stile while it ran: none of 9 requests failed.
`
	if got := example().result(7).Table(terminal.Style{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMailTable(t *testing.T) {
	const want = `
placing an order, mailer takes 100 ms  called   by queue   ratio
orders                                     70         71   
p50, ms                                   110       10.0   11.0× lower
p99, ms                                   200       20.0   10.0× lower
failed requests                             0          1   
queue: depth when the load ended            –          3   
queue: lag when the load ended              –          2   
queue: oldest message then, ms              –       50.0   
queue: all sent after, ms                   –          –   
queue: dead letters                         –          4   
A request failed: it broke
`
	m := Mail{
		Delay: 100, Called: MailSide{Orders: 70, P50: 110, P99: 200}, Queued: MailSide{Orders: 71, P50: 10, P99: 20, Failed: 1, Failure: "it broke"},
		Queue: Depth{Depth: 3, Lag: 2, Oldest: 50}, Dead: 4,
	}
	if got := m.table(terminal.Style{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWayString(t *testing.T) {
	w := Way{Services: map[string]string{"catalog": "shm", "orders": "grpc", "pricing": "shm"}, Reason: "no door"}
	if got, want := w.String(), "calls over Stile to catalog pricing: through shared memory; to orders: through grpc-go (no door)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
