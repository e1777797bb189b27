package hub

import (
	"maps"
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Bounds of exemplars: of each bucket of a route there is the latest one.
const (
	maxExemplars    = 100_000
	maxExemplarID   = 64             // OpenMetrics has 128 characters for all of one's labels
	exemplarsFor    = 24 * time.Hour // which is how long traces are kept, at most
	exemplarTraceID = "trace_id"
	exemplarSpanID  = "span_id"
)

// exemplar is a call of a trace that is kept.
type exemplar struct {
	trace string
	span  uint64
	took  int64 // ns
	at    time.Time
}

// exemplarOf is what it shows: a bucket, by the number of bits of its bound, of a route as one side sees it.
type exemplarOf struct {
	route  string
	server bool
	bucket int8
}

// show has calls of traces that were kept be exemplars.
func (t *totals) show(traces *store.Traces, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exemplars == nil {
		t.exemplars = map[exemplarOf]exemplar{}
	}
	if len(t.exemplars) >= maxExemplars { // some may be of routes that nobody asks for
		maps.DeleteFunc(t.exemplars, func(_ exemplarOf, e exemplar) bool { return now.Sub(e.at) > exemplarsFor })
	}
	for _, k := range traces.Kept {
		if len(k.ID) > maxExemplarID {
			continue
		}
		for i := range k.Spans {
			s := &k.Spans[i]
			if s.Route == "" || s.Duration < 0 {
				continue
			}
			of := exemplarOf{s.Route, s.Kind == routemap.Server || s.Kind == routemap.Consumer, exemplarBucket(s.Duration)}
			if _, known := t.exemplars[of]; known || len(t.exemplars) < maxExemplars {
				t.exemplars[of] = exemplar{k.ID, s.ID, s.Duration, time.Unix(0, k.Start+s.Start+s.Duration)}
			}
		}
	}
}

// exemplarBucket tells durations apart as the buckets of [metrics] do.
func exemplarBucket(ns int64) int8 {
	return int8(bits.Len64(uint64(min(max(ns, leastBound-1), mostBound))))
}

// exemplarsLocked returns those of a route as one side sees it. The lock is held.
func (t *totals) exemplarsLocked(route string, server bool, now time.Time) (all []prometheus.Exemplar) {
	for bucket := exemplarBucket(0); bucket <= exemplarBucket(mostBound); bucket++ {
		of := exemplarOf{route, server, bucket}
		e, is := t.exemplars[of]
		if !is {
			continue
		}
		if now.Sub(e.at) > exemplarsFor {
			delete(t.exemplars, of)
			continue
		}
		all = append(all, prometheus.Exemplar{Value: seconds(e.took), Timestamp: e.at, Labels: prometheus.Labels{exemplarTraceID: e.trace, exemplarSpanID: spanHex(e.span)}})
	}
	return all
}

func spanHex(id uint64) string {
	text, _ := routemap.SpanHex(id).MarshalText() // never fails
	return string(text)
}
