package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/inforce"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/telemetry"
)

// fakeHub takes reports as a hub does. It is on disk what it had when keep was called.
type fakeHub struct {
	mu             sync.Mutex
	name           byte
	away, refuse   bool
	reported, kept uint64
	got            []*hubpb.ReportRequest
	spans          []*hubpb.Span
	asked          int
}

func (h *fakeHub) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams")
}

func (h *fakeHub) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, answer := args.(*hubpb.ReportRequest), reply.(*hubpb.ReportResponse)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked++; h.away {
		return errors.New("nobody is there")
	}
	if h.refuse {
		return status.Error(codes.InvalidArgument, "no")
	}
	answer.Hub, answer.Kept = []byte{h.name}, h.kept
	if len(r.Hub) == 1 && r.Hub[0] == h.name && r.Sequence > h.reported {
		h.reported = r.Sequence
		h.got = append(h.got, r)
		h.spans = append(h.spans, r.Spans...)
	}
	return nil
}

// restart loses what was not kept.
func (h *fakeHub) restart() {
	h.got = slices.DeleteFunc(h.got, func(r *hubpb.ReportRequest) bool { return r.Sequence > h.kept })
	h.name, h.reported, h.kept = h.name+1, 0, 0
}

// calls is how many calls all reports tell of.
func (h *fakeHub) calls() (n uint64) {
	for _, r := range h.got {
		for _, route := range r.Routes {
			n += route.Codes[0]
		}
	}
	return n
}

// start starts an agent, and returns what counts calls.
func start(t *testing.T, h *fakeHub) (a *Agent, call func(n int)) {
	t.Helper()
	r := telemetry.NewRecorder()
	r.Enable()
	route := r.Link(telemetry.Client, "shm", telemetry.Peer{PID: 3}).Route(telemetry.RouteName{Method: "/s/M"})
	a = Start(Config{
		Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return []string{"here"} }, Logger: slog.New(slog.DiscardHandler),
	})
	return a, func(n int) {
		for range n {
			route.Record(0, &telemetry.Call{Duration: time.Millisecond})
		}
	}
}

// TestWindows: a process says who it is at once, and then what it has counted, in windows that end by the clock; the rest when it ends.
func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(3 * time.Second)
		h := &fakeHub{name: 1}
		a, call := start(t, h)
		synctest.Wait()
		if h.asked != 1 || len(h.got) != 0 {
			t.Errorf("asked %d times, %d windows", h.asked, len(h.got))
		}
		call(5)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		call(3)
		a.Close(t.Context())
		if len(h.got) != 2 || h.calls() != 8 {
			t.Fatalf("%d windows, %d calls", len(h.got), h.calls())
		}
		for i, took := range []time.Duration{7 * time.Second, 3 * time.Second} {
			r := h.got[i]
			if got := time.Duration(r.ToUnixNano - r.FromUnixNano); got != took || r.Sequence != uint64(i+1) || r.Process.Listens[0] != "here" {
				t.Errorf("window %d: %s, %+v", r.Sequence, got, r.Process)
			}
		}
		if r := h.got[0].Routes[0]; r.Side != hubpb.Side_SIDE_CLIENT || r.Method != "/s/M" || r.Duration.Max != uint64(time.Millisecond) || r.PeerPid != 3 {
			t.Errorf("%+v", r)
		}
	})
}

// TestHubAway: what was counted while the hub was away comes when it is back, in order; what there was no room for is told.
func TestHubAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1, away: true}
		a, call := start(t, h)
		time.Sleep(Window / 2) // windows end between calls
		for range 70 {
			call(1)
			time.Sleep(Window)
		}
		synctest.Wait()
		h.mu.Lock()
		h.away = false
		h.mu.Unlock()
		time.Sleep(Window)
		synctest.Wait()
		a.Close(t.Context())
		dropped := h.got[len(h.got)-1].Dropped // of windows with a call each
		if h.calls()+dropped != 70 || dropped == 0 || len(h.got) < maxHeld {
			t.Errorf("%d calls, %d windows dropped, %d windows", h.calls(), dropped, len(h.got))
		}
		for i := 1; i < len(h.got); i++ {
			if h.got[i].Sequence <= h.got[i-1].Sequence {
				t.Errorf("window %d after %d", h.got[i].Sequence, h.got[i-1].Sequence)
			}
		}
	})
}

// TestHubRestarted: a hub that was restarted gets all that was not on the disk of the one before, once.
func TestHubRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		a, call := start(t, h)
		time.Sleep(Window / 2)
		for n := range 40 {
			call(1)
			time.Sleep(Window)
			synctest.Wait()
			h.mu.Lock()
			switch n % 10 {
			case 5:
				h.kept = h.reported
			case 7: // the window between has told the process
				h.restart()
			}
			h.mu.Unlock()
		}
		a.Close(t.Context())
		if h.calls() != 40 {
			t.Errorf("%d calls of 40 are told", h.calls())
		}
		if len(a.held) > maxHeld || a.bytes < 0 {
			t.Errorf("%d windows of %d bytes are held", len(a.held), a.bytes)
		}
	})
}

// TestHubFull: what a hub had that could not write it, and that there was no room to keep for the next one, counts as dropped once that hub is gone; not if it has it after all.
func TestHubFull(t *testing.T) {
	for name, written := range map[string]bool{"killed": false, "has room again": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const windows = maxHeld + 20
				h := &fakeHub{name: 1}
				a, call := start(t, h)
				time.Sleep(Window / 2)
				for range windows {
					call(1)
					time.Sleep(Window)
				}
				synctest.Wait()
				h.mu.Lock()
				if h.kept = 0; written {
					h.kept = h.reported
				}
				h.mu.Unlock()
				time.Sleep(Window)
				synctest.Wait()
				h.mu.Lock()
				h.restart()
				h.mu.Unlock()
				for range 2 {
					call(1)
					time.Sleep(Window)
				}
				a.Close(t.Context())
				last := h.got[len(h.got)-1]
				if h.calls()+last.Dropped != windows+2 || (last.Dropped == 0) != written {
					t.Errorf("%d calls, %d windows dropped", h.calls(), last.Dropped)
				}
			})
		})
	}
}

// TestHeldWhole: what is held counts with the texts of policies and with events.
func TestHeldWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1, away: true}
		r := telemetry.NewRecorder()
		r.Enable()
		text := strings.Repeat("x", maxText)
		a := Start(Config{
			Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler),
			Policies: func() []inforce.Policy { return []inforce.Policy{{Source: "p", Text: text}} },
		})
		r.Event(telemetry.Event{Kind: "x", Detail: "y"})
		a.Close(t.Context())
		if w := a.held[0]; w.report.Policies[0].Text != text || len(w.report.Events) != 1 || w.bytes < held(proto.Size(w.report)) {
			t.Errorf("%d bytes are counted of a report of %d", w.bytes, proto.Size(w.report))
		}
	})
}

// TestRefused: a report that a hub does not take counts, and no other one is lost with it.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		a, call := start(t, h)
		time.Sleep(Window / 2)
		for n := range 5 {
			h.mu.Lock()
			h.refuse = n == 3
			h.mu.Unlock()
			call(1)
			time.Sleep(Window)
			synctest.Wait()
		}
		h.mu.Lock()
		h.restart() // nothing was on disk
		h.mu.Unlock()
		a.Close(t.Context())
		if last := h.got[len(h.got)-1]; h.calls() != 4 || last.Dropped != 1 {
			t.Errorf("%d calls, %d windows dropped", h.calls(), last.Dropped)
		}
	})
}

// TestOpen: a window tells how many calls of a route are open, at moments that no call chooses, though none of them has ended.
func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		r := telemetry.NewRecorder()
		r.Enable()
		l := r.Link(telemetry.Client, "shm", telemetry.Peer{})
		l.TellsOpen()
		route, other := l.Route(telemetry.RouteName{Method: "/s/Hangs"}), r.Link(telemetry.Client, "tcp", telemetry.Peer{}).Route(telemetry.RouteName{Method: "/s/Far"})
		pace, looks := NewPace(), 0
		a := Start(Config{
			Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler), Pace: pace,
			isBusy: func(usage.Used) bool { return false },
			InFlight: func(each func(*telemetry.Route)) (made, served, connections int) {
				if each != nil {
					looks++
					each(route)
					each(route)
				}
				return 2, 0, 1
			},
		})
		other.Record(0, &telemetry.Call{})
		for range 100 { // calls that begin have it look, too, and see themselves
			time.Sleep(Window / 100)
			pace.Beat(telemetry.Now())
			synctest.Wait()
		}
		a.Close(t.Context())
		seen := uint64(0)
		for _, w := range h.got {
			for _, of := range w.Routes {
				switch seen += of.OpenSeen; {
				case of.Method == "/s/Far" && of.OpenLooks > 0:
					t.Errorf("told of a link that does not know: %+v", of)
				case of.Method == "/s/Hangs" && (of.OpenSeen != 2*of.OpenLooks || of.OpenMost != 2 || of.OpenLooks == 0):
					t.Errorf("%+v", of)
				}
			}
		}
		if looks < 8 || looks > 15 || seen != 2*uint64(looks) {
			t.Errorf("%d looks, %d calls seen", looks, seen)
		}
	})
}

// TestShortRun: a process that ends before the hub has answered the first time reports all, and says of no hub that it is away.
func TestShortRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		slow := slowHub{h, new(atomic.Bool)}
		r := telemetry.NewRecorder()
		r.Enable()
		var log strings.Builder
		a := Start(Config{Hub: slow, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		r.Link(telemetry.Client, "shm", telemetry.Peer{}).Route(telemetry.RouteName{Method: "/s/M"}).Record(0, &telemetry.Call{})
		a.Close(t.Context())
		if h.calls() != 1 || log.Len() > 0 {
			t.Errorf("%d calls, %s", h.calls(), &log)
		}
		log.Reset()
		h.away = true
		a = Start(Config{Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if a.Close(ended); !strings.Contains(log.String(), "cannot be told") {
			t.Errorf("of a hub that is away: %s", &log)
		}
	})
}

// slowHub answers from the second time on.
type slowHub struct {
	*fakeHub
	asked *atomic.Bool
}

func (h slowHub) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if !h.asked.Swap(true) {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.fakeHub.Invoke(ctx, method, args, reply, opts...)
}

// TestServiceName: a process is named as OpenTelemetry's SDKs name it.
func TestServiceName(t *testing.T) {
	for _, c := range []struct{ name, attributes, exe, want string }{
		{"cart", "service.name=other", "/bin/x", "cart"}, {"", "a=b, service.name = orders ,c", "/bin/x", "orders"}, {"", "service.name=from%20here%2C+1", "", "from here,+1"}, {"", "service.name=5%", "", "5%"}, {"", "service.name=", "/bin/x.exe", "x"}, {"", "", "", "unknown"},
	} {
		got := serviceName(func(k string) string {
			return map[string]string{"OTEL_SERVICE_NAME": c.name, "OTEL_RESOURCE_ATTRIBUTES": c.attributes}[k]
		}, c.exe)
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestManyRoutes: of too many the most called are told apart, and no call is missing.
func TestManyRoutes(t *testing.T) {
	r := telemetry.NewRecorder()
	r.Enable()
	const links, each = 12, 1000
	for i := range links {
		l := r.Link(telemetry.Client, "shm", telemetry.Peer{PID: i + 1})
		for n := range each {
			l.Route(telemetry.RouteName{Method: string(rune('a'+i)) + time.Duration(n).String()}).Record(0, &telemetry.Call{})
		}
	}
	l := r.Link(telemetry.Client, "shm", telemetry.Peer{})
	for range 5 {
		l.Route(telemetry.RouteName{Method: "often"}).Record(0, &telemetry.Call{})
	}
	all := routes(r.Take(), 0)
	sum := uint64(0)
	for _, one := range all {
		sum += one.Codes[0]
	}
	if len(all) > maxRoutes+1 || sum != links*each+5 || all[0].Method != telemetry.OtherMethod || all[1].Method != "often" {
		t.Errorf("%d routes, %d calls, first %s and %s", len(all), sum, all[0].Method, all[1].Method)
	}
}
