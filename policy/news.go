package policy

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
)

// Kind says what was decided.
type Kind uint8

// What is decided. The words in [Kind.String] are part of the log's format.
const (
	Applied      Kind = iota + 1 // a version came into force
	Refused                      // a version has faults, or none can be read: nothing changes
	BreakerMoved                 // from one state to another
	CallRefused                  // by a breaker or a limit, before it was sent
	CallShed                     // by a server that has too much to do
	CallLate                     // a server was asked for what nobody waits for any more
	Retried                      // another attempt was made
	RetryGivenUp                 // a call failed although it was tried again, or might have been
	BudgetEmpty                  // a retry or hedge was not made: too many are
	HedgeWon                     // a further attempt answered first
	StaleServed                  // an old answer stood in for one that failed
	Faulty                       // a part of the file cannot be applied
	kindCount
)

var kindNames = [kindCount]string{
	"", "policy applied", "policy refused", "breaker moved", "call refused", "call shed", "call late",
	"retried", "retry given up", "budget empty", "hedge won", "stale answer served", "policy faulty",
}

// String returns the kind in words.
func (k Kind) String() string {
	if k < kindCount {
		return kindNames[k]
	}
	return "unknown"
}

// Event is one decision about a call, or about the policy itself.
type Event struct {
	Time    time.Time
	Kind    Kind
	Shadow  bool   // only told, not done
	Method  string // /service/method; empty: of the policy
	Target  string // of the connection; empty: on the server's side
	Version string // of the policy
	TraceID string // empty: unknown
	Attempt int    // how many attempts had been made; 0: none
	Detail  string
	Err     error
}

// Recorder is told of decisions, one at a time, on a goroutine of its own. A recorder that
// is slow loses events; [Policy.Lost] counts them.
type Recorder interface{ Record(Event) }

// maxNews is how many events wait for the recorder and the log.
const maxNews = 1024

// news tells of decisions without keeping calls waiting. It has a goroutine only while there
// is something to tell.
type news struct {
	log      *slog.Logger
	recorder Recorder
	trace    func(context.Context) string
	counts   [kindCount]atomic.Uint64
	lost     atomic.Uint64

	mu      sync.Mutex
	queue   []Event
	telling bool
}

func newNews() *news { return &news{trace: traceOf} }

// tellRoute is tell for a call of r.
func (n *news) tellRoute(ctx context.Context, r *route, e *Event) {
	e.Method, e.Target, e.Version, e.Shadow = r.Method, r.target.name, r.rules.version, r.shadow
	n.tell(ctx, e)
}

func (n *news) tell(ctx context.Context, e *Event) {
	n.counts[e.Kind].Add(1)
	e.Time = time.Now()
	if e.TraceID == "" {
		e.TraceID = n.trace(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) >= maxNews {
		n.lost.Add(1)
		return
	}
	n.queue = append(n.queue, *e)
	if !n.telling {
		n.telling = true
		go n.run()
	}
}

func (n *news) run() {
	for {
		n.mu.Lock()
		batch := n.queue
		n.queue = nil
		if len(batch) == 0 {
			n.telling = false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		for _, e := range batch {
			n.say(&e)
			if n.recorder != nil {
				n.recorder.Record(e)
			}
			e.report()
		}
	}
}

// levels are Info where people should act or know, and Debug for what is told of single calls.
func (e *Event) level() slog.Level {
	switch e.Kind {
	case Refused, Faulty:
		return slog.LevelError
	case Applied, BreakerMoved:
		return slog.LevelInfo
	case RetryGivenUp:
		return slog.LevelWarn
	}
	if e.Shadow {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// report tells the hub, if this process has one.
func (e *Event) report() {
	if !telemetry.Process().Enabled() {
		return
	}
	out := telemetry.Event{
		Kind: e.Kind.String(), Subject: e.Method, Detail: e.Detail, Trace: e.TraceID, Error: e.level() >= slog.LevelWarn,
		Single: e.Kind == BreakerMoved || e.Kind == Applied || e.Kind == Refused,
	}
	if out.Subject == "" {
		out.Subject = e.Target
	}
	if e.Shadow {
		out.Detail, out.Example = "only told", e.Detail
	}
	if e.Err != nil {
		what := e.Err.Error()
		if st, ok := status.FromError(e.Err); ok {
			out.Detail, what = with(out.Detail, st.Code().String()), st.Message()
		}
		out.Example = with(out.Example, what)
	}
	telemetry.Process().Event(out)
}

// with is one text and another one.
func with(text, more string) string {
	if text == "" || more == "" {
		return text + more
	}
	return text + ": " + more
}

func (n *news) say(e *Event) {
	log := n.log
	if log == nil {
		log = slog.Default()
	}
	level := e.level()
	if !log.Enabled(context.Background(), level) {
		return
	}
	args := make([]slog.Attr, 0, 8)
	add := func(key, value string) {
		if value != "" {
			args = append(args, slog.String(key, value))
		}
	}
	add("method", e.Method)
	add("target", e.Target)
	add("version", e.Version)
	add("trace_id", e.TraceID)
	add("detail", e.Detail)
	if e.Attempt > 0 {
		args = append(args, slog.Int("attempts", e.Attempt))
	}
	if e.Err != nil {
		add("error", e.Err.Error())
	}
	if e.Shadow {
		args = append(args, slog.Bool("shadow", true))
	}
	log.LogAttrs(context.Background(), level, "policy: "+e.Kind.String(), args...)
}

// Count returns how many decisions of a kind there have been, told or lost.
func (p *Policy) Count(k Kind) uint64 {
	if k >= kindCount {
		return 0
	}
	return p.news.counts[k].Load()
}

// Lost returns how many events nobody was told of, because too many were waiting.
func (p *Policy) Lost() uint64 { return p.news.lost.Load() }

// traceOf returns the trace id of a W3C traceparent in the metadata; if there is none, that of the trace which Stile has made of the handler that calls.
func traceOf(ctx context.Context) string {
	out, _ := metadata.FromOutgoingContext(ctx)
	values := out["traceparent"]
	if len(values) == 0 {
		values = metadata.ValueFromIncomingContext(ctx, "traceparent")
	}
	if len(values) == 0 {
		return lazyctx.TraceOf(ctx)
	}
	parts := strings.SplitN(values[0], "-", 4)
	if len(parts) < 4 || len(parts[1]) != 32 {
		return ""
	}
	return parts[1]
}
