package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// Series is what GET /api/v1/series answers: a route over time.
type Series struct {
	Window  routemap.Window `json:"window"`
	Route   SeriesRoute     `json:"route"`
	Points  []Point         `json:"points"`
	Damaged int             `json:"damaged"` // windows that could not be read, and are left out
}

// SeriesRoute names a route.
type SeriesRoute struct {
	ID string `json:"id"`
	routemap.Key
}

// Point is a route in a stretch of time. One in which it was not called has no Duration.
type Point struct {
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Calls    uint64     `json:"calls"`
	Failed   uint64     `json:"failed"`
	Duration *Durations `json:"duration,omitempty"`
}

// Durations is how long calls took, ns.
type Durations struct {
	Count   uint64     `json:"count"`
	Sum     float64    `json:"sum"`
	Min     int64      `json:"min"`
	Max     int64      `json:"max"`
	P50     int64      `json:"p50"`
	P90     int64      `json:"p90"`
	P99     int64      `json:"p99"`
	Buckets [][3]int64 `json:"buckets"` // from, up to, and how many; 8 at most for each doubling
}

// Bounds of how many points a series has, and of how long it is: longer than anything is kept.
const (
	DefaultPoints = 60
	MaxPoints     = 240
	maxSeries     = 100 * 24 * time.Hour
)

// series reads from, to, route and points.
func (h *Hub) series(r *http.Request) (any, error) {
	from, to, err := h.between(r, "route", "points")
	if err != nil {
		return nil, err
	}
	if to.Sub(from) > maxSeries {
		return nil, badQuestion{errors.New("from is more than 100 days before to: nothing is kept for so long")}
	}
	id, err := routeID(r)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, badQuestion{errors.New("route: it has to be given, as the map's routes have their id")}
	}
	points, err := number(r, "points", DefaultPoints, MaxPoints)
	if err != nil {
		return nil, err
	}
	s, err := h.store.Series(r.Context(), from, to, id, points)
	if errors.Is(err, store.ErrNoRoute) {
		return nil, notThere{err}
	}
	if err != nil {
		return nil, err
	}
	out := Series{Route: SeriesRoute{s.Key.ID(), s.Key}, Damaged: s.Damaged, Points: []Point{}}
	out.Window = routemap.Window{From: s.Points[0].From, To: s.Points[len(s.Points)-1].To}
	for _, p := range s.Points {
		out.Points = append(out.Points, pointOf(p))
	}
	return out, nil
}

func pointOf(p store.Point) Point {
	out := Point{From: p.From, To: p.To}
	if p.Stats != nil {
		out.Calls, out.Failed, out.Duration = p.Stats.Calls, p.Stats.Failed(), durations(p.Stats.Duration())
	}
	return out
}

func durations(h *telemetry.Histogram) *Durations {
	if h.Count() == 0 {
		return nil
	}
	d := &Durations{Count: h.Count(), Sum: h.Sum(), Min: h.Quantile(0), Max: h.Quantile(1), P50: h.Quantile(0.5), P90: h.Quantile(0.9), P99: h.Quantile(0.99)}
	for _, b := range h.Buckets() {
		d.Buckets = append(d.Buckets, [3]int64{b.Low, b.High, int64(b.Count)})
	}
	return d
}

// routeID reads the ID of a route; empty: there is none.
func routeID(r *http.Request) (string, error) { return hexID(r, "route") }

// processID reads the ID of a process; empty: none is asked for.
func processID(r *http.Request) (string, error) { return hexID(r, "process") }

// hexID reads the ID of what is called so.
func hexID(r *http.Request, what string) (string, error) {
	id := r.URL.Query().Get(what)
	if n, err := strconv.ParseUint(id, 16, 64); id != "" && (err != nil || fmt.Sprintf("%016x", n) != id) {
		return "", badQuestion{fmt.Errorf("%s: %.40q is no ID of a %s, which is 16 hex digits", what, id, what)}
	}
	return id, nil
}

// number reads how many are asked for, 1 to most.
func number(r *http.Request, name string, otherwise, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badQuestion{fmt.Errorf("%s: %.40q is no number from 1 to %d", name, text, most)}
	}
	return n, nil
}
