package agent

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/telemetry"
)

// maxRoutes is how many a window tells of; those with the fewest calls are one for each peer then.
const maxRoutes = 5_000

// routeKey is what a window tells apart. A peer that was connected to more than once is one.
type routeKey struct {
	side      telemetry.Side
	name      telemetry.RouteName
	transport string
	peer      telemetry.Peer
}

// routes are what was counted in a window that began at from, on telemetry's clock, as it is reported: the most called first.
func routes(taken []telemetry.Taken, from time.Duration) []*hubpb.Route {
	sums := map[routeKey]*telemetry.Stats{}
	add := func(k routeKey, s *telemetry.Stats) {
		if sums[k] == nil {
			sums[k] = &telemetry.Stats{}
		}
		sums[k].Merge(s)
	}
	for _, t := range taken {
		add(routeKey{t.Side, t.RouteName, t.Transport, t.Peer}, t.Stats)
	}
	keys := sorted(sums)
	if len(keys) > maxRoutes {
		for _, k := range keys[maxRoutes:] {
			s := sums[k]
			delete(sums, k)
			k.name.Method, k.peer = telemetry.OtherMethod, telemetry.Peer{}
			add(k, s)
		}
		keys = sorted(sums)
	}
	var all []*hubpb.Route
	for _, k := range keys {
		all = append(all, route(k, sums[k], from))
	}
	return all
}

func sorted(sums map[routeKey]*telemetry.Stats) []routeKey {
	keys := make([]routeKey, 0, len(sums))
	for k := range sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b routeKey) int {
		return cmp.Or(cmp.Compare(sums[b].Calls(), sums[a].Calls()), cmp.Compare(a.name.Method, b.name.Method))
	})
	return keys
}

func route(k routeKey, s *telemetry.Stats, from time.Duration) *hubpb.Route {
	r := &hubpb.Route{
		Side: hubpb.Side_SIDE_CLIENT, Method: short(k.name.Method), Stream: k.name.Stream, Transport: k.transport, Address: short(k.peer.Address), PeerPid: int64(k.peer.PID), Topic: short(k.peer.Topic),
		Codes: map[uint32]uint64{}, Duration: histogram(&s.Duration), Failures: histogram(&s.Failures), Gap: histogram(&s.Gap), Queue: histogram(&s.Queue),
		Request: histogram(&s.Request), Response: histogram(&s.Response), DeadlineLeft: histogram(&s.Left), Wakes: s.Use.Wakes, SpinNs: int64(s.Use.Spin),
		OpenLooks: s.Open.Looks, OpenSeen: s.Open.Sum, OpenMost: s.Open.Most,
		Waits: &hubpb.Waits{Calls: s.Waits.Calls, ClientQueue: s.Waits.ClientQueue, Transport: s.Waits.Transport, ServerQueue: s.Waits.ServerQueue, Handler: s.Waits.Handler},
	}
	if p := &s.Repeats; p.Calls > 0 {
		r.Repeats = &hubpb.Repeats{Calls: p.Calls, Same: p.Same, Request: p.Request, RequestRepeated: p.RequestRepeated, Response: p.Response, ResponseRepeated: p.ResponseRepeated}
	}
	if s.Decisions.Any() {
		r.Decisions = decisions(&s.Decisions)
	}
	for _, at := range s.Arrivals.All() {
		r.Arrivals = append(r.Arrivals, int64(at-from))
		from = at
	}
	if k.side == telemetry.Server {
		r.Side = hubpb.Side_SIDE_SERVER
	}
	if k.peer.Process != (telemetry.Identity{}) {
		r.Peer = k.peer.Process[:]
	}
	for code, n := range s.Codes {
		if n > 0 {
			r.Codes[uint32(code)] = n
		}
	}
	return r
}

func decisions(d *telemetry.Decisions) *hubpb.Decisions {
	return &hubpb.Decisions{
		Retries: d[telemetry.Retry], Hedges: d[telemetry.Hedge], Breaker: d[telemetry.BreakerRefused], Limit: d[telemetry.LimitRefused], Budget: d[telemetry.BudgetRefused],
		Admission: d[telemetry.AdmissionShed], CacheHits: d[telemetry.CacheHit], Coalesced: d[telemetry.Coalesced], Fallbacks: d[telemetry.FallbackServed], Late: d[telemetry.Late],
	}
}

// histogram is nil for an empty one.
func histogram(h *telemetry.Histogram) *hubpb.Histogram {
	if h.Count() == 0 {
		return nil
	}
	raw := h.Raw()
	return &hubpb.Histogram{First: uint32(raw.First), Counts: raw.Counts, Sum: raw.Sum, Min: raw.Min, Max: raw.Max}
}

// events are what happened, as it is reported, in order.
func events(taken []telemetry.Event, lost uint64) ([]*hubpb.Event, uint64) {
	slices.SortFunc(taken, func(a, b telemetry.Event) int { return a.First.Compare(b.First) })
	var all []*hubpb.Event
	for _, e := range taken {
		all = append(all, &hubpb.Event{
			Kind: short(e.Kind), Subject: short(e.Subject), Detail: short(detail(&e)), Trace: short(e.Trace), Error: e.Error,
			FirstUnixNano: e.First.UnixNano(), LastUnixNano: e.Last.UnixNano(), Count: e.Count,
		})
	}
	return all, lost
}

// detail is what is known of an event, with what is of one of those that are alike.
func detail(e *telemetry.Event) string {
	between := ", such as: "
	switch {
	case e.Example == "" || e.Detail == "":
		between = ""
	case e.Count == 1:
		between = ": "
	}
	return e.Detail + between + e.Example
}

// maxReport is how long a report may be about, in bytes: half of what a hub takes.
const maxReport = 8 << 20

// fit makes a report such that a hub takes it: of traces it leaves out some, of the routes with the fewest calls what is not needed most, and at last the routes. What
// is left out counts as lost. It returns how long the report is.
func fit(r *hubpb.ReportRequest) (size int) {
	size = fitSpans(r)
	for keep := len(r.Routes) / 2; size > maxReport && keep > 0; keep /= 2 {
		for _, route := range r.Routes[keep:] {
			route.Failures, route.Gap, route.Queue, route.Request, route.Response, route.DeadlineLeft, route.Arrivals = nil, nil, nil, nil, nil, nil, nil
		}
		size = proto.Size(r)
	}
	for len(r.Routes) > 0 && size > maxReport {
		keep := len(r.Routes) / 2
		r.RoutesLost += uint64(len(r.Routes) - keep)
		r.Routes = r.Routes[:keep]
		size = proto.Size(r)
	}
	return size
}
