package hub

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// A window of a host has cells: processes look at what they use at the same times, or later, and what they tell of is spread over the cells in which it was.
const (
	cell     = 200 * time.Millisecond
	cells    = int64(store.Finest / cell)
	maxSlots = 20_000 // of all hosts
	maxHosts = maxProcesses
)

// slot is what is known of a host's window. Times are ns.
type slot struct {
	host  [cells]hostCell
	known [cells]float64 // used by processes that report
	who   map[identity]bool
}

// hostCell is what a process has told of the host in a cell: of others, nothing is added to it.
type hostCell struct {
	who  identity
	part float64    // of the cell, that it has told of
	of   [4]float64 // in that: user, system, idle, steal
}

// looked reports whether what was told stands for all of the cell.
func (c *hostCell) looked() bool { return c.part >= 0.5 }

type slotKey struct {
	boot  string
	start int64 // in windows since 1970
}

// hosts puts together what a host used, and what of it is that of processes that report. Those of agents, it is used under their lock.
type hosts struct {
	boot  string // of the hub's host
	slots map[slotKey]*slot
	names map[string]string // by boot, as the first that reports has it
	last  map[string]lastSlot
	own   map[int64]*[cells]float64 // what the hub used, by window

	tellers map[string][]hostTeller // of a host, by boot: tellersEach at most
}

// To read what the host uses costs a process as much as to look at itself, so two of a host do it, as one may end at any time.
const (
	tellersEach = 2
	tellerFor   = 15 * time.Second // without a word of the host
)

// hostTeller is a process that tells of its host.
type hostTeller struct {
	who  identity
	told time.Time // last
}

// lastSlot is who reported in a host's window that is over.
type lastSlot struct {
	start int64
	who   map[identity]bool
}

func newHosts() hosts {
	return hosts{boot: usage.Boot(), slots: map[slotKey]*slot{}, names: map[string]string{}, last: map[string]lastSlot{}, own: map[int64]*[cells]float64{}, tellers: map[string][]hostTeller{}}
}

// spread calls f with each cell that a stretch of time covers, and the part of the stretch that is in it.
func spread(from time.Time, took time.Duration, f func(n int64, part float64)) {
	begin := from.UnixNano()
	end := begin + int64(took)
	if took <= 0 {
		f(begin/int64(cell), 1)
	}
	for at := begin; at < end; {
		n := at / int64(cell)
		until := min((n+1)*int64(cell), end)
		f(n, float64(until-at)/float64(took))
		at = until
	}
}

// at is a host's window, which is made; nil: there are too many.
func (h *hosts) at(boot string, start int64) *slot {
	k := slotKey{boot, start}
	s := h.slots[k]
	if s == nil && len(h.slots) < maxSlots {
		s = &slot{who: map[identity]bool{}}
		h.slots[k] = s
	}
	return s
}

// tells notes that a process tells of its host.
func (h *hosts) tells(boot string, id identity, now time.Time) {
	h.restTellers(boot, now)
	all := h.tellers[boot]
	if i := slices.IndexFunc(all, func(t hostTeller) bool { return t.who == id }); i >= 0 {
		all[i].told = now
	} else if len(all) < tellersEach && (len(all) > 0 || len(h.tellers) < maxHosts) {
		h.tellers[boot] = append(all, hostTeller{id, now})
	}
}

// toldBy reports whether enough others tell of a process's host.
func (h *hosts) toldBy(boot string, id identity, now time.Time) bool {
	h.restTellers(boot, now)
	all := h.tellers[boot]
	return len(all) >= tellersEach && !slices.ContainsFunc(all, func(t hostTeller) bool { return t.who == id })
}

// restTellers forgets those of whom nobody has heard.
func (h *hosts) restTellers(boot string, now time.Time) {
	all := slices.DeleteFunc(h.tellers[boot], func(t hostTeller) bool { return now.Sub(t.told) > tellerFor })
	if h.tellers[boot] = all; len(all) == 0 {
		delete(h.tellers, boot)
	}
}

// add adds samples of a process, which were checked, and reports whether they tell of its host.
func (h *hosts) add(p *hubpb.Process, run *hubpb.Sample) (tells bool) {
	boot, id := p.GetBoot(), identity(p.GetIdentity())
	if boot == "" {
		return false
	}
	at := time.Unix(0, run.GetFromUnixNano())
	columns, host := columnsOf(run), hostOf(run)
	value := func(column []uint64, i int) float64 {
		if len(column) == 0 {
			return 0
		}
		return 1000 * float64(column[i])
	}
	for i, us := range run.GetTookUs() {
		took := time.Duration(us) * time.Microsecond
		used := value(columns[loadUser], i) + value(columns[loadSystem], i)
		spread(at, took, func(n int64, part float64) {
			if s := h.at(boot, n/cells); s != nil {
				s.known[n%cells] += part * used
				s.who[id] = true
				if h.names[boot] == "" {
					h.names[boot] = cmp.Or(p.GetHost(), "of boot "+boot[:min(len(boot), 8)])
				}
			}
		})
		var of [4]float64
		for j := range of {
			of[j] = value(host[j], i)
		}
		if of != [4]float64{} {
			h.look(boot, id, at, took, of)
			tells = true
		}
		at = at.Add(took)
	}
	return tells
}

// look takes what a process says of its host, where no other one has.
func (h *hosts) look(boot string, id identity, at time.Time, took time.Duration, of [4]float64) {
	spread(at, took, func(i int64, part float64) {
		s := h.at(boot, i/cells)
		if s == nil {
			return
		}
		c := &s.host[i%cells]
		if c.part > 0 && c.who != id {
			return
		}
		c.who = id
		c.part += part * float64(took) / float64(cell)
		for j := range of {
			c.of[j] += part * of[j]
		}
	})
}

// spend notes what the hub used.
func (h *hosts) spend(u usage.Used) {
	spread(u.From, u.Took, func(n int64, part float64) {
		if h.own[n/cells] == nil {
			h.own[n/cells] = new([cells]float64)
		}
		h.own[n/cells][n%cells] += part * float64(u.User+u.System)
	})
	for start := range h.own {
		if old := u.From.Add(-loadsOld).UnixNano() / int64(store.Finest); start < old {
			delete(h.own, start)
		}
	}
}

// over ends the windows of hosts that end by a time, and returns them, but for what comes late of one that was over before: its row stays as it is. On the map of the hub's window that begins at start it notes what others used in them, if they are of the
// time just before, and nobody who reported in the one before is missing.
func (h *hosts) over(m *routemap.Map, start, end time.Time) (all []store.Load) {
	var done []slotKey
	for k := range h.slots {
		if !k.end().After(end) {
			done = append(done, k)
		}
	}
	slices.SortFunc(done, func(a, b slotKey) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.boot, b.boot)) })
	for _, k := range done {
		s := h.slots[k]
		delete(h.slots, k)
		if last, was := h.last[k.boot]; was && k.start <= last.start {
			continue
		}
		if k.boot == h.boot && h.own[k.start] != nil && !s.who[identity(telemetry.Self)] {
			for i, used := range h.own[k.start] {
				s.known[i] += used
			}
		}
		looked, used := s.others()
		if looked > 0 {
			all = append(all, h.load(k, s))
		}
		if looked >= store.Finest/2 && k.end().After(start.Add(-store.Finest)) && !h.missing(k, s) {
			m.AddOthers(h.names[k.boot], looked, used)
		}
		if _, known := h.last[k.boot]; known || len(h.last) < maxHosts {
			h.last[k.boot] = lastSlot{k.start, s.who}
		}
	}
	h.forget(start)
	return all
}

// forget forgets hosts of which nobody has told lately.
func (h *hosts) forget(now time.Time) {
	for boot, l := range h.last {
		if now.Sub((slotKey{boot, l.start}).end()) > processGoneAfter {
			delete(h.last, boot)
		}
	}
	open := map[string]bool{}
	for k := range h.slots {
		open[k.boot] = true
	}
	for boot := range h.tellers {
		h.restTellers(boot, now)
	}
	for boot := range h.names {
		if _, known := h.last[boot]; !known && !open[boot] {
			delete(h.names, boot)
		}
	}
}

func (k slotKey) end() time.Time { return time.Unix(0, (k.start+1)*int64(store.Finest)) }

// missing tells whether one who reported in the window before does not in this one: it may have ended, and used something before.
func (h *hosts) missing(k slotKey, s *slot) bool {
	before := h.last[k.boot]
	if before.start != k.start-1 {
		return false
	}
	for id := range before.who {
		if !s.who[id] {
			return true
		}
	}
	return false
}

// others is what others used, in as much of the window as somebody looked.
func (s *slot) others() (looked, used time.Duration) {
	sum := 0.0
	for i := range s.host {
		if c := &s.host[i]; c.looked() {
			part := min(c.part, 1)
			looked += time.Duration(part * float64(cell))
			sum += c.of[0] + c.of[1] + c.of[3] - part*s.known[i]
		}
	}
	return looked, time.Duration(min(max(sum, 0), 1<<53))
}

// load is the window as it is kept.
func (h *hosts) load(k slotKey, s *slot) store.Load {
	l := store.Load{ID: hostID(k.boot), Host: hostID(k.boot), Name: h.names[k.boot], From: k.end().Add(-store.Finest).UTC(), Took: make([]uint64, cells)}
	for j := range hostColumns {
		l.Columns[j] = make([]uint64, cells)
	}
	for i := range s.host {
		l.Took[i] = uint64(cell / time.Microsecond)
		var of [4]float64
		if c := &s.host[i]; c.looked() {
			for j := range of {
				of[j] = c.of[j] / c.part
			}
		}
		for j, ns := range []float64{of[0], of[1], of[2], of[3], s.known[i]} {
			l.Columns[j][i] = uint64(math.Round(ns / 1000))
		}
	}
	return l
}

// watch notes what the hub itself uses, until ctx ends.
func (a *agents) watch(ctx context.Context) {
	meter := usage.NewMeter()
	defer meter.Close()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		now := time.Now()
		t.Reset(now.Truncate(cell).Add(cell).Sub(now))
		select {
		case <-t.C:
			used := meter.Read()
			a.mu.Lock()
			a.hosts.spend(used)
			a.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}
