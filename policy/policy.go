package policy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Policy is a policy file in force: the calls of the connections and servers that were given
// it obey it, from one moment to the next when [Policy.Apply] brings another one. One Policy serves
// any number of connections; breakers, limits and budgets are kept for each target
// and service. It is safe for concurrent use. One made by [New] needs no Close: it has no goroutine
// while nothing happens.
type Policy struct {
	epoch     time.Time // times of state machines are since then
	rules     atomic.Pointer[rules]
	news      *news
	following following

	mu      sync.Mutex
	targets map[string]*target // by the target of a connection; "": the server's side
}

// rules is a Config in force.
type rules struct {
	*Config
	version string
	text    func() (string, [16]byte) // canonical, and what names it
}

// Option changes what [New] makes.
type Option func(*Policy)

// WithLogger sets where decisions are logged. The default is [slog.Default].
func WithLogger(l *slog.Logger) Option { return func(p *Policy) { p.news.log = l } }

// WithRecorder sets who is told of each decision.
func WithRecorder(r Recorder) Option { return func(p *Policy) { p.news.recorder = r } }

// WithTraceID sets how a call's trace is found, to be told with each decision. The default
// takes it from traceparent in the call's metadata, outgoing or incoming.
func WithTraceID(f func(context.Context) string) Option { return func(p *Policy) { p.news.trace = f } }

// New puts c in force, which [Parse], [Load] or [Default] has made; nil is Default.
func New(c *Config, opts ...Option) *Policy { return newPolicy(c, opts).told() }

// newPolicy is New for who has more to set before anybody else has the Policy.
func newPolicy(c *Config, opts []Option) *Policy {
	if c == nil {
		c = Default()
	}
	p := &Policy{epoch: time.Now(), news: newNews(), targets: map[string]*target{}}
	for _, o := range opts {
		if o != nil {
			o(p)
		}
	}
	p.rules.Store(newRules(c))
	p.following.status = Status{Version: c.Stile.Version, Since: time.Now(), Source: SourceAPI}
	return p
}

// Config returns what is in force.
func (p *Policy) Config() *Config { return p.rules.Load().Config }

// Apply puts c in force for all calls that begin from now on; those under way end as they
// began. State whose settings have not changed, such as an open breaker, stays. Nil is [Default]. Of a Policy that
// follows a file or feed the next version of that takes c's place.
func (p *Policy) Apply(c *Config) { p.put(c, SourceAPI) }

func (p *Policy) put(c *Config, from Source) {
	if c == nil {
		c = Default()
	}
	f := &p.following
	f.mu.Lock()
	p.rules.Store(newRules(c))
	f.status.Version, f.status.Since, f.status.Source = c.Stile.Version, time.Now(), from
	f.changed = f.begun
	if from == f.from {
		f.status.Error = ""
	}
	f.mu.Unlock()
	p.news.tell(context.Background(), &Event{Kind: Applied, Version: c.Stile.Version, Detail: c.file})
}

// now is the time of state machines.
func (p *Policy) now() time.Duration { return time.Since(p.epoch) }

// at is a time of state machines as a time of day.
func (p *Policy) at(d time.Duration) time.Time { return p.epoch.Add(d) }

// since is t as state machines count; 0: t is zero.
func (p *Policy) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(p.epoch)
}

// attach returns the state for a target, made for the first of those that use it; detach is due.
func (p *Policy) attach(name string) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[name]
	if t == nil {
		t = newTarget(p, name)
		p.targets[name] = t
	}
	t.users++
	return t
}

// detach drops the state when nobody uses it any more.
func (p *Policy) detach(t *target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(p.targets, t.name)
	}
}
