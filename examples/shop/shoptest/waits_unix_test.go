//go:build unix

package shoptest_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// added is how long is waited at each place.
const added = 10 * time.Millisecond

// waited is a call of a route, and where it was as the hub has it.
type waited struct {
	begin, end time.Time
	routemap.SpanWaits
	put, own time.Duration // put there by the test, and by the call's own handler beside it
}

func (w *waited) took() time.Duration { return w.end.Sub(w.begin) }

// disturbed is the share of a call's time that nobody has put there, or that it was shorter than what was put there: the call before it was not in its way until its end.
func (w *waited) disturbed() float64 {
	return math.Abs(float64(w.took()-w.put-w.own)) / float64(w.took())
}

// TestWaits: 10 ms that are put into each part of the shop's calls are found there, ±10 % of what they were as measured, and not in the others. Handlers wait by --faults, which measures it; callers
// and servers, for the call before theirs, by limits of a policy. The way has no place where the shop could wait: there the callee is stopped by a signal, before the call and for 10 ms. Of the calls of
// each kind it judges the one that the machine has disturbed least; a route's parts are the sums of its calls'.
func TestWaits(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, dir)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	slow := []string{"--log-level", "debug", "--faults", file("faults", "delay="+added.String())}
	turns := file("turns.yaml", "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 100, maxQueueDelay: 10s}}\n")
	limit := file("limit.yaml", "methodConfig: [{name: [{service: shop.pricing.v1.PricingService}], timeout: 10s, x-stile: {limit: {maxRequests: 1, maxPendingRequests: 100}}}]\n")
	shop := shoptest.Start(t, shoptest.Config{
		Bin: bin, Data: t.TempDir(), Env: []string{"STILE=on", "STILE_HUB=" + h.Addrs()["OTLP/gRPC"], "XDG_STATE_HOME=" + t.TempDir()},
		Args: map[string][]string{"pricing": slow, "gateway": {"--policy", limit}, "catalog": append(slow, "--policy", turns)},
	})
	const rounds, few = 20, 3
	page := func() { mustAsk(t, shop, "GET", "/products/sku-0001", "", 200) }
	for range rounds {
		mustAsk(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":1}]}`, 201)
		atOnce(page, page)
	}
	stops := stopped(t, shop.Process("inventory"), rounds, page)
	shop.Stop(t) // which reports the rest
	closeHub(t, h)
	h = openHub(t, dir)
	defer closeHub(t, h)
	m := hubMap(t, h)
	for _, c := range []struct {
		name, program, method, side string
		part                        func(*routemap.SpanWaits) int64
		put                         func([]waited) []waited
	}{
		{"handler", "pricing", "Quote", "client", func(w *routemap.SpanWaits) int64 { return w.Handler }, inHandlers},
		{"client queue", "pricing", "GetPrice", "client", func(w *routemap.SpanWaits) int64 { return w.ClientQueue }, behind},
		{"server queue", "catalog", "GetProduct", "server", func(w *routemap.SpanWaits) int64 { return w.ServerQueue }, behind},
		{"transport", "inventory", "GetStock", "client", func(w *routemap.SpanWaits) int64 { return w.Transport }, func(all []waited) []waited { return onTheWay(all, stops) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := callsOf(t, h, &m, c.method, c.side)
			delayed(t, shop.Process(c.program), c.method, all)
			if all = c.put(all); len(all) < few {
				t.Fatalf("%d calls of %s waited", len(all), c.method)
			}
			w := slices.MinFunc(all, func(a, b waited) int { return cmp.Compare(a.disturbed(), b.disturbed()) })
			got, rest := time.Duration(c.part(&w.SpanWaits)), w.took()-time.Duration(c.part(&w.SpanWaits))
			if w.own > 0 {
				if rest -= time.Duration(w.Handler); time.Duration(w.Handler) < w.own {
					t.Errorf("%v of %v are found in the handler", time.Duration(w.Handler), w.own)
				}
			}
			if !within(got, w.put) || rest > w.took()/10 {
				t.Errorf("%v of %v are found, and %v elsewhere: %+v of %v, %.1f %% of which nobody has put there", got, w.put, rest, w.SpanWaits, w.took(), 100*w.disturbed())
			}
		})
	}
}

// within tells whether what was found is what was put, ±10 %.
func within(found, put time.Duration) bool { return found >= put-put/10 && found <= put+put/10 }

func atOnce(do ...func()) {
	var all sync.WaitGroup
	for _, f := range do {
		all.Go(f)
	}
	all.Wait()
}

// stopped makes a request after the other while a process is stopped for 10 ms, and returns until when it was each time.
func stopped(t *testing.T, p *shoptest.Process, rounds int, request func()) (until []time.Time) {
	t.Helper()
	for range rounds {
		stop(t, p.PID())
		var one sync.WaitGroup
		one.Go(request)
		time.Sleep(added)
		until = append(until, time.Now())
		if err := syscall.Kill(p.PID(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		one.Wait()
	}
	return until
}

// stop returns when all threads of a process are stopped.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
	for err == syscall.EINTR {
		_, err = syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
	}
	if err != nil || !status.Stopped() {
		t.Fatalf("%v, status %x", err, status)
	}
}

// callsOf is all calls of a route, as a side of it sees them. What the route says of them is the sum of what clients do.
func callsOf(t *testing.T, h *hub.Hub, m *hub.Map, method, side string) (all []waited) {
	t.Helper()
	i := slices.IndexFunc(m.Routes, func(r routemap.Route) bool { return strings.HasSuffix(r.Operation, "/"+method) })
	if i < 0 {
		t.Fatalf("no route has %s", method)
	}
	r := &m.Routes[i]
	var list hub.TraceList
	if !askHub(t, h, fmt.Sprintf("/api/v1/traces?from=1h&limit=%d&route=%s", hub.MaxTraces, r.ID()), &list) {
		t.FailNow()
	}
	var sum routemap.Waits
	for _, l := range list.Traces {
		var trace hub.Trace
		if !askHub(t, h, "/api/v1/trace?id="+l.ID, &trace) {
			t.FailNow()
		}
		for _, s := range trace.Spans {
			if s.Route != r.ID() || s.Waits == nil {
				continue
			}
			if w := s.Waits; s.Kind == "client" {
				sum = routemap.Waits{Calls: sum.Calls + 1, ClientQueue: sum.ClientQueue + w.ClientQueue, Transport: sum.Transport + w.Transport, ServerQueue: sum.ServerQueue + w.ServerQueue, Handler: sum.Handler + w.Handler}
			}
			if s.Kind == side {
				begin := trace.Start.Add(time.Duration(s.Start))
				all = append(all, waited{begin: begin, end: begin.Add(time.Duration(s.Duration)), SpanWaits: *s.Waits})
			}
		}
	}
	if sum != r.Waits {
		t.Errorf("%s: the route has %+v, its calls %+v", method, r.Waits, sum)
	}
	return all
}

// delayed notes of calls, in the order in which they are over, how long a program says that it has delayed them, if it has.
func delayed(t *testing.T, p *shoptest.Process, method string, all []waited) {
	t.Helper()
	lines := regexp.MustCompile(`msg="call delayed".* method=\S+/`+method+` took=(\S+)`).FindAllStringSubmatch(p.Log(), -1)
	if len(lines) != len(all) && len(lines) > 0 {
		t.Fatalf("%d calls of %s were delayed, of %d", len(lines), method, len(all))
	}
	slices.SortFunc(all, func(a, b waited) int { return a.end.Compare(b.end) })
	for i := range lines {
		took, err := time.ParseDuration(lines[i][1])
		if err != nil || took < added {
			t.Fatalf("delayed by %q, %v", lines[i][1], err)
		}
		all[i].own = took
	}
}

// inHandlers are calls whose handlers wait, and they for nothing else.
func inHandlers(all []waited) []waited {
	for i := range all {
		all[i].put, all[i].own = all[i].own, 0
	}
	return all
}

// behind are calls that wait until the one is over that is over before them.
func behind(all []waited) (late []waited) {
	for i := 1; i < len(all); i++ {
		w := all[i]
		if w.put = all[i-1].end.Sub(w.begin); w.put > added/2 {
			late = append(late, w)
		}
	}
	return late
}

// onTheWay are the calls that were made while nobody took them, until a moment each.
func onTheWay(all []waited, until []time.Time) (late []waited) {
	for _, w := range all {
		for _, at := range until {
			if w.put = at.Sub(w.begin); w.put > added/2 && w.end.After(at) {
				late = append(late, w)
			}
		}
	}
	return late
}
