package hub

import (
	"net/http"
	"slices"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// briefMost is how many lines of each kind but routes a brief map has.
const briefMost = 500

// Brief is what GET /api/v1/brief answers: the map without samples, and with quantiles instead of histograms, for who shows it again and again.
type Brief struct {
	Map
	Routes   []BriefRoute             `json:"routes"`
	Paths    []routemap.HotPath       `json:"paths"` // hot ones
	Blocking []routemap.BlockingPoint `json:"blocking"`
	Chains   []routemap.Chain         `json:"chains"`
	Findings []routemap.Finding       `json:"findings"`
	All      map[string]int           `json:"all"`   // how many there are of what is cut
	Spent    int64                    `json:"spent"` // ns: how long all roots took, on critical paths
}

// BriefRoute is a route with quantiles. Evidence is told of one that was asked for alone.
type BriefRoute struct {
	ID string `json:"id"`
	routemap.Key
	routemap.Stats
	Failed   uint64   `json:"failed"`
	Duration Quantity `json:"duration,omitzero"`
	Client   Quantity `json:"client,omitzero"`
	Server   Quantity `json:"server,omitzero"`
	Failures Quantity `json:"failures,omitzero"`
	Gap      Quantity `json:"gap,omitzero"`
	Request  Quantity `json:"request,omitzero"`
	Response Quantity `json:"response,omitzero"`
	Left     Quantity `json:"deadlineLeft,omitzero"`
	Samples  []int64  `json:"samples,omitempty"` // none

	Inconsistent bool `json:"inconsistent,omitempty"`
}

// Quantity is what a histogram says, in short.
type Quantity struct {
	Count uint64  `json:"count"`
	Sum   float64 `json:"sum"`
	Min   int64   `json:"min"`
	Max   int64   `json:"max"`
	P50   int64   `json:"p50"`
	P90   int64   `json:"p90"`
	P99   int64   `json:"p99"`
}

func quantityOf(h *telemetry.Histogram) Quantity {
	if h.Count() == 0 {
		return Quantity{}
	}
	return Quantity{h.Count(), h.Sum(), h.Quantile(0), h.Quantile(1), h.Quantile(0.5), h.Quantile(0.9), h.Quantile(0.99)}
}

// brief answers with all routes, or with that of an ID, which may be none.
func (h *Hub) brief(r *http.Request) (any, error) {
	from, to, err := h.between(r, "route")
	if err != nil {
		return nil, err
	}
	route, err := routeID(r)
	if err != nil {
		return nil, err
	}
	m, err := h.Map(r.Context(), from, to)
	if err != nil {
		return nil, err
	}
	return briefOf(m, route), nil
}

func briefOf(m Map, route string) Brief {
	b := Brief{
		Map: m, Routes: []BriefRoute{}, Paths: hotOnes(m.Paths), Blocking: first(m.Blocking), Chains: first(m.Chains), Findings: first(m.Findings),
		All: map[string]int{"routes": len(m.Routes), "paths": len(m.Paths), "blocking": len(m.Blocking), "chains": len(m.Chains), "findings": len(m.Findings)},
	}
	for _, n := range m.Nodes {
		b.Spent += n.Critical
	}
	for _, one := range m.Routes {
		b.Spent += one.Critical
		id := one.ID()
		if route != "" && route != id {
			continue
		}
		s := *one.Stats
		short := BriefRoute{
			ID: id, Key: one.Key, Failed: s.Failed(), Duration: quantityOf(s.Duration()), Client: quantityOf(&s.Client), Server: quantityOf(&s.Server),
			Failures: quantityOf(&s.Failures), Gap: quantityOf(&s.Gap), Request: quantityOf(&s.Request), Response: quantityOf(&s.Response), Left: quantityOf(&s.Left), Inconsistent: one.Inconsistent(),
		}
		if route == "" {
			s.Evidence = nil
		}
		short.Stats = s
		b.Routes = append(b.Routes, short)
	}
	return b
}

func hotOnes(all []routemap.HotPath) []routemap.HotPath {
	return first(slices.DeleteFunc(append([]routemap.HotPath{}, all...), func(p routemap.HotPath) bool { return !p.Hot }))
}

func first[E any](all []E) []E { return all[:min(len(all), briefMost)] }
