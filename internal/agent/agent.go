// Package agent tells a hub, window by window, what its process has counted.
package agent

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/inforce"
	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/telemetry"
)

// Window is how long a window is. All processes' begin and end together, by the clock.
const Window = 10 * time.Second

// What is held until it is on the hub's disk. Of more the oldest windows are dropped, and counted.
const (
	maxHeld      = 60
	maxHeldBytes = 16 << 20
)

// longestWindow is how long a window is that is reported, at most.
const longestWindow = time.Hour

// answerWithin is how long the hub may take to answer.
const answerWithin = 5 * time.Second

// Config says what an agent tells of, and to whom.
type Config struct {
	Hub      grpc.ClientConnInterface
	Token    string              // for the hub; empty: none
	Recorder *telemetry.Recorder // nobody else takes from it
	Spans    *spans.Buffer       // nor from this; nil: there is none
	Process  *hubpb.Process      // who this is
	Listens  func() []string     // where it listens now
	Counters func() Counters     // nil: none
	// InFlight says how many calls are open now, and calls each, if that is not nil, with the route of each; nil: nobody knows.
	InFlight func(each func(*telemetry.Route)) (made, served, connections int)
	Policies func() []inforce.Policy // nil: none
	Pace     *Pace                   // that calls beat; nil: none do
	Logger   *slog.Logger

	every  time.Duration              // instead of Window
	isBusy func(used usage.Used) bool // instead of what it used
}

// Counters are what the process's connections have done since it began.
type Counters struct {
	Doorbells, Parks uint64
	Spin             time.Duration
}

// Agent is one that runs. Its methods are safe for concurrent use.
type Agent struct {
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{}
	last   context.Context // of the last report; set before cancel
	once   sync.Once

	// The rest is the goroutine's.
	samples  *sampler
	counters Counters
	from     time.Time
	sequence uint64
	held     []window
	bytes    int
	dropped  uint64
	unsure   []uint64 // sequences of windows that were let go for want of room, and sent: they may be on the hub's disk one day
	hub      []byte   // its identity
	away     bool
	texts    map[[16]byte]bool // of policies, that the hub has had, or will have with a window that is held
}

// window is one that the hub may not have on disk.
type window struct {
	report *hubpb.ReportRequest
	bytes  int
	sent   bool // to the hub as it is
}

// Start begins to report.
func Start(cfg Config) *Agent {
	if cfg.every == 0 {
		cfg.every = Window
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{cfg: cfg, cancel: cancel, done: make(chan struct{}), from: time.Now(), samples: newSampler(&cfg), texts: map[[16]byte]bool{}}
	if cfg.Counters != nil {
		a.counters = cfg.Counters()
	}
	go a.run(ctx)
	return a
}

// Close reports what has been counted until now, and returns when the hub has answered or ctx has ended.
func (a *Agent) Close(ctx context.Context) {
	a.once.Do(func() {
		a.last = ctx
		a.cancel()
	})
	<-a.done
}

func (a *Agent) run(ctx context.Context) {
	defer close(a.done)
	defer a.samples.close()
	var sampling sync.WaitGroup
	sampling.Go(func() { a.samples.run(ctx) })
	defer sampling.Wait()
	if answer, _ := a.ask(ctx, a.request(0)); answer != nil { // who this is, so that others' routes have a name at once
		a.hub = answer.GetHub()
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		now := time.Now()
		t.Reset(now.Truncate(a.cfg.every).Add(a.cfg.every).Sub(now))
		select {
		case <-t.C:
			a.close(ctx, time.Now())
			a.send(ctx)
		case <-ctx.Done():
			queues, cancel := aQuarterOf(a.last)
			a.close(queues, time.Now())
			cancel()
			a.send(a.last)
			return
		}
	}
}

// aQuarterOf ends after a quarter of the time that ctx has left.
func aQuarterOf(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, has := ctx.Deadline(); has {
		return context.WithTimeout(ctx, time.Until(deadline)/4)
	}
	return context.WithCancel(ctx)
}

func (a *Agent) request(sequence uint64) *hubpb.ReportRequest {
	who := proto.CloneOf(a.cfg.Process)
	for _, l := range a.cfg.Listens() {
		who.Listens = append(who.Listens, short(l))
	}
	return &hubpb.ReportRequest{Process: who, Sequence: sequence, Dropped: a.dropped}
}

// close ends a window. Queues are asked until ctx ends.
func (a *Agent) close(ctx context.Context, now time.Time) {
	a.sequence++
	r := a.request(a.sequence)
	r.ToUnixNano = max(now.UnixNano(), a.from.UnixNano())                      // the clock may go back
	r.FromUnixNano = max(a.from.UnixNano(), r.ToUnixNano-int64(longestWindow)) // the host may have slept
	from := telemetry.At(now) - time.Duration(r.ToUnixNano-r.FromUnixNano)
	used, samples := a.samples.window()
	was := a.counters
	if a.cfg.Counters != nil {
		a.counters = a.cfg.Counters()
	}
	r.Routes, r.Load, r.Samples = routes(a.cfg.Recorder.Take(), from), loadOf(used, a.counters, was), columns(samples)
	r.Queues = queues(ctx, a.cfg.Recorder)
	if a.cfg.Spans != nil {
		taken, lost := a.cfg.Spans.Take()
		r.Spans, r.SpansLost = spansOf(taken, time.Now()), lost
	}
	r.Events, r.EventsLost = events(a.cfg.Recorder.TakeEvents())
	if a.cfg.Policies != nil {
		r.Policies = a.policies(a.cfg.Policies())
	}
	a.from = now
	w := window{report: r, bytes: held(fit(r))}
	a.held, a.bytes = append(a.held, w), a.bytes+w.bytes
	for i := 0; i < len(a.held)-1 && a.bytes > maxHeldBytes; i++ { // spans go before counts do
		r.SpansLost += uint64(a.dropSpans(&a.held[i]))
	}
	for len(a.held) > maxHeld || a.bytes > maxHeldBytes && len(a.held) > 1 {
		if a.held[0].sent {
			a.unsure = append(a.unsure, a.held[0].report.GetSequence())
		} else {
			a.lose()
		}
		a.drop(0, 1)
	}
}

// lose counts a window that no hub will have, and that may have had texts.
func (a *Agent) lose() {
	a.dropped++
	clear(a.texts)
}

// drop lets go of windows.
func (a *Agent) drop(from, to int) {
	for _, w := range a.held[from:to] {
		a.bytes -= w.bytes
	}
	a.held = append(append(a.held[:0:0], a.held[:from]...), a.held[to:]...)
}

// keeps heeds which windows are on the hub's disk: those up to one.
func (a *Agent) keeps(upTo uint64) {
	a.unsure = slices.DeleteFunc(a.unsure, func(sequence uint64) bool { return sequence <= upTo })
}

// send sends what the hub has not had, the oldest first, and lets go of what it has on disk. The rest is tried again after the next window.
func (a *Agent) send(ctx context.Context) {
	moved := false
	for next := 0; next < len(a.held); {
		w := &a.held[next]
		if w.sent {
			next++
			continue
		}
		w.report.Dropped, w.report.Hub = a.dropped, a.hub
		answer, refused := a.ask(ctx, w.report)
		if refused { // which it will be again
			a.lose()
			a.drop(next, next+1)
			continue
		}
		if answer == nil {
			return
		}
		if !bytes.Equal(a.hub, answer.GetHub()) { // it was restarted, and has taken nothing: what was not on disk is lost
			a.keeps(answer.GetKept())
			a.dropped += uint64(len(a.unsure))
			a.unsure = nil
			clear(a.texts)
			if a.hub = answer.GetHub(); len(a.hub) == 0 || moved { // two hubs behind one address, perhaps: not for ever
				return
			}
			moved = true
			for i := range a.held {
				a.held[i].sent = false
			}
			next = 0
			continue
		}
		w.sent = true
		a.dropSpans(w) // which a hub that is restarted would have twice, or half
		kept := 0
		for kept < len(a.held) && a.held[kept].sent && a.held[kept].report.GetSequence() <= answer.GetKept() {
			kept++
		}
		a.keeps(answer.GetKept())
		a.drop(0, kept)
		next -= kept
		next++
	}
}

// ask reports, and says so if the hub is away, and when it is back. refused tells that it is, and does not take the report.
func (a *Agent) ask(until context.Context, r *hubpb.ReportRequest) (answer *hubpb.ReportResponse, refused bool) {
	ctx, cancel := context.WithTimeout(until, answerWithin)
	defer cancel()
	if a.cfg.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+a.cfg.Token)
	}
	answer, err := hubpb.NewAgentsClient(a.cfg.Hub).Report(ctx, r)
	if err != nil && until.Err() != nil && until != a.last { // by Close, which reports once more: the hub may be there
		return nil, false
	}
	switch {
	case err != nil && !a.away:
		a.cfg.Logger.Warn("stile: the hub cannot be told what was counted, which is tried again", "error", err)
	case err == nil && a.away:
		a.cfg.Logger.Info("stile: the hub is told what was counted again", "dropped", a.dropped)
	}
	a.away = err != nil
	if err == nil {
		a.samples.host(!answer.GetHostTold())
	}
	if err != nil {
		return nil, status.Code(err) == codes.InvalidArgument
	}
	return answer, false
}
