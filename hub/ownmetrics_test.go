package hub

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// wideRoutes is a map of n routes whose calls took from 1 µs to minutes.
func wideRoutes(n int) *routemap.Map {
	var wide telemetry.Histogram
	for v := int64(1 << 10); v < 1<<38; v += v / 40 {
		wide.Record(v)
	}
	m := routemap.New()
	for i := range n {
		to := routemap.Node{Kind: routemap.Service, Name: fmt.Sprint("service ", i%10)}
		m.Counted(routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "front"}, To: to, Operation: fmt.Sprint("s.S/M", i), Mode: routemap.Sync}, &routemap.Stats{Calls: wide.Count(), Client: wide, Server: wide})
	}
	return m
}

// TestOwnAside: for what processes count nothing is dropped that others send and that waits for the collector; all of it arrives, once, in requests that collectors take.
func TestOwnAside(t *testing.T) {
	stands := make(chan struct{})
	c := newCollector(t, func(int, http.ResponseWriter) bool { <-stands; return true })
	h := openHub(t, Config{Forward: &Forward{URL: c.URL, backoff: soon}})
	const routes = 3000
	h.totals.add(wideRoutes(routes), time.Now())
	sent := 0
	for size := 1 << 20; size >= 1<<13; size /= 2 {
		for h.forward.status().Bytes+size+parcelSize < maxWaiting {
			h.forward.offer(parcel{signal: points, body: bytes.Repeat([]byte{0xff}, size)}) // which is no protobuf
			sent++
		}
	}
	closed := make(chan struct{})
	go func() { closeHub(t, h); close(closed) }()
	<-h.forward.ending
	close(stands)
	<-closed
	if s := h.forward.status(); len(s.Dropped) != 0 || s.Waiting != 0 || int(s.Sent) != len(c.bodies) {
		t.Errorf("%+v, %d arrived", s, len(c.bodies))
	}
	others, series := 0, map[string]int{}
	for _, body := range c.bodies {
		data := new(metricspb.MetricsData)
		if proto.Unmarshal(body, data) != nil {
			others++
			continue
		}
		if len(body) > 2<<20 {
			t.Errorf("a request of %d bytes", len(body))
		}
		for _, r := range data.ResourceMetrics {
			m := r.ScopeMetrics[0].Metrics[0]
			for _, p := range m.GetExponentialHistogram().DataPoints {
				series[m.Name+p.String()]++
			}
		}
	}
	if others != sent || len(series) != 2*routes {
		t.Errorf("%d of %d of others, %d series of %d", others, sent, len(series), 2*routes)
	}
	for name, n := range series {
		if n != 1 {
			t.Errorf("%d times: %.100s", n, name)
		}
	}
}

// TestOwnSums: where calls waited, what was decided of them, their errors and bytes go on, too, as sums that grow, in the name of who calls.
func TestOwnSums(t *testing.T) {
	c := newCollector(t, func(int, http.ResponseWriter) bool { return true })
	h := openHub(t, Config{Forward: &Forward{URL: c.URL, backoff: soon}})
	m, s := routemap.New(), &routemap.Stats{Calls: 10, Errors: map[string]uint64{"UNAVAILABLE": 3}, Switches: 7, Waits: routemap.Waits{Calls: 10, ClientQueue: 1e9, Handler: 2e9}, Decisions: routemap.Decisions{Retries: 4, CacheHits: 5}}
	s.Client.RecordN(1e6, 10)
	s.Request.RecordN(100, 10)
	m.Counted(routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "front"}, To: routemap.Node{Kind: routemap.Service, Name: "back"}, Transport: routemap.SHM, Operation: "s.S/M", Mode: routemap.Sync}, s)
	h.totals.add(m, time.Now())
	h.totals.add(m, time.Now())
	closeHub(t, h)
	got := map[string]float64{}
	for _, body := range c.bodies {
		data := new(metricspb.MetricsData)
		if err := proto.Unmarshal(body, data); err != nil {
			t.Fatal(err)
		}
		for _, r := range data.ResourceMetrics {
			if saidBy(r.Resource.Attributes)["service.name"] != "front" {
				t.Errorf("in the name of %v", r.Resource)
			}
			for _, one := range r.ScopeMetrics[0].Metrics {
				if one.GetSum() != nil && (!one.GetSum().IsMonotonic || one.GetSum().AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE) {
					t.Errorf("%s does not grow", one.Name)
				}
				for _, p := range one.GetSum().GetDataPoints() {
					said := saidBy(p.Attributes)
					if said["rpc.method"] != "s.S/M" || said["peer.service"] != "back" || said["network.transport"] != "shm" || p.StartTimeUnixNano == 0 || p.TimeUnixNano < p.StartTimeUnixNano {
						t.Errorf("%s: %v", one.Name, p)
					}
					of := ""
					for _, name := range []string{"error.type", "stile.call.part", "stile.call.decision"} {
						if said[name] != nil {
							of = " " + said[name].(string)
						}
					}
					got[one.Name+" "+one.Unit+of] = p.GetAsDouble()
				}
			}
		}
	}
	want := map[string]float64{
		"stile.call.errors {call} UNAVAILABLE": 6, "stile.call.wait s client_queue": 2, "stile.call.wait s handler": 4, "stile.call.decisions {decision} retries": 8, "stile.call.decisions {decision} cache_hits": 10,
		"stile.call.context_switches {switch}": 14, "stile.call.request.size By": 2000,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}
