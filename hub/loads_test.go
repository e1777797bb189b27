package hub

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

const cellUs = uint64(cell / time.Microsecond)

// samplesOf are n samples in which a process used cpu of a processor, and its host, of 4 processors, host: nothing if it was not looked at.
func samplesOf(from time.Time, n int, cpu, host, steal float64) *hubpb.Sample {
	s := &hubpb.Sample{FromUnixNano: from.UnixNano(), Gomaxprocs: 4}
	of := func(processors float64) uint64 { return uint64(processors * float64(cellUs)) }
	for range n {
		s.TookUs, s.UserUs, s.SystemUs, s.Made, s.OpenServed = append(s.TookUs, cellUs), append(s.UserUs, of(cpu/2)), append(s.SystemUs, of(cpu/2)), append(s.Made, 20), append(s.OpenServed, 3)
		if host > 0 {
			s.HostUserUs, s.HostSystemUs = append(s.HostUserUs, of(host-0.25)), append(s.HostSystemUs, of(0.25))
			s.HostIdleUs, s.HostStealUs = append(s.HostIdleUs, of(4-host-steal)), append(s.HostStealUs, of(steal))
		}
	}
	return s
}

func processOf(n byte, boot string) *hubpb.Process {
	return &hubpb.Process{Identity: id(uint64(n), 16), Service: fmt.Sprint("s", n), Host: "node", Boot: boot, Pid: int64(n)}
}

// TestContaminated: what a host used and its processes that report did not is others'; windows in which it is more than a tenth of a processor are marked, and nothing is said where
// it is not known.
func TestContaminated(t *testing.T) {
	begin := time.Unix(1e9, 0) // of a window
	late := 300 * time.Microsecond
	type report struct {
		process byte
		at      time.Duration
		samples *hubpb.Sample
	}
	full := func(process byte, cpu, host, steal float64) report {
		return report{process, late, samplesOf(begin.Add(late), int(cells), cpu, host, steal)}
	}
	part := func(process byte, from, n int, cpu, host float64) report {
		return report{process, 0, samplesOf(begin.Add(time.Duration(from)*cell), n, cpu, host, 0)}
	}
	lumps := func() report { // of a process that was held up: one sample is of three
		s := samplesOf(begin, 48, 0.5, 1, 0)
		s.TookUs[9] *= 3
		for _, c := range [][]uint64{s.UserUs, s.SystemUs, s.HostUserUs, s.HostSystemUs, s.HostIdleUs} {
			c[9] *= 3
		}
		return report{1, 0, s}
	}
	for name, c := range map[string]struct {
		reports []report
		own     float64 // that the hub used
		boot    string
		self    bool
		want    string
	}{
		"alone":           {reports: []report{full(1, 0.5, 0.55, 0)}, want: "0 of 1, 0.05"},
		"others":          {reports: []report{full(1, 0.5, 1.5, 0)}, want: "1 of 1, 1"},
		"two":             {reports: []report{full(1, 0.5, 1.5, 0), full(2, 0.95, 1.5, 0)}, want: "0 of 1, 0.05"},
		"the second late": {reports: []report{full(1, 0.5, 1.5, 0), part(2, 25, 25, 1, 1.5)}, want: "1 of 1, 0.5"},
		"steal":           {reports: []report{full(1, 0.5, 0.5, 0.3)}, want: "1 of 1, 0.3"},
		"more than there": {reports: []report{full(1, 0.9, 0.5, 0)}, want: "0 of 1, 0"},
		"no host":         {reports: []report{full(1, 0.5, 0, 0)}, want: ""},
		"a part":          {reports: []report{part(1, 0, 20, 0.5, 1.5)}, want: ""},
		"half":            {reports: []report{part(1, 20, 30, 0.5, 1.5), part(2, 0, 50, 0.25, 0)}, want: "1 of 1, 0.75"},
		"one looks":       {reports: []report{full(2, 0.25, 0, 0), full(1, 0.5, 1.5, 0)}, want: "1 of 1, 0.75"},
		"lumps":           {reports: []report{lumps(), full(2, 0.5, 1, 0)}, want: "0 of 1, 0"},
		"the hub's":       {reports: []report{full(1, 0.5, 1.5, 0)}, own: 0.95, boot: usage.Boot(), want: "0 of 1, 0.05"},
		"another's hub":   {reports: []report{full(1, 0.5, 1.5, 0)}, own: 0.95, want: "1 of 1, 1"},
		"the hub reports": {reports: []report{full(1, 0.5, 1.5, 0)}, own: 0.5, boot: usage.Boot(), self: true, want: "1 of 1, 1"},
	} {
		h, m := newHosts(), routemap.New()
		for i := range cells {
			h.spend(usage.Used{From: begin.Add(time.Duration(i) * cell), Took: cell, User: time.Duration(c.own * float64(cell))})
		}
		for _, r := range c.reports {
			p := processOf(r.process, "b")
			if c.boot != "" {
				p.Boot = c.boot
			}
			if c.self {
				p.Identity = telemetry.Self[:]
			}
			h.add(p, r.samples)
		}
		start := begin.Add(10 * time.Second)
		kept := h.over(m, start, start)
		got := ""
		for _, o := range m.Report().Hosts {
			got += fmt.Sprintf("%d of %d, %.2g", o.Contaminated, o.Windows, math.Round(1e4*o.Mean())/1e4)
		}
		if got != c.want || len(kept) != map[bool]int{true: 1}[name != "no host"] || len(h.slots) > 1 {
			t.Errorf("%s: %s, want %s; %d kept, %d left", name, got, c.want, len(kept), len(h.slots))
		}
	}
}

// TestHostsForgotten: hosts have names while there is something to say of them, and no more are known than there is room for.
func TestHostsForgotten(t *testing.T) {
	h, at := newHosts(), time.Unix(1e9, 0)
	over := func() {
		at = at.Add(store.Finest)
		h.over(routemap.New(), at, at)
	}
	for w := range 2 {
		for i := range maxSlots + 100 {
			h.add(&hubpb.Process{Identity: id(1, 16), Boot: fmt.Sprint(w, " ", i)}, samplesOf(at, 1, 0.5, 1, 0))
		}
		if len(h.slots) != maxSlots || len(h.names) > maxSlots+maxHosts {
			t.Errorf("%d slots, %d names", len(h.slots), len(h.names))
		}
		over()
		if len(h.last) != maxHosts || len(h.names) != maxHosts {
			t.Errorf("%d are known, %d names", len(h.last), len(h.names))
		}
	}
	at = at.Add(processGoneAfter)
	if over(); len(h.slots)+len(h.last)+len(h.names) != 0 {
		t.Errorf("%d slots, %d known, %d names are left", len(h.slots), len(h.last), len(h.names))
	}
}

// TestUnaligned: who looks whenever a call has it look tells as much of its host as of itself: what others used is neither hidden nor made up.
func TestUnaligned(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	begin := time.Unix(1e9, 0)
	for range 20 {
		h := newHosts()
		for who, used := range map[byte]float64{1: 1, 2: 0.5} { // of 1.7 processors
			for at := time.Duration(0); at < store.Finest; {
				took := min(time.Duration(50+r.IntN(300))*time.Millisecond, store.Finest-at)
				us := func(processors float64) []uint64 { return []uint64{uint64(processors * float64(took.Microseconds()))} }
				h.add(processOf(who, "b"), &hubpb.Sample{
					FromUnixNano: begin.Add(at).UnixNano(), TookUs: us(1), UserUs: us(used),
					HostUserUs: us(1.5), HostSystemUs: us(0.2), HostIdleUs: us(2.3),
				})
				at += took
			}
		}
		m, end := routemap.New(), begin.Add(store.Finest)
		kept := h.over(m, end, end)
		o := m.Report().Hosts
		if len(o) != 1 || len(kept) != 1 || math.Abs(o[0].Mean()-0.2) > 0.02 {
			t.Fatalf("%d hosts, %d kept, others used %v", len(o), len(kept), o)
		}
		for i, us := range kept[0].Columns[hostIdle] {
			if us != 0 && math.Abs(float64(us)-2.3*float64(cellUs)) > 2 {
				t.Errorf("cell %d was idle for %d µs", i, us)
			}
		}
	}
}

// TestTellers: two processes of a host tell of it, as long as they do; who is told that others do is none of them.
func TestTellers(t *testing.T) {
	h, at := newHosts(), time.Unix(1e9, 0)
	report := func(who uint64, boot string, looks bool) (told bool) {
		s := samplesOf(at, 1, 0.5, 1, 0)
		if !looks {
			s.HostUserUs, s.HostSystemUs, s.HostIdleUs, s.HostStealUs = nil, nil, nil, nil
		}
		if h.add(&hubpb.Process{Identity: id(who, 16), Boot: boot}, s) {
			h.tells(boot, identity(id(who, 16)), at)
		}
		return h.toldBy(boot, identity(id(who, 16)), at)
	}
	for i, c := range []struct {
		after time.Duration
		who   uint64
		boot  string
		looks bool
		told  bool
	}{
		{0, 1, "a", false, false}, // it cannot look
		{0, 2, "a", true, false},
		{0, 3, "b", true, false},
		{0, 4, "a", true, false},
		{0, 5, "a", true, true},
		{0, 1, "a", false, true},
		{0, 2, "", true, false},
		{10 * time.Second, 2, "a", true, false},
		{10 * time.Second, 2, "a", true, false},
		{10 * time.Second, 5, "a", false, false}, // the other one has said nothing for long
		{0, 5, "a", true, false},
		{0, 4, "a", true, true},
	} {
		at = at.Add(c.after)
		if got := report(c.who, c.boot, c.looks); got != c.told {
			t.Errorf("%d: others tell: %v", i, got)
		}
	}
	h.forget(at.Add(processGoneAfter))
	if len(h.tellers) != 0 {
		t.Errorf("%d hosts have who tells of them", len(h.tellers))
	}
	for i := range maxHosts + 100 {
		report(1, fmt.Sprint("host ", i), true)
	}
	if len(h.tellers) != maxHosts {
		t.Errorf("%d hosts have who tells of them", len(h.tellers))
	}
}

// TestLoadsTold: of more processes than are told of it is those that told first, the busiest of them first.
func TestLoadsTold(t *testing.T) {
	at := time.Unix(1e9, 0)
	g := newGrid(at, at.Add(store.Finest), 1)
	for i := range maxLoadProcesses + 10 {
		l := store.Load{ID: fmt.Sprintf("%016x", i), Host: "h", From: at, Took: []uint64{cellUs}}
		l.Columns[loadUser] = []uint64{uint64(i)}
		g.add(l)
	}
	out := g.loads()
	if len(out.Processes) != maxLoadProcesses || out.All != maxLoadProcesses+10 || out.Processes[0].ID != fmt.Sprintf("%016x", maxLoadProcesses-1) {
		t.Errorf("%d of %d, first %s", len(out.Processes), out.All, out.Processes[0].ID)
	}
}

// TestSilent: of a window in which one who reported before does not, nothing is said; nor of one that is told of much later.
func TestSilent(t *testing.T) {
	h, begin := newHosts(), time.Unix(1e9, 0)
	var got []string
	for i, who := range [][]byte{{1, 2}, {1, 2}, {1}, {1}, {1, 3}} {
		at, m := begin.Add(time.Duration(i)*10*time.Second), routemap.New()
		for _, p := range who {
			h.add(processOf(p, "b"), samplesOf(at, int(cells), 0.5, 1, 0))
		}
		h.over(m, at.Add(10*time.Second), at.Add(10*time.Second))
		got = append(got, fmt.Sprint(len(m.Report().Hosts)))
	}
	m := routemap.New()
	h.add(processOf(1, "b"), samplesOf(begin.Add(100*time.Second), int(cells), 0.5, 1, 0))
	h.over(m, begin.Add(130*time.Second), begin.Add(130*time.Second))
	got = append(got, fmt.Sprint(len(m.Report().Hosts)))
	if all := strings.Join(got, " "); all != "1 1 0 1 1 0" {
		t.Error(all)
	}
	h.over(m, begin.Add(time.Hour), begin.Add(time.Hour))
	if len(h.last)+len(h.names)+len(h.slots) > 0 {
		t.Errorf("%+v", h)
	}
}

// TestSlotsBounded: however many hosts tell, no more are held than there may be.
func TestSlotsBounded(t *testing.T) {
	h := newHosts()
	for i := range maxSlots + 100 {
		h.add(processOf(1, fmt.Sprint("b", i)), samplesOf(time.Unix(1e9, 0), 1, 1, 2, 0))
	}
	if len(h.slots) != maxSlots {
		t.Errorf("%d", len(h.slots))
	}
}

// TestLoad: what processes report of 200 ms is kept, told by time and process, and the map says which windows others have contaminated.
func TestLoad(t *testing.T) {
	h := openHub(t, Config{})
	front := newReporter(t, agentsOf(t, h), 1, "front")
	front.is.Boot, front.is.Host = "b", "node"
	begin := time.Now().Truncate(10 * time.Second).Add(-10 * time.Second)
	front.send(&hubpb.ReportRequest{
		Process: front.is, Hub: front.hub, Sequence: 1, FromUnixNano: begin.UnixNano(), ToUnixNano: begin.Add(10 * time.Second).UnixNano(), Load: &hubpb.Load{},
		Samples: []*hubpb.Sample{samplesOf(begin, int(cells), 0.5, 1.5, 0), samplesOf(begin.Add(-time.Hour), 1, 1, 1, 0), samplesOf(begin.Add(time.Hour), 1, 1, 1, 0)},
	})
	if s := h.agents.status(); s.Unsampled != 2 {
		t.Errorf("%+v", s)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), begin.Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil || len(m.Hosts) != 1 || m.Hosts[0].Contaminated != 1 || m.Hosts[0].Host != "node" || math.Abs(m.Hosts[0].Mean()-1) > 1e-3 {
		t.Fatalf("%+v, %v", m.Hosts, err)
	}
	ask := func(query string) (l Loads) {
		t.Helper()
		reply := get(t, h, "/api/v1/load?"+query)
		if err := json.Unmarshal(reply.body, &l); err != nil || reply.code != 200 {
			t.Fatalf("%s: %d, %s, %v", query, reply.code, reply.body, err)
		}
		return l
	}
	at := func(d time.Duration) string { return begin.Add(d).UTC().Format(time.RFC3339Nano) }
	l := ask("from=" + at(-2*time.Second) + "&to=" + at(12*time.Second) + "&points=7")
	if len(l.Processes) != 1 || len(l.Hosts) != 1 || l.Steps != 7 || l.Step != 2*time.Second || l.All != 1 {
		t.Fatalf("%+v", l)
	}
	p, host := l.Processes[0], l.Hosts[0]
	value := func(f *Number) string {
		if f == nil {
			return "-"
		}
		return fmt.Sprintf("%g", float64(*f))
	}
	for i := range l.Steps {
		got := strings.Join([]string{value(p.User[i]), value(p.Made[i]), value(p.OpenServed[i]), value(p.Voluntary[i]), value(p.Threads[i]), value(host.User[i]), value(host.Idle[i]), value(host.Known[i])}, " ")
		want := "0.25 100 3 0 4 1.25 2.5 0.5"
		if i == 0 || i == 6 {
			want = "- - - - - - - -"
		}
		if got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
	one := ask("from=" + at(0) + "&to=" + at(10*time.Second) + "&points=3000&process=" + p.ID)
	if one.Step != cell || one.Steps != int(cells) || len(one.Processes) != 1 || len(one.Hosts) != 1 || value(one.Processes[0].User[49]) != "0.25" || p.HostID != host.ID {
		t.Errorf("%+v", one)
	}
	if all := ask("from=168h"); all.Step < 24*time.Second || len(all.Processes) != 1 { // no more than two hours of it
		t.Errorf("%s, %d", all.Step, len(all.Processes))
	}
	for query, code := range map[string]int{"process=" + strings.Repeat("0", 16): 404, "process=x": 400, "points=0": 400, "points=3001": 400, "what=1": 400} {
		if reply := get(t, h, "/api/v1/load?"+query); reply.code != code {
			t.Errorf("%s: %d, %s", query, reply.code, reply.body)
		}
	}
}

// TestBadSamples: samples that contradict themselves are refused.
func TestBadSamples(t *testing.T) {
	good := func() *hubpb.Sample { return samplesOf(time.Unix(1e9, 0), 3, 1, 2, 0) }
	with := func(change func(*hubpb.Sample)) []*hubpb.Sample {
		s := good()
		change(s)
		return []*hubpb.Sample{s}
	}
	if err := checkSamples([]*hubpb.Sample{good()}); err != nil {
		t.Error(err)
	}
	for name, all := range map[string][]*hubpb.Sample{
		"uneven":      with(func(s *hubpb.Sample) { s.Made = s.Made[:2] }),
		"uneven host": with(func(s *hubpb.Sample) { s.HostIdleUs = append(s.HostIdleUs, 1) }),
		"no time":     with(func(s *hubpb.Sample) { s.TookUs = nil }),
		"much":        with(func(s *hubpb.Sample) { s.UserUs[1] = math.MaxUint64 }),
		"long":        with(func(s *hubpb.Sample) { s.TookUs[1] = math.MaxUint64 }),
		"before":      with(func(s *hubpb.Sample) { s.FromUnixNano = -1 }),
		"after":       with(func(s *hubpb.Sample) { s.FromUnixNano = math.MaxInt64 }),
		"runs":        make([]*hubpb.Sample, maxReportRuns+1),
		"many":        {samplesOf(time.Unix(1e9, 0), maxReportSamples+1, 1, 1, 0)},
	} {
		if err := checkReport(&hubpb.ReportRequest{Process: processOf(1, "b"), Samples: all}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, l := range map[string]*hubpb.Load{"negative": {RunQueueNs: -1}, "endless": {UserNs: math.MaxInt64}} {
		if err := checkReport(&hubpb.ReportRequest{Process: processOf(1, "b"), Load: l}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestHostLate: what a process says late of a host's window that is over does not take the place of what is known of it, nor of the windows after it.
func TestHostLate(t *testing.T) {
	h := newHosts()
	begin := time.Unix(1e9, 0)
	add := func(id byte, at time.Time, used uint64) {
		s := &hubpb.Sample{FromUnixNano: at.UnixNano()}
		for range cells {
			s.TookUs, s.UserUs, s.HostUserUs = append(s.TookUs, 200_000), append(s.UserUs, used), append(s.HostUserUs, 200_000)
		}
		h.add(&hubpb.Process{Identity: append(make([]byte, 15), id), Boot: "b", Host: "h"}, s)
	}
	over := func(windows int) []store.Load {
		end := begin.Add(time.Duration(windows) * store.Finest)
		return h.over(routemap.New(), end, end)
	}
	add(1, begin, 150_000)
	add(2, begin, 40_000)
	if all := over(1); len(all) != 1 || all[0].Columns[hostKnown][0] != 190_000 {
		t.Fatalf("%+v", all)
	}
	add(1, begin.Add(store.Finest), 100_000)
	add(3, begin, 1_000)
	if all := over(2); len(all) != 1 || !all[0].From.Equal(begin.Add(store.Finest)) || all[0].Columns[hostKnown][0] != 100_000 {
		t.Errorf("%+v", all)
	}
	add(3, begin, 1_000)
	add(3, begin.Add(store.Finest), 1_000)
	if all := over(3); len(all) != 0 || h.last["b"].start != begin.Add(store.Finest).Unix()/10 {
		t.Errorf("%+v, and the last is %d", all, h.last["b"].start)
	}
}
