package hub

import (
	"maps"
	"sync"
	"time"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
	"github.com/stile-ipc/stile/telemetry"
)

// Reasons for which the hub leaves out data points, beside those of package tracefile.
const (
	ComeBefore   = "a data point that has come before, or late"
	NoRoomSeries = "more series than there is room for"
)

// Bounds of what metrics tell.
const (
	maxMetricSeries  = 100_000
	maxMetricNumbers = 8 << 20 // numbers that are held of them
	maxMeasured      = 20_000  // routes of a window, with those that wait to be known; of more there is one
	maxWide          = 8 << 20 // buckets of what they have told in a window; what comes then is of one route, too
	pointsAtOnce     = 256
	forgetAfter      = 10 * time.Minute
)

// measured takes in what metrics tell of calls. Its methods are safe for concurrent use; draw is the keeper's.
type measured struct {
	clock func() time.Time
	began time.Time
	ways  *ways

	mu      sync.Mutex
	series  map[tracefile.ID]*series
	streams map[tracefile.ID]*stream
	numbers int // of buckets of all series
	pending map[measure]*measurement
	wide    int // buckets of all pending
	points  uint64
	others  uint64
	leftOut map[string]uint64

	together uint64 // calls for whose routes there was no room
}

// series is what is known of one that has come.
type series struct {
	last        tracefile.Distribution // as it came last, if it is cumulative
	start, time int64
	seen        time.Time
}

func (s *series) numbers() int { return len(s.last.Counts) + len(s.last.Bounds) }

// stream is a metric of a process.
type stream struct {
	first int64 // the time of its first points
	seen  time.Time
}

// measure is what calls have in common of which a metric tells.
type measure struct {
	resource                 tracefile.ID
	rank                     int
	client                   bool
	service, host, operation string
	peer                     string
	peerKind                 routemap.NodeKind
	transport                string
}

// measurement is what was told of them in a window.
type measurement struct {
	since    time.Time // when it came
	calls    uint64
	errors   map[string]uint64
	took     telemetry.Histogram
	failures telemetry.Histogram
}

func newMeasured(clock func() time.Time) *measured {
	return &measured{
		clock: clock, began: clock(), ways: newWays(), series: map[tracefile.ID]*series{}, streams: map[tracefile.ID]*stream{},
		pending: map[measure]*measurement{}, leftOut: map[string]uint64{},
	}
}

// batchOfPoints hands on the points of a request while it is read, so that it does not hold them all.
type batchOfPoints struct {
	to      *measured
	points  []*tracefile.Point
	leftOut map[string]uint64
}

func (b *batchOfPoints) take(p *tracefile.Point) {
	if b.points = append(b.points, p); len(b.points) == pointsAtOnce {
		b.flush()
	}
}

func (b *batchOfPoints) flush() {
	b.to.take(b.points, b.leftOut)
	clear(b.points)
	b.points = b.points[:0]
}

// end takes in the rest, and returns how many were left out, by reason.
func (b *batchOfPoints) end(counts tracefile.MetricCounts) map[string]uint64 {
	b.flush()
	for why, n := range counts.LeftOut {
		b.leftOut[why] += n
	}
	b.to.mu.Lock()
	defer b.to.mu.Unlock()
	b.to.others += counts.Others
	for why, n := range b.leftOut {
		b.to.leftOut[why] += n
	}
	return b.leftOut
}

// take takes in points, and adds how many it has left out, by reason.
func (m *measured) take(points []*tracefile.Point, leftOut map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	for _, p := range points {
		if why := m.add(p, now); why != "" {
			leftOut[why]++
		} else {
			m.points++
		}
	}
}

// add takes in a point, or says why not.
func (m *measured) add(p *tracefile.Point, now time.Time) (why string) {
	if at := time.Unix(0, p.Time); at.After(now.Add(farAhead)) || at.Before(now.Add(-farAgo)) {
		return FarOff
	}
	of := m.streams[p.Stream]
	if of == nil {
		if len(m.streams) >= maxMetricSeries {
			return NoRoomSeries
		}
		of = &stream{first: p.Time}
		m.streams[p.Stream] = of
	}
	of.seen = now
	s := m.series[p.Series]
	known := s != nil
	if !known {
		if len(m.series) >= maxMetricSeries {
			return NoRoomSeries
		}
		s = &series{}
	}
	if known && p.Time <= s.time {
		return ComeBefore
	}
	if more := len(p.Counts) + len(p.Bounds); !p.Delta && m.numbers-s.numbers()+more > maxMetricNumbers {
		return NoRoomSeries
	}
	diff := p.Distribution
	switch {
	case p.Delta:
	case known:
		diff = s.later(p)
	case p.Time > of.first+int64(time.Second): // its process has told of others before, and would have of this one
	case p.Start > m.began.UnixNano() && p.Start > now.Add(-forgetAfter).UnixNano(): // it has counted from then on
	default: // nobody knows since when
		diff = tracefile.Distribution{}
	}
	m.keep(p, s, now)
	m.count(p, &diff, now)
	return ""
}

// later is what a point tells beyond those before.
func (s *series) later(p *tracefile.Point) tracefile.Distribution {
	if p.Start == s.start || p.Start < s.time {
		if diff, can := since(&p.Distribution, &s.last); can {
			return diff
		}
		if p.Start == 0 && !sameBounds(&p.Distribution, &s.last) {
			return tracefile.Distribution{}
		}
	}
	return p.Distribution // it has begun anew
}

func sameBounds(a, b *tracefile.Distribution) bool {
	return a.Exponential == b.Exponential && len(a.Bounds) == len(b.Bounds)
}

func (m *measured) keep(p *tracefile.Point, s *series, now time.Time) {
	m.series[p.Series] = s
	m.numbers -= s.numbers()
	s.start, s.time, s.seen = p.Start, p.Time, now
	if !p.Delta {
		s.last = p.Distribution
	}
	m.numbers += s.numbers()
}

// count adds what a point tells to the window's.
func (m *measured) count(p *tracefile.Point, d *tracefile.Distribution, now time.Time) {
	if d.Count == 0 {
		return
	}
	k := measure{p.Resource, p.Rank, p.Client, p.Service, p.Host, p.Operation, p.Peer, p.PeerKind, p.Transport}
	to := m.pending[k]
	if to == nil || m.wide > maxWide {
		if len(m.pending) >= maxMeasured || m.wide > maxWide {
			k = measure{client: p.Client, service: "other", operation: "other", peer: "other", peerKind: routemap.External}
			to = m.pending[k]
			m.together += d.Count
		}
		if to == nil {
			to = &measurement{since: now, errors: map[string]uint64{}}
			m.pending[k] = to
		}
	}
	before := to.wide()
	to.calls += d.Count
	into := []*telemetry.Histogram{&to.took}
	if class := p.Class; class != "" {
		if _, known := to.errors[class]; !known && len(to.errors) >= maxReportCodes {
			class = "other"
		}
		to.errors[class] += d.Count
		into = append(into, &to.failures)
	}
	record(d, into...)
	m.wide += to.wide() - before
}

// wide is how many buckets it has.
func (o *measurement) wide() int { return len(o.took.Raw().Counts) + len(o.failures.Raw().Counts) }

func (o *measurement) merge(more *measurement) {
	o.calls += more.calls
	for class, n := range more.errors {
		o.errors[class] += n
	}
	o.took.Merge(&more.took)
	o.failures.Merge(&more.failures)
	if more.since.Before(o.since) {
		o.since = more.since
	}
}

// swap returns what has come since the last time, and forgets what does not come any more.
func (m *measured) swap(now time.Time) map[measure]*measurement {
	m.mu.Lock()
	defer m.mu.Unlock()
	pending := m.pending
	m.pending, m.wide = map[measure]*measurement{}, 0
	for id, s := range m.series {
		if now.Sub(s.seen) > forgetAfter {
			m.numbers -= s.numbers()
			delete(m.series, id)
		}
	}
	for id, s := range m.streams {
		if now.Sub(s.seen) > forgetAfter {
			delete(m.streams, id)
		}
	}
	return pending
}

// Measured tells of what metrics have told.
type Measured struct {
	Points  uint64            `json:"points"`  // that tell of calls, since the hub was opened
	Others  uint64            `json:"others"`  // that tell of something else, and are not kept
	LeftOut map[string]uint64 `json:"leftOut"` // points, by reason
	Series  int               `json:"series"`

	Together uint64 `json:"together"` // calls of routes for which there was no room in their window: they are of one, other
}

func (m *measured) status() Measured {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Measured{m.points, m.others, maps.Clone(m.leftOut), len(m.series), m.together}
}
