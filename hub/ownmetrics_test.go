package hub

import (
	"bytes"
	"fmt"
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
