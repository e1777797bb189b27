package hub

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Forward says where traces and metrics that come are sent on, as they came.
type Forward struct {
	URL     string            // of OTLP over HTTP (http, https) or over gRPC (grpc, grpcs, which is with TLS): http://localhost:4318
	Headers map[string]string // with each; nobody must be able to read them, so that to another host they take TLS
	TLS     *tls.Config       // nil: the system's authorities

	backoff func(tried int) time.Duration
}

// Bounds of what is forwarded.
const (
	maxWaiting   = 32 << 20         // bytes of memory of each kind that wait
	forwardEach  = 10 * time.Second // for one to be sent
	forwardTries = 5 * time.Minute  // for which it is sent again
	leastBackoff = time.Second
	mostBackoff  = 30 * time.Second
	maxVia       = 8           // hubs that one goes through
	maxViaText   = maxVia * 33 // bytes of their names
	parcelSize   = 128         // bytes of a parcel that waits, beside what it says
)

// Reasons for which something is not forwarded.
const (
	dropRoom    = "no room for all that waits: the oldest"
	dropRefused = "the collector refuses it"
	dropTries   = "the collector has not taken it within 5 minutes"
	dropVia     = "it went through too many hubs"
	dropClosed  = "the hub was closed"
)

// signal is what OTLP carries.
type signal int

const (
	traces signal = iota
	points
	ownTraces // what processes that report tell of traced calls
	signals
)

// sending is how many of a kind are sent at once. Metrics keep their order.
var sending = [signals]int{traces: 4, points: 1, ownTraces: 2}

// parcel is a body that is sent on.
type parcel struct {
	signal signal
	body   []byte
	json   bool
	via    string // the hubs that it went through
}

// size is what a parcel takes of memory.
func (p *parcel) size() int { return cap(p.body) + len(p.via) + parcelSize }

// sender sends a parcel, once, and returns how much of it was not taken.
type sender interface {
	send(ctx context.Context, p *parcel) (rejected uint64, err error)
	close() error
}

// again is an error of what may be sent again.
type again struct {
	error
	after time.Duration // as the collector says; 0: it does not
}

// forwarder sends on what comes. A nil one does not. Its methods are safe for concurrent use.
type forwarder struct {
	to      string
	self    string
	sender  sender
	log     *slog.Logger
	queues  [signals]waiting
	all     sync.WaitGroup
	ctx     context.Context // of what is being sent
	cancel  context.CancelFunc
	ending  chan struct{}
	backoff func(tried int) time.Duration

	failing trouble
	mu      sync.Mutex
	sent    uint64
	bytes   uint64
	rejects uint64
	dropped map[string]uint64
	refusal error // of the last that was sent, if it was refused
	refused bool  // one was, which the log has been told
}

// waiting is a queue of parcels.
type waiting struct {
	mu    sync.Mutex
	all   []parcel
	bytes int
	more  chan struct{}
}

func newForwarder(f *Forward, self [16]byte, own map[string]net.Listener, log *slog.Logger) (*forwarder, error) {
	if f == nil {
		return nil, nil
	}
	u, err := url.Parse(f.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("forward: it takes a URL such as http://localhost:4318 or grpcs://collector:4317, without a password or a query; headers have what is secret")
	}
	secure := u.Scheme == "https" || u.Scheme == "grpcs"
	if len(f.Headers) > 0 && !secure && !Local(u.Host) {
		return nil, errors.New("forward: others could read the headers on their way: that takes https or grpcs, or an address of loopback")
	}
	for _, l := range own {
		if _, port, err := net.SplitHostPort(l.Addr().String()); err == nil && port == u.Port() && Local(u.Host) {
			return nil, fmt.Errorf("forward: %s is this hub", u.Redacted())
		}
	}
	to := &forwarder{to: u.Redacted(), self: hex.EncodeToString(self[:]), log: log, ending: make(chan struct{}), backoff: backoff, dropped: map[string]uint64{}}
	if f.backoff != nil {
		to.backoff = f.backoff
	}
	switch u.Scheme {
	case "http", "https":
		to.sender = newHTTPSender(u, f)
	case "grpc", "grpcs":
		if to.sender, err = newGRPCSender(u, f); err != nil {
			return nil, fmt.Errorf("forward: %w", err)
		}
	default:
		return nil, fmt.Errorf("forward: the URL begins with %q; there are http, https, grpc and grpcs", u.Scheme)
	}
	to.start()
	return to, nil
}

func (f *forwarder) start() {
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for kind := range signals {
		q := &f.queues[kind]
		q.more = make(chan struct{}, sending[kind])
		for range sending[kind] {
			f.all.Go(func() { f.work(q) })
		}
	}
}

// knows tells whether something has been here before.
func (f *forwarder) knows(via string) bool { return f != nil && strings.Contains(via, f.self) }

// offer has a parcel wait to be sent. It does not wait itself.
func (f *forwarder) offer(p parcel) {
	if f == nil || len(p.body) == 0 {
		return
	}
	if strings.Count(p.via, ",")+1 >= maxVia || len(p.via) > maxViaText {
		f.drop(dropVia, 1)
		return
	}
	p.via = strings.TrimPrefix(p.via+","+f.self, ",")
	if n := f.queues[p.signal].put(p); n > 0 {
		f.drop(dropRoom, n)
	}
}

// put appends a parcel, and returns how many were dropped for it.
func (q *waiting) put(p parcel) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes+p.size() > maxWaiting && len(q.all) > 0 {
		q.bytes -= q.all[0].size()
		q.all[0] = parcel{}
		q.all = q.all[1:]
		dropped++
	}
	q.all = append(q.all, p)
	q.bytes += p.size()
	select {
	case q.more <- struct{}{}:
	default: // as many as there are who send know already
	}
	return dropped
}

func (q *waiting) take() (p parcel, some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.all) == 0 {
		return parcel{}, false
	}
	p = q.all[0]
	q.all[0] = parcel{}
	q.all = q.all[1:]
	q.bytes -= p.size()
	return p, true
}

// work sends what waits, until the hub is closed and there is nothing left, or no time.
func (f *forwarder) work(q *waiting) {
	for {
		if p, some := q.take(); some {
			f.deliver(&p)
			continue
		}
		select {
		case <-q.more:
		case <-f.ending:
			if p, some := q.take(); some {
				f.deliver(&p)
				continue
			}
			return
		}
	}
}

// tell sends metrics of the hub's own while its caller waits: they do not wait among what others send, of which nothing is dropped for them. It reports whether the
// collector has answered.
func (f *forwarder) tell(body []byte) bool {
	return f.deliver(&parcel{signal: points, body: body, via: f.self})
}

// deliver sends a parcel, again and again if it may be, and reports whether the collector has answered.
func (f *forwarder) deliver(p *parcel) bool {
	began := time.Now()
	for tried := 1; ; tried++ {
		ctx, cancel := context.WithTimeout(f.ctx, forwardEach)
		rejected, err := f.sender.send(ctx, p)
		cancel()
		if err == nil {
			f.failing.is(f.log, "", nil)
			f.took(p, rejected)
			return true
		}
		var later again
		if !errors.As(err, &later) {
			f.failing.is(f.log, "", nil)
			f.refuse(err)
			return true
		}
		f.failing.is(f.log, "hub: what comes cannot be forwarded now", err)
		if time.Since(began) > forwardTries {
			f.drop(dropTries, 1)
			return false
		}
		if !f.wait(max(later.after, f.backoff(tried))) {
			f.drop(dropClosed, 1)
			return false
		}
	}
}

// wait waits, unless the hub is being closed.
func (f *forwarder) wait(d time.Duration) bool {
	t := time.NewTimer(min(d, forwardTries))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-f.ending:
		return false
	}
}

// backoff is how long to wait after so many tries: twice as long each time, and not all at once.
func backoff(tried int) time.Duration {
	d := min(leastBackoff<<min(tried-1, 10), mostBackoff)
	return d/2 + rand.N(d/2)
}

func (f *forwarder) took(p *parcel, rejected uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent++
	f.bytes += uint64(len(p.body))
	f.rejects += rejected
	f.refusal = nil
}

// refuse drops what the collector refuses. The log is told once: others may be taken in between.
func (f *forwarder) refuse(err error) {
	f.drop(dropRefused, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.refused {
		f.log.Error("hub: the collector refuses some of what is forwarded, which is dropped", "error", err)
	}
	f.refusal, f.refused = err, true
}

func (f *forwarder) drop(why string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped[why] += uint64(n)
}

// close sends what waits, each once, while ctx lets it, and what processes have counted.
func (f *forwarder) close(ctx context.Context) error {
	if f == nil {
		return nil
	}
	close(f.ending)
	done := make(chan struct{})
	go func() {
		f.all.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		f.cancel()
		<-done
	}
	f.cancel()
	if lost := f.status().Dropped[dropClosed]; lost > 0 {
		f.log.Warn("hub: what could not be forwarded any more is lost", "requests", lost)
	}
	return f.sender.close()
}

// Forwarded tells of what was sent on.
type Forwarded struct {
	To       string            `json:"to"`
	Waiting  int               `json:"waiting"`  // requests
	Bytes    int               `json:"bytes"`    // of memory that they take
	Sent     uint64            `json:"sent"`     // requests, since the hub was opened
	Size     uint64            `json:"size"`     // of them, bytes
	Rejected uint64            `json:"rejected"` // spans and data points of them that the collector did not take
	Dropped  map[string]uint64 `json:"dropped"`  // requests, by reason
	Failing  string            `json:"failing,omitempty"`
}

func (f *forwarder) status() *Forwarded {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	s := &Forwarded{To: f.to, Sent: f.sent, Size: f.bytes, Rejected: f.rejects, Dropped: maps.Clone(f.dropped)}
	if f.refusal != nil {
		s.Failing = f.refusal.Error()
	}
	f.mu.Unlock()
	for i := range f.queues {
		q := &f.queues[i]
		q.mu.Lock()
		s.Waiting, s.Bytes = s.Waiting+len(q.all), s.Bytes+q.bytes
		q.mu.Unlock()
	}
	if err := f.failing.now(); err != nil {
		s.Failing = err.Error()
	}
	return s
}
