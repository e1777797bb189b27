package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// TraceList is what GET /api/v1/traces answers: whole traces that are kept, the newest first.
type TraceList struct {
	Window  routemap.Window `json:"window"`
	Traces  []ListedTrace   `json:"traces"`
	Kept    int64           `json:"kept"` // in this time
	Seen    int64           `json:"seen"` // of how many
	Damaged int             `json:"damaged"`
}

// ListedTrace is a trace of a list, named by its first span.
type ListedTrace struct {
	ID       string    `json:"id"`
	Service  string    `json:"service"`
	Name     string    `json:"name"`
	Start    time.Time `json:"start"`
	Duration int64     `json:"duration"` // ns
	Spans    int       `json:"spans"`
	Failed   bool      `json:"failed"`         // any span has
	Why      []string  `json:"why"`            // it is kept: as part of a sample, or because it is slow, or has failed
	Call     int64     `json:"call,omitempty"` // ns: the longest of its calls that were asked for, if a route was
}

// Trace is what GET /api/v1/trace answers.
type Trace struct {
	ID       string          `json:"id"`
	Start    time.Time       `json:"start"`
	Duration int64           `json:"duration"` // ns
	Failed   bool            `json:"failed"`
	Spans    []TraceSpan     `json:"spans"`  // parents before children
	Window   routemap.Window `json:"window"` // in which it was complete
}

// TraceSpan is a span of a trace.
type TraceSpan struct {
	ID       routemap.SpanHex `json:"id"`
	Parent   string           `json:"parent"` // empty: the trace has none
	Service  string           `json:"service"`
	Name     string           `json:"name"`
	Kind     string           `json:"kind"`
	Start    int64            `json:"start"` // ns after the trace's
	Duration int64            `json:"duration"`
	Error    string           `json:"error"`
	Route    string           `json:"route"`    // ID of that of which it is a call; empty: of none
	Critical [][2]int64       `json:"critical"` // from and to, ns after the trace's start

	Waits  *routemap.SpanWaits `json:"waits,omitempty"`  // of a call that Stile has traced: where it waited. What is not known is 0
	Call   *routemap.SpanCall  `json:"call,omitempty"`   // likewise: what else was noted of it
	Weight uint32              `json:"weight,omitempty"` // of a trace's first span: how many calls it stands for
}

// Bounds of how many traces are listed.
const (
	DefaultTraces = 50
	MaxTraces     = 500
)

// kinds are the names of spans' kinds, in their order.
var kinds = []string{"unknown", "internal", "server", "client", "producer", "consumer"}

// traces reads from, to, route, min, max and limit.
func (h *Hub) traces(r *http.Request) (any, error) {
	from, to, err := h.between(r, "route", "min", "max", "limit")
	if err != nil {
		return nil, err
	}
	var f store.Filter
	if f.Route, err = routeID(r); err != nil {
		return nil, err
	}
	if f.Limit, err = number(r, "limit", DefaultTraces, MaxTraces); err != nil {
		return nil, err
	}
	if f.Min, err = duration(r, "min"); err != nil {
		return nil, err
	}
	if f.Max, err = duration(r, "max"); err != nil {
		return nil, err
	}
	if f.Max > 0 && f.Min > f.Max {
		return nil, badQuestion{fmt.Errorf("min is %s, which is more than max", f.Min)}
	}
	list, err := h.store.List(r.Context(), from, to, f)
	if err != nil {
		return nil, err
	}
	out := TraceList{Window: routemap.Window{From: from, To: to}, Traces: []ListedTrace{}, Kept: list.Kept, Seen: list.Seen, Damaged: list.Damaged}
	for _, t := range list.Traces {
		out.Traces = append(out.Traces, ListedTrace{t.ID, t.Service, t.Name, time.Unix(0, t.Start).UTC(), t.Duration, t.Spans, t.Failed, reasons(t.Why), t.Call})
	}
	return out, nil
}

func reasons(why store.Why) []string {
	all := []string{}
	for i, name := range []string{"sample", "slow", "failed"} {
		if why>>i&1 == 1 {
			all = append(all, name)
		}
	}
	return all
}

// duration reads one that is positive; 0: there is none.
func duration(r *http.Request, name string) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, badQuestion{fmt.Errorf("%s: %.40q is no duration, as 20ms is", name, text)}
	}
	return d, nil
}

// maxTraceID is how many digits a trace's ID may have. OpenTelemetry's have 32.
const maxTraceID = 64

// trace reads id.
func (h *Hub) trace(r *http.Request) (any, error) {
	if err := onlyKnown(r.URL.Query(), "id"); err != nil {
		return nil, err
	}
	id := strings.ToLower(r.URL.Query().Get("id"))
	if id == "" || len(id) > maxTraceID || len(id)%2 != 0 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, badQuestion{fmt.Errorf("id: %.80q is no ID of a trace, which is 32 hex digits", id)}
	}
	t, w, err := h.store.Trace(r.Context(), id)
	if errors.Is(err, store.ErrNoTrace) {
		return nil, notThere{err}
	}
	if err != nil {
		return nil, err
	}
	out := Trace{ID: t.ID, Start: time.Unix(0, t.Start).UTC(), Duration: t.Duration, Failed: t.Failed, Window: routemap.Window{From: w.Start, To: w.End()}, Spans: []TraceSpan{}}
	for i := range t.Spans {
		s := &t.Spans[i]
		one := TraceSpan{routemap.SpanHex(s.ID), "", s.Service, s.Name, kinds[min(int(s.Kind), len(kinds)-1)], s.Start, s.Duration, s.Error, s.Route, s.Critical, s.Waits, s.Call, s.Weight}
		if s.Parent >= 0 {
			one.Parent = fmt.Sprintf("%016x", t.Spans[s.Parent].ID)
		}
		if one.Critical == nil {
			one.Critical = [][2]int64{}
		}
		out.Spans = append(out.Spans, one)
	}
	return out, nil
}
