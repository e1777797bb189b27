package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// Bounds of what processes report.
const (
	maxProcesses     = 10_000
	maxReportRoutes  = 20_000  // of one report
	maxWindowRoutes  = 200_000 // of all reports of a window
	maxWindowReports = 20_000
	maxWindowBytes   = 64 << 20 // as they come; they take some times as much
	maxReportName    = 256      // bytes
	maxReportEvents  = 1_000
	maxWindowEvents  = 20_000  // of all reports of a window; those that come later are counted
	maxWindowNoted   = 1_000   // events of the hub's own
	maxReportCodes   = 64      // of a route
	maxReportBytes   = 1 << 50 // of a route in a window
	maxReportCalls   = 1 << 40 // of a route in a window, and of each code: sums of them do not wrap
	maxListens       = 64
	processGoneAfter = 10 * time.Minute // without a report
	countedFor       = time.Minute      // a route is one that processes count, after a report of it
)

// Reasons for which reports are refused.
const (
	refusedReport  = "a report that contradicts itself"
	refusedReports = "more routes than a window has room for"
)

// identity is a process's.
type identity = [16]byte

// agents takes in what processes report. Its methods are safe for concurrent use.
type agents struct {
	clock func() time.Time
	self  identity // of this start of the hub

	counted  counted
	queues   *queues
	waiting  strangers
	measured *measured // what metrics tell, beside what processes count

	before upTo // what earlier starts of the hub have kept; it is not changed

	mu          sync.Mutex
	processes   map[identity]*process
	reports     []*hubpb.ReportRequest     // of the window that is open
	routes      int                        // of them
	bytes       int                        // of them, as they came
	events      []store.Event              // of them
	noted       []store.Event              // the hub's own
	lost        uint64                     // events there was no room for, since the hub was opened
	loads       []store.Load               // of the window
	loadNumbers int                        // of them
	unsampled   uint64                     // samples that were left out, since the hub was opened
	versions    map[policyKey]store.Policy // of policies, of the reports
	policyBytes int                        // of what processes have in force
	leftOut     uint64                     // reports of which there was no room for policies
	hosts       hosts
	programs    map[identity]program // of those that do not report
	taken       uint64               // reports
	where       directory            // of processes
	spans       uint64               // in reports
	lostSpans   uint64               // that processes had no room for
	lostRoutes  uint64               // likewise
	unrecorded  uint64               // reports of which there is no record
}

// process is one that has reported.
type process struct {
	is       *hubpb.Process
	placed   *hubpb.Process // as the directory has it
	early    bool           // it was placed in this window by a report that does not count
	seen     time.Time
	reported uint64 // the last window
	kept     uint64 // the last window that is on disk
	dropped  uint64
	load     *hubpb.Load
	calls    uint64 // of the last window, made and served
	window   time.Duration

	policies    []*hubpb.Policy // in force, without texts
	policyBytes int
}

// edge is a route, whichever way its calls go.
type edge struct {
	from, to  routemap.Node
	operation string
}

// countedRoute is the way that most calls of an edge go, and when it was reported.
type countedRoute struct {
	key   routemap.Key
	calls uint64
	at    time.Time
}

func newAgents(clock func() time.Time) *agents {
	all := &agents{
		clock: clock, processes: map[identity]*process{}, where: directory{}, counted: counted{}, hosts: newHosts(), queues: newQueues(clock), versions: map[policyKey]store.Policy{}, programs: map[identity]program{},
		measured: newMeasured(clock),
	}
	_, _ = rand.Read(all.self[:]) // never fails
	return all
}

// spansWithin is for how long room for the spans of a report is waited for, which is less than its process waits for an answer.
const spansWithin = 2 * time.Second

// reportGRPC is Report of stile.hub.v1.Agents.
func (h *Hub) reportGRPC(stream grpc.ServerStream) error {
	body, err := h.requestGRPC(stream)
	if err != nil {
		return err
	}
	answer, err := h.report(stream.Context(), body)
	h.decoding.give()
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

func (h *Hub) report(ctx context.Context, body []byte) (*hubpb.ReportResponse, error) {
	r, err := readReport(body)
	if err != nil {
		h.intake.refuse(refusedReport)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	h.agents.see(r, pidOf(ctx))
	spans := r.GetSpans()
	kept, fresh, err := h.agents.take(r, len(body)-spanBytes(r))
	if err != nil {
		h.intake.refuse(refusedReports)
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	if fresh {
		ctx, cancel := context.WithTimeout(ctx, spansWithin)
		h.addSpans(ctx, r.GetProcess(), spans)
		cancel()
	}
	return &hubpb.ReportResponse{Hub: h.agents.self[:], Kept: kept, HostTold: h.agents.hostTold(r.GetProcess())}, nil
}

// hostTold reports whether enough others tell of a process's host.
func (a *agents) hostTold(p *hubpb.Process) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hosts.toldBy(p.GetBoot(), identity(p.GetIdentity()), a.clock())
}

func checkReport(r *hubpb.ReportRequest) error {
	p := r.GetProcess()
	if len(p.GetIdentity()) != len(identity{}) {
		return fmt.Errorf("a process's identity has %d bytes, not %d", len(p.GetIdentity()), len(identity{}))
	}
	if err := checkNames(append([]string{p.GetService(), p.GetExecutable(), p.GetHost(), p.GetBoot(), p.GetStileVersion(), p.GetGoVersion()}, p.GetListens()...)...); err != nil {
		return err
	}
	if p.GetService() == "" || len(p.GetListens()) > maxListens {
		return fmt.Errorf("a process named %q that listens on %d addresses: a name is needed, and there are %d at most", p.GetService(), len(p.GetListens()), maxListens)
	}
	if strings.EqualFold(strings.Join(strings.Fields(p.GetService()), " "), hubService) {
		return fmt.Errorf("a process named %q: that is the hub's own name", p.GetService())
	}
	if took := r.GetToUnixNano() - r.GetFromUnixNano(); took < 0 || took > int64(longest) {
		return fmt.Errorf("a window of %s", time.Duration(took))
	}
	if len(r.GetRoutes()) > maxReportRoutes {
		return fmt.Errorf("%d routes; %d at most", len(r.GetRoutes()), maxReportRoutes)
	}
	if len(r.GetEvents()) > maxReportEvents {
		return fmt.Errorf("%d events; %d at most", len(r.GetEvents()), maxReportEvents)
	}
	if err := checkLoad(r.GetLoad()); err != nil {
		return err
	}
	if err := checkSamples(r.GetSamples()); err != nil {
		return err
	}
	for _, e := range r.GetEvents() {
		if err := checkNames(e.GetKind(), e.GetSubject(), e.GetDetail(), e.GetTrace()); err != nil {
			return fmt.Errorf("an event: %w", err)
		}
		if e.GetFirstUnixNano() < 0 || e.GetLastUnixNano() < e.GetFirstUnixNano() || e.GetCount() == 0 {
			return fmt.Errorf("an event from %d to %d, %d times", e.GetFirstUnixNano(), e.GetLastUnixNano(), e.GetCount())
		}
	}
	if err := checkQueues(r.GetQueues()); err != nil {
		return err
	}
	if len(r.GetSpans()) > maxReportSpans {
		return fmt.Errorf("%d spans; %d at most", len(r.GetSpans()), maxReportSpans)
	}
	for _, s := range r.GetSpans() {
		if err := checkSpan(s); err != nil {
			return fmt.Errorf("a span: %w", err)
		}
	}
	for _, route := range r.GetRoutes() {
		if err := checkRoute(route); err != nil {
			return fmt.Errorf("route %.256q: %w", route.GetMethod(), err)
		}
	}
	return checkPolicies(r.GetPolicies())
}

func checkNames(names ...string) error {
	for _, name := range names {
		if len(name) > maxReportName || !utf8.ValidString(name) {
			return fmt.Errorf("a name of %d bytes; %d at most, of UTF-8", len(name), maxReportName)
		}
	}
	return nil
}

func checkRoute(r *hubpb.Route) error {
	if err := checkNames(r.GetMethod(), r.GetTransport(), r.GetAddress(), r.GetTopic()); err != nil {
		return err
	}
	if r.GetSide() != hubpb.Side_SIDE_CLIENT && r.GetSide() != hubpb.Side_SIDE_SERVER {
		return fmt.Errorf("side %d", r.GetSide())
	}
	if n := len(r.GetPeer()); n != 0 && n != len(identity{}) {
		return fmt.Errorf("a peer's identity of %d bytes", n)
	}
	if r.GetWakes() > maxReportCalls || r.GetSpinNs() < 0 {
		return fmt.Errorf("%d wake-ups, and waits of %d ns", r.GetWakes(), r.GetSpinNs())
	}
	if n := max(r.GetOpenLooks(), r.GetOpenSeen(), r.GetOpenMost()); n > maxReportCalls || r.GetOpenLooks() == 0 && n > 0 {
		return fmt.Errorf("%d open calls of %d moments; %d at most", n, r.GetOpenLooks(), uint64(maxReportCalls))
	}
	if r.GetWaits().GetCalls() > maxReportCalls {
		return fmt.Errorf("%d calls that waited; %d at most", r.GetWaits().GetCalls(), uint64(maxReportCalls))
	}
	if w := r.GetWaits(); min(w.GetClientQueue(), w.GetTransport(), w.GetServerQueue(), w.GetHandler()) < 0 {
		return fmt.Errorf("a wait of less than nothing")
	}
	if err := checkArrivals(r.GetArrivals()); err != nil {
		return err
	}
	if p := r.GetRepeats(); p.GetCalls() > maxReportCalls || p.GetSame() > p.GetCalls() || p.GetRequest() > maxReportBytes || p.GetRequestRepeated() > p.GetRequest() || p.GetResponse() > maxReportBytes || p.GetResponseRepeated() > p.GetResponse() {
		return fmt.Errorf("more is repeated than there was: %v", p)
	}
	if d := decisionsOf(r.GetDecisions()); d.Most() > maxReportCalls {
		return fmt.Errorf("%d decisions; %d at most of each", d.Most(), uint64(maxReportCalls))
	}
	if len(r.GetCodes()) > maxReportCodes {
		return fmt.Errorf("%d codes; %d at most", len(r.GetCodes()), maxReportCodes)
	}
	for _, n := range r.GetCodes() {
		if n > maxReportCalls {
			return fmt.Errorf("%d calls; %d at most", n, uint64(maxReportCalls))
		}
	}
	for _, h := range []*hubpb.Histogram{r.GetDuration(), r.GetFailures(), r.GetGap(), r.GetQueue(), r.GetRequest(), r.GetResponse(), r.GetDeadlineLeft()} {
		of, err := histogram(h)
		if err != nil {
			return err
		}
		if of.Count() > maxReportCalls {
			return fmt.Errorf("a histogram of %d values; %d at most", of.Count(), uint64(maxReportCalls))
		}
	}
	return nil
}

func histogram(h *hubpb.Histogram) (telemetry.Histogram, error) {
	return telemetry.FromRaw(telemetry.Raw{First: int(h.GetFirst()), Counts: h.GetCounts(), Sum: h.GetSum(), Min: h.GetMin(), Max: h.GetMax()})
}

// take takes in a report, and tells which windows of its process are on disk, and whether it counts. One that has come before counts once, and one that is for an
// earlier start of the hub not at all: what was reported before it has to come first.
func (a *agents) take(r *hubpb.ReportRequest, bytes int) (kept uint64, fresh bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := identity(r.GetProcess().GetIdentity())
	now := a.clock()
	p := a.processes[id]
	if p == nil {
		if len(a.processes) >= maxProcesses {
			return 0, false, fmt.Errorf("%d processes have reported in the last %s, and no more are taken in", len(a.processes), processGoneAfter)
		}
		p = &process{reported: a.before[id], kept: a.before[id]}
		a.processes[id] = p
	}
	p.is, p.seen, p.dropped = r.GetProcess(), now, r.GetDropped()
	if r.GetSequence() <= p.reported || string(r.GetHub()) != string(a.self[:]) {
		if !p.early { // others are found from the next window on
			p.early = a.placeLocked(p)
		}
		return p.kept, false, nil
	}
	if a.routes+len(r.GetRoutes()) > maxWindowRoutes || a.bytes+bytes > maxWindowBytes || len(a.reports) >= maxWindowReports {
		return 0, false, fmt.Errorf("processes have reported %d routes in this window, in %d reports of %d bytes; try again in the next", a.routes, len(a.reports), a.bytes)
	}
	a.placeLocked(p)
	p.reported, p.load, p.window = r.GetSequence(), r.GetLoad(), time.Duration(r.GetToUnixNano()-r.GetFromUnixNano())
	p.calls = callsOf(r.GetRoutes()...)
	a.taken++
	a.reports = append(a.reports, r)
	a.routes += len(r.GetRoutes())
	a.bytes += bytes
	a.lost += r.GetEventsLost()
	a.sampledLocked(r, now)
	for _, e := range r.GetEvents() {
		if len(a.events) >= maxWindowEvents {
			a.lost++
			continue
		}
		a.events = append(a.events, store.Event{
			First: time.Unix(0, e.GetFirstUnixNano()).UTC(), Last: time.Unix(0, e.GetLastUnixNano()).UTC(), Service: p.is.GetService(), Host: p.is.GetHost(), PID: p.is.GetPid(),
			Kind: e.GetKind(), Subject: e.GetSubject(), Detail: e.GetDetail(), Trace: e.GetTrace(), Error: e.GetError(), Count: e.GetCount(),
		})
	}
	a.queues.take(p.is, p.window, r.GetQueues())
	if !a.inForceLocked(p, r.GetPolicies()) {
		r.Policies = nil
		a.leftOut++
	}
	a.lostRoutes += r.GetRoutesLost()
	a.spans += uint64(len(r.GetSpans()))
	a.lostSpans += r.GetSpansLost()
	r.Events, r.Queues, r.Spans = nil, nil, nil
	return p.kept, true, nil
}

// placeLocked has it known where a process listens, and tells whether that are other places than before.
func (a *agents) placeLocked(p *process) bool {
	if slices.Equal(p.placed.GetListens(), p.is.GetListens()) && p.placed.GetService() == p.is.GetService() {
		return false
	}
	a.where.add(p.is)
	p.placed = p.is
	return len(p.is.GetListens()) > 0
}

// note takes in an event of the hub's own.
func (a *agents) note(e store.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.noted) >= maxWindowNoted {
		a.lost++
		return
	}
	a.noted = append(a.noted, e)
}

func callsOf(routes ...*hubpb.Route) (n uint64) {
	for _, r := range routes {
		for _, of := range r.GetCodes() {
			n += of
		}
	}
	return n
}

// upTo is which windows of processes are in one of the hub's.
type upTo map[identity]uint64

// onDisk heeds that windows are kept.
func (a *agents) onDisk(windows upTo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range windows {
		if p := a.processes[id]; p != nil {
			p.kept = max(p.kept, n)
		}
	}
}

// errorClass is how maps name a code of gRPC.
func errorClass(code uint32) string {
	return cmp.Or(telemetry.CodeName(int(code)), "UNKNOWN")
}

// Agents tells of what processes have reported.
type Agents struct {
	Processes int    `json:"processes"` // in the last 10 minutes
	Reports   uint64 `json:"reports"`   // windows, since the hub was opened
	Lost      uint64 `json:"lost"`      // events that there was no room for
	Unsampled uint64 `json:"unsampled"` // samples of which the clock was off, or that there was no room for
	LeftOut   uint64 `json:"leftOut"`   // reports of which there was no room for the policies, and policies while what is over could not be kept
	Spans     uint64 `json:"spans"`     // of traced calls, in these windows
	SpansLost uint64 `json:"spansLost"` // that processes had no room for
	NoRoom    uint64 `json:"noRoom"`    // times that a queue was told of for which there was no room, and its windows while what is over could not be kept

	RoutesLost uint64 `json:"routesLost"` // that processes had no room for
	Unrecorded uint64 `json:"unrecorded"` // reports of which it is not kept what was in force and when calls came: there was no room, or their clock was off
}

// unkept counts what there was no room for while the disk was full, or did not answer.
func (a *agents) unkept(of noRoom) {
	a.queues.lose(of.queues)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost += of.events
	a.unsampled += of.samples
	a.leftOut += of.policies
	a.unrecorded += of.records
}

func (a *agents) status() Agents {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Agents{len(a.processes), a.taken, a.lost, a.unsampled, a.leftOut, a.spans, a.lostSpans, a.queues.noRoom(), a.lostRoutes, a.unrecorded}
}
