package hub

import (
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Bounds of records.
const (
	maxReportArrivals = 64       // of a route
	maxWindowRecords  = 32 << 20 // bytes; of what comes later none is made
	maxRecordRoutes   = 1000     // of a process: those with the most calls
)

// checkArrivals tells what is wrong with when calls came.
func checkArrivals(all []int64) error {
	if len(all) > maxReportArrivals {
		return fmt.Errorf("%d arrivals; %d at most", len(all), maxReportArrivals)
	}
	sum := int64(0)
	for i, after := range all {
		if sum += after; i > 0 && after < 0 || sum > int64(longest) || sum < -int64(longest) {
			return fmt.Errorf("arrivals that are not in order, or more than %s away", longest)
		}
	}
	return nil
}

// recorder makes the records of a window.
type recorder struct {
	now   time.Time
	all   []store.Record
	bytes int
	left  uint64 // reports of which there is none, for want of room or because their clock is off
}

// add makes that of a report. route is the ID of one of its routes; empty: it is not known.
func (r *recorder) add(from *hubpb.ReportRequest, route func(*hubpb.Route) string) {
	one := &hubpb.Record{Policies: from.GetPolicies()}
	for _, of := range from.GetRoutes() { // those with the most calls are first
		if len(one.Arrived) == maxRecordRoutes {
			break
		}
		if len(of.GetArrivals()) == 0 {
			continue
		}
		if id := route(of); id != "" {
			one.Arrived = append(one.Arrived, &hubpb.Arrived{Side: of.GetSide(), Route: id, Arrivals: of.GetArrivals(), Calls: callsOf(of)})
		}
	}
	if len(one.Policies)+len(one.Arrived) == 0 {
		return
	}
	data, err := proto.Marshal(one)
	r.bytes += len(data)
	if ago := r.now.Sub(time.Unix(0, from.GetToUnixNano())); err != nil || r.bytes > maxWindowRecords || ago > loadsOld || ago < -loadsAhead {
		r.left++
		return
	}
	is := from.GetProcess()
	r.all = append(r.all, store.Record{
		ID: shortID(string(is.GetIdentity())), Service: is.GetService(), Host: is.GetHost(), PID: is.GetPid(), From: time.Unix(0, from.GetFromUnixNano()), To: time.Unix(0, from.GetToUnixNano()), Data: data,
	})
}

// Records is what GET /api/v1/records answers: for each window of a process what was in force in it, and when calls came.
type Records struct {
	Window  routemap.Window `json:"window"`
	Records []Record        `json:"records"` // in order
	More    bool            `json:"more"`    // there are later ones
	Damaged int             `json:"damaged"`
}

// Record is a window of a process.
type Record struct {
	Process  string          `json:"process"` // ID, as in Processes
	Service  string          `json:"service"`
	PID      int64           `json:"pid"`
	Host     string          `json:"host"`
	From     time.Time       `json:"from"`
	To       time.Time       `json:"to"`
	Policies []PolicyReport  `json:"policies"` // in force at its end, with their limits
	Arrived  []RouteArrivals `json:"arrived"`
}

// RouteArrivals is when calls of a route came, of those that ended in the window.
type RouteArrivals struct {
	Route string  `json:"route"` // ID
	Side  string  `json:"side"`  // "client": when they were made; "server": when they arrived
	Calls uint64  `json:"calls"`
	At    []int64 `json:"at"` // ns after the window's begin: of all calls, or of those that came first
}

// Bounds of an answer.
const (
	DefaultRecords = 100
	MaxRecords     = 2000
)

// records reads from, to, process, route and limit.
func (h *Hub) records(r *http.Request) (any, error) {
	from, to, err := h.between(r, "process", "route", "limit")
	if err != nil {
		return nil, err
	}
	id, err := processID(r)
	if err != nil {
		return nil, err
	}
	route, err := routeID(r)
	if err != nil {
		return nil, err
	}
	limit, err := number(r, "limit", DefaultRecords, MaxRecords)
	if err != nil {
		return nil, err
	}
	out := Records{Window: routemap.Window{From: from, To: to}, Records: []Record{}}
	out.Damaged, err = h.store.Records(r.Context(), from, to, id, limit+1, func(one store.Record) error {
		if len(out.Records) == limit {
			out.More = true
			return nil
		}
		rec, err := recordOf(&one, route)
		if err != nil {
			return err
		}
		out.Records = append(out.Records, rec)
		return nil
	})
	return out, err
}

// recordOf reads a record: of one route alone, if that is not empty.
func recordOf(one *store.Record, route string) (out Record, err error) {
	var is hubpb.Record
	if err := proto.Unmarshal(one.Data, &is); err != nil {
		return out, err
	}
	out = Record{one.ID, one.Service, one.PID, one.Host, one.From, one.To, []PolicyReport{}, []RouteArrivals{}}
	for _, p := range is.GetPolicies() {
		if len(p.GetHash()) != len(store.PolicyID{}) {
			return out, fmt.Errorf("a hash of %d bytes", len(p.GetHash()))
		}
		out.Policies = append(out.Policies, policyReport(p, one.Service, one.Host, one.PID, one.To))
	}
	for _, a := range is.GetArrived() {
		if route != "" && a.GetRoute() != route {
			continue
		}
		of := RouteArrivals{a.GetRoute(), "client", a.GetCalls(), make([]int64, len(a.GetArrivals()))}
		if a.GetSide() == hubpb.Side_SIDE_SERVER {
			of.Side = "server"
		}
		at := int64(0)
		for i, after := range a.GetArrivals() {
			at += after
			of.At[i] = at
		}
		out.Arrived = append(out.Arrived, of)
	}
	return out, nil
}
