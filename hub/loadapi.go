package hub

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Loads is what GET /api/v1/load answers: what processes and their hosts used over time. Columns have a value for each step; null: nothing is known of it.
type Loads struct {
	Window    routemap.Window `json:"window"`
	Step      time.Duration   `json:"step"` // ns
	Steps     int             `json:"steps"`
	Processes []ProcessLoad   `json:"processes"` // those of 500 that told first, the busiest first
	All       int             `json:"all"`       // processes, of which 500 are told at most
	Hosts     []HostLoad      `json:"hosts"`
	Damaged   int             `json:"damaged"`
}

// ProcessLoad is what a process used.
type ProcessLoad struct {
	ID          string    `json:"id"`
	Service     string    `json:"service"`
	PID         int64     `json:"pid"`
	Host        string    `json:"host"`   // its name
	HostID      string    `json:"hostId"` // of Hosts
	User        []*Number `json:"user"`   // processors, as the next
	System      []*Number `json:"system"`
	GC          []*Number `json:"gc"`
	RunQueue    []*Number `json:"runQueue"`            // threads that were ready to run and did not, on average
	Voluntary   []*Number `json:"voluntarySwitches"`   // a second, as the next
	Involuntary []*Number `json:"involuntarySwitches"` //
	Made        []*Number `json:"made"`                // calls that ended, made
	Served      []*Number `json:"served"`
	OpenMade    []*Number `json:"openMade"` // calls at local doors that were open, at most, as the next
	OpenServed  []*Number `json:"openServed"`
	Threads     []*Number `json:"threads"` // GOMAXPROCS
}

// HostLoad is what all processes of a host used, in processors.
type HostLoad struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	User   []*Number `json:"user"`
	System []*Number `json:"system"`
	Idle   []*Number `json:"idle"`
	Steal  []*Number `json:"steal"`
	Known  []*Number `json:"known"` // by processes that report, and the hub
}

// Number has no more digits than it is worth.
type Number float64

// MarshalJSON writes 6 digits.
func (f Number) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(f), 'g', 6, 64), nil
}

// Bounds of what is answered at once.
const (
	DefaultLoadPoints = 150
	MaxLoadPoints     = 3_000
	maxLoadProcesses  = 500
	maxLoadTime       = 2 * time.Hour // nothing is kept for so long
)

// load reads from, to, process and points.
func (h *Hub) load(r *http.Request) (any, error) {
	from, to, err := h.between(r, "process", "points")
	if err != nil {
		return nil, err
	}
	if oldest := to.Add(-maxLoadTime); from.Before(oldest) {
		from = oldest
	}
	id, err := processID(r)
	if err != nil {
		return nil, err
	}
	points, err := number(r, "points", DefaultLoadPoints, MaxLoadPoints)
	if err != nil {
		return nil, err
	}
	if id == "" {
		points = min(points, DefaultLoadPoints)
	}
	g := newGrid(from, to, points)
	damaged, err := g.read(r, h.store, id)
	if err != nil {
		return nil, err
	}
	if id != "" && len(g.processes) == 0 {
		return nil, notThere{errors.New("the process has told of nothing in this time; samples are kept for an hour")}
	}
	out := g.loads()
	out.Damaged = damaged
	return out, nil
}

// grid is a stretch of time in steps of whole cells.
type grid struct {
	from      time.Time
	step      time.Duration
	n         int
	processes map[string]*loadSeries
	hosts     map[string]*loadSeries
	left      map[string]bool // processes there was no room for
}

// loadSeries is a load on the grid.
type loadSeries struct {
	is      store.Load // who it is
	covered []float64  // µs of each step
	columns [loadColumns][]float64
	cpu     float64
}

func newGrid(from, to time.Time, points int) *grid {
	g := &grid{from: from.Truncate(cell), processes: map[string]*loadSeries{}, hosts: map[string]*loadSeries{}, left: map[string]bool{}}
	long := to.Truncate(cell).Sub(g.from)
	g.step = max((long/time.Duration(points) + cell - 1).Truncate(cell), cell)
	g.n = max(int((long+g.step-1)/g.step), 1)
	return g
}

// read reads what a process used, or all; and their hosts.
func (g *grid) read(r *http.Request, s *store.Store, id string) (damaged int, err error) {
	to := g.from.Add(time.Duration(g.n) * g.step)
	damaged, err = s.Loads(r.Context(), g.from, to, id, g.add)
	if err != nil || id == "" {
		return damaged, err
	}
	for _, p := range g.processes {
		more, err := s.Loads(r.Context(), g.from, to, p.is.Host, g.add)
		return damaged + more, err
	}
	return damaged, nil
}

// add puts what was kept on the grid.
func (g *grid) add(l store.Load) {
	of, gauges := g.processes, []int{loadOpenMade, loadOpenServed, loadThreads}
	if l.ID == l.Host {
		of, gauges = g.hosts, nil
	}
	s := of[l.ID]
	if s == nil {
		if len(of) >= maxLoadProcesses {
			g.left[l.ID] = true
			return
		}
		s = &loadSeries{is: l, covered: make([]float64, g.n)}
		of[l.ID] = s
	}
	s.is.Service, s.is.Name = l.Service, l.Name
	at := l.From
	for i, us := range l.Took {
		took := time.Duration(us) * time.Microsecond
		if l.ID == l.Host && valueOf(&l, loadUser, i)+valueOf(&l, loadSystem, i)+valueOf(&l, hostIdle, i)+valueOf(&l, hostSteal, i) == 0 {
			at = at.Add(took) // nobody looked
			continue
		}
		spread(at, took, func(n int64, part float64) {
			step := int((n*int64(cell) - g.from.UnixNano()) / int64(g.step))
			if n*int64(cell) < g.from.UnixNano() || step >= g.n {
				return
			}
			s.covered[step] += part * float64(us)
			for j, column := range l.Columns {
				if len(column) == 0 {
					continue
				}
				if s.columns[j] == nil {
					s.columns[j] = make([]float64, g.n)
				}
				if slices.Contains(gauges, j) {
					s.columns[j][step] = max(s.columns[j][step], float64(column[i]))
				} else {
					s.columns[j][step] += part * float64(column[i])
				}
			}
			s.cpu += part * (valueOf(&l, loadUser, i) + valueOf(&l, loadSystem, i))
		})
		at = at.Add(took)
	}
}

func valueOf(l *store.Load, column, i int) float64 {
	if c := l.Columns[column]; len(c) > 0 {
		return float64(c[i])
	}
	return 0
}

// rate is a column by what is covered, times so much; as it is where it is none of what is used.
func (s *loadSeries) rate(column int, times float64) []*Number {
	out := make([]*Number, len(s.covered))
	for i, us := range s.covered {
		if us == 0 {
			continue
		}
		v := Number(0)
		if c := s.columns[column]; c != nil {
			if v = Number(c[i]); times > 0 {
				v = Number(times * c[i] / us)
			}
		}
		out[i] = &v
	}
	return out
}

func (g *grid) loads() Loads {
	out := Loads{
		Window: routemap.Window{From: g.from.UTC(), To: g.from.Add(time.Duration(g.n) * g.step).UTC()}, Step: g.step, Steps: g.n, All: len(g.processes) + len(g.left),
		Processes: []ProcessLoad{}, Hosts: []HostLoad{},
	}
	order := func(a, b *loadSeries) int { return cmp.Or(cmp.Compare(b.cpu, a.cpu), cmp.Compare(a.is.ID, b.is.ID)) }
	const second = 1e6
	for _, s := range slices.SortedFunc(maps.Values(g.processes), order) {
		out.Processes = append(out.Processes, ProcessLoad{
			ID: s.is.ID, Service: s.is.Service, PID: s.is.PID, Host: s.is.Name, HostID: s.is.Host,
			User: s.rate(loadUser, 1), System: s.rate(loadSystem, 1), GC: s.rate(loadGC, 1), RunQueue: s.rate(loadRunQueue, 1),
			Voluntary: s.rate(loadVoluntary, second), Involuntary: s.rate(loadInvoluntary, second), Made: s.rate(loadMade, second), Served: s.rate(loadServed, second),
			OpenMade: s.rate(loadOpenMade, 0), OpenServed: s.rate(loadOpenServed, 0), Threads: s.rate(loadThreads, 0),
		})
	}
	for _, s := range slices.SortedFunc(maps.Values(g.hosts), order) {
		out.Hosts = append(out.Hosts, HostLoad{
			ID: s.is.ID, Name: s.is.Name, User: s.rate(loadUser, 1), System: s.rate(loadSystem, 1), Idle: s.rate(hostIdle, 1), Steal: s.rate(hostSteal, 1), Known: s.rate(hostKnown, 1),
		})
	}
	return out
}
