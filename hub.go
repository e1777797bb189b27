package stile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/internal/inforce"
	"github.com/stile-ipc/stile/telemetry"
)

// ErrReporting is returned by [ReportTo] while this process reports to a hub already.
var ErrReporting = errors.New("stile: this process reports to a hub already")

// ReportTo has this process count what calls it makes and serves on connections that begin from now on, and tell a hub (stile hub) every 10 seconds what they were, how long they took and where they waited, as whole traces of some,
// and what that cost it, until stop is called, which reports the rest and returns when ctx ends at the latest. Calls never wait for it. While the hub is away 10 minutes are
// held in memory, 16 MiB at most; what is more is dropped, and counted.
//
// The hub is a gRPC target such as "localhost:4317", or "https://host:4317" for one with TLS, of which the host's roots are trusted unless
// opts have credentials. A token is taken from STILE_HUB_TOKEN. The process is named by OTEL_SERVICE_NAME, or by its executable.
//
// With STILE_HUB in its environment, a process does this from its first client or server on, and never stops.
func ReportTo(hub string, opts ...grpc.DialOption) (stop func(ctx context.Context), err error) {
	r := telemetry.Process()
	if r == nil {
		return nil, errors.New("stile: nothing is counted that could be reported: STILE_TELEMETRY is off")
	}
	if !reporting.TryLock() {
		return nil, ErrReporting
	}
	r.Enable()
	traced.Start()
	target, secure := strings.CutPrefix(hub, "https://")
	target = strings.TrimPrefix(target, "http://")
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	plain, own, _, _ := splitDialOptions(append([]grpc.DialOption{grpc.WithTransportCredentials(creds)}, opts...))
	cc, err := grpc.NewClient(target, append(plain, (&dialer{own: own}).options()...)...) // whose calls are not counted
	if err != nil {
		traced.Stop()
		r.Disable()
		reporting.Unlock()
		return nil, fmt.Errorf("stile: hub %q: %w", hub, err)
	}
	log := own.logger
	if log == nil {
		log = slog.Default()
	}
	a := agent.Start(agent.Config{
		Hub: cc, Token: os.Getenv("STILE_HUB_TOKEN"), Recorder: r, Spans: traced, Process: agent.Self(telemetry.Self), Listens: listening.list, Counters: counters, InFlight: live.inFlight,
		Policies: inforce.List, Pace: pace, Logger: log.With("hub", hub),
	})
	var once sync.Once
	return func(ctx context.Context) {
		once.Do(func() {
			a.Close(ctx)
			traced.Stop()
			r.Disable()
			_ = cc.Close()
			reporting.Unlock()
		})
	}, nil
}

// reporting is locked while the process reports.
var reporting sync.Mutex

// reportByEnvironment does what STILE_HUB asks for, once.
var reportByEnvironment = sync.OnceFunc(func() {
	hub := os.Getenv("STILE_HUB")
	if hub == "" {
		return
	}
	if _, err := ReportTo(hub); err != nil && !errors.Is(err, ErrReporting) {
		slog.Warn("stile: STILE_HUB is not heeded", "error", err)
	}
})

// counters are what this process's connections have done.
func counters() (c agent.Counters) {
	for _, one := range live.snapshot() {
		c.Doorbells, c.Parks, c.Spin = c.Doorbells+one.Doorbells, c.Parks+one.Parks, c.Spin+one.Spin
	}
	return c
}

// listening are the addresses at which this process's servers listen.
var listening addresses

type addresses struct {
	mu   sync.Mutex
	open map[*string]struct{}
}

// add returns what takes the address away again.
func (a *addresses) add(l net.Listener) (remove func()) {
	at := l.Addr().String()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[*string]struct{}{}
	}
	a.open[&at] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.open, &at)
	}
}

// maxListening is how many addresses are told.
const maxListening = 64

func (a *addresses) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []string{}
	for at := range a.open {
		all = append(all, *at)
	}
	slices.Sort(all)
	return all[:min(len(all), maxListening)]
}
