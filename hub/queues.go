package hub

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Bounds of what is reported of queues.
const (
	maxReportQueues = 1_000
	maxReportGroups = 1_000   // of all of them
	maxWindowQueues = 10_000  // groups of a window, of all reports
	maxQueueNumber  = 1 << 50 // of messages or bytes
	maxSenders      = 10_000  // of a process that wait at once, as far as their time counts
	maxQueuesKnown  = 20_000  // of the last ten minutes
	blockedHeld     = time.Minute
)

func checkQueues(all []*hubpb.Queue) error {
	groups := 0
	for _, q := range all {
		groups += len(q.GetGroups())
	}
	if len(all) > maxReportQueues || groups > maxReportGroups {
		return fmt.Errorf("%d queues with %d groups; %d and %d at most", len(all), groups, maxReportQueues, maxReportGroups)
	}
	seen := make(map[topicName]bool, len(all))
	for _, q := range all {
		name := topicName{q.GetTopic(), q.GetCreatedUnixNano()}
		if seen[name] {
			return fmt.Errorf("queue %.256q, again", q.GetTopic())
		}
		seen[name] = true
		if err := checkQueue(q); err != nil {
			return fmt.Errorf("queue %.256q: %w", q.GetTopic(), err)
		}
	}
	return nil
}

func checkQueue(q *hubpb.Queue) error {
	names := []string{q.GetTopic(), q.GetWhere(), q.GetLeader()}
	numbers := []uint64{q.GetMessages(), q.GetBytes(), uint64(q.GetMaxBytes()), q.GetLast(), q.GetDelayed(), q.GetRefused()}
	times := []int64{q.GetAtUnixNano(), q.GetBlockedNs()}
	seen := map[string]bool{}
	for _, g := range q.GetGroups() {
		if seen[g.GetName()] || g.GetName() == "" {
			return fmt.Errorf("a group %q, again or without a name", g.GetName())
		}
		seen[g.GetName()] = true
		names = append(names, g.GetName())
		numbers = append(numbers, g.GetLag(), g.GetInFlight(), g.GetRetrying(), g.GetDead())
		times = append(times, g.GetOldestNs())
	}
	if q.GetTopic() == "" {
		return fmt.Errorf("a topic without a name")
	}
	for _, n := range numbers {
		if n > maxQueueNumber {
			return fmt.Errorf("a number of %d; %d at most", n, uint64(maxQueueNumber))
		}
	}
	for _, ns := range times {
		if ns < 0 {
			return fmt.Errorf("a time of %d ns", ns)
		}
	}
	if q.GetBlockedNs() > maxQueueNumber*int64(time.Microsecond) {
		return fmt.Errorf("senders waited for %s", time.Duration(q.GetBlockedNs()))
	}
	return checkNames(names...)
}

// topicName is which topic it is, wherever.
type topicName struct {
	name    string
	created int64
}

// queues takes in what processes say of queues. Its methods are safe for concurrent use.
type queues struct {
	clock func() time.Time

	mu     sync.Mutex
	open   map[topicName]*topicSeen // of the window that is open
	groups int                      // of them
	last   map[routemap.QueueKey]queueSeen
	topics map[topicName]queueSeen
	places map[topicName]queuePlace
	moves  []store.Event // of leaders, in the window that is open
	lost   uint64        // that there was no room for
}

// topicSeen is what was said of a topic in a window.
type topicSeen struct {
	q       *hubpb.Queue // the newest that the server has said; nil: it was not asked
	host    string
	groups  int // of those of the window
	since   time.Time
	blocked int64
	refused int64
	told    map[identity]int64 // ns of the windows of those who tell
}

// queueSeen is what was known of a group, or of a topic, at the end of a window.
type queueSeen struct {
	at          int64 // by the clock of who told
	last, bytes uint64
	left        uint64
	seen        time.Time
	total       *routemap.QueueStats // since the hub was opened
}

// queuePlace is where a topic is, as a process has said.
type queuePlace struct {
	where, boot string
	uid         int64
	seen        time.Time
	leader      string // of a cluster
	at          int64  // when it was that, by the clock of who told
}

func newQueues(clock func() time.Time) *queues {
	return &queues{clock: clock, open: map[topicName]*topicSeen{}, last: map[routemap.QueueKey]queueSeen{}, topics: map[topicName]queueSeen{}, places: map[topicName]queuePlace{}}
}

// take takes in what a process says of a window that was so long. Of what several say of one topic the newest counts, and how long their senders waited in sum.
func (a *queues) take(p *hubpb.Process, long time.Duration, all []*hubpb.Queue) {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range all {
		name := topicName{q.GetTopic(), q.GetCreatedUnixNano()}
		seen := a.open[name]
		if seen == nil {
			seen = &topicSeen{since: now, told: map[identity]int64{}}
		}
		newest := q.GetAsked() && (seen.q == nil || seen.q.GetAtUnixNano() <= q.GetAtUnixNano())
		groups := max(seen.groups, 1)
		if newest {
			groups = max(len(q.GetGroups()), 1)
		}
		if more := groups - seen.groups; more > 0 && a.groups+more > maxWindowQueues {
			a.lost++
			continue
		}
		a.groups += groups - seen.groups
		seen.groups = groups
		a.open[name] = seen
		if newest {
			seen.q, seen.host = q, p.GetHost()
			if _, known := a.places[name]; known || len(a.places) < maxQueuesKnown {
				place := queuePlace{q.GetWhere(), p.GetBoot(), p.GetUid(), now, a.places[name].leader, a.places[name].at}
				a.leadLocked(&place, q, p.GetHost())
				a.places[name] = place
			}
		}
		id := identity(p.GetIdentity())
		seen.blocked = noMore(seen.blocked, min(q.GetBlockedNs(), maxSenders*int64(long)))
		seen.refused = noMore(seen.refused, int64(q.GetRefused()))
		seen.told[id] = noMore(seen.told[id], int64(long))
	}
}

// leadLocked heeds who leads a topic's servers now. That another one does is an event: for a moment nothing could be published or taken.
func (a *queues) leadLocked(p *queuePlace, q *hubpb.Queue, host string) {
	is := q.GetLeader()
	if is == "" || q.GetAtUnixNano() <= p.at {
		return
	}
	if was := p.leader; was != "" && was != is && len(a.moves) < maxWindowNoted {
		now := a.clock().UTC()
		a.moves = append(a.moves, store.Event{First: now, Last: now, Count: 1, Service: store.OwnService, Host: host, Kind: "queue leader moved", Subject: q.GetTopic(), Detail: was + " → " + is})
	}
	p.leader, p.at = is, q.GetAtUnixNano()
}

// moved are the moves of leaders in the window that is open, which it ends.
func (a *queues) moved() []store.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.moves
	a.moves = nil
	return all
}

// noMore is a sum that stays at the end of what there is.
func noMore(a, b int64) int64 { return a + min(b, math.MaxInt64-a) }

// window ends the window that is open. What senders met of a topic of which the server has said nothing waits for that.
func (a *queues) window() store.Queues {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) == 0 && len(a.last) == 0 {
		return nil
	}
	out := store.Queues{}
	open := a.open
	a.open, a.groups = map[topicName]*topicSeen{}, 0
	for name, t := range open {
		switch {
		case t.q != nil:
			a.addLocked(out, name, t, now)
		case now.Sub(t.since) < blockedHeld:
			a.open[name] = t
			a.groups += t.groups
		}
	}
	for k, s := range a.last {
		if now.Sub(s.seen) > processGoneAfter {
			delete(a.last, k)
		}
	}
	for name, s := range a.topics {
		if now.Sub(s.seen) > processGoneAfter {
			delete(a.topics, name)
		}
	}
	for name, p := range a.places {
		if now.Sub(p.seen) > processGoneAfter {
			delete(a.places, name)
		}
	}
	return out
}

func (a *queues) addLocked(out store.Queues, name topicName, t *topicSeen, now time.Time) {
	q := t.q
	groups := q.GetGroups()
	if len(groups) == 0 {
		groups = []*hubpb.QueueGroup{{}}
	}
	long := int64(0)
	for _, ns := range t.told {
		long = max(long, ns)
	}
	for _, g := range groups {
		k := routemap.QueueKey{Topic: name.name, Created: name.created, Group: g.GetName()}
		out[k] = next(a.last, k, t, g, long, now)
	}
	next(a.topics, name, t, nil, long, now)
}

// next is how a group did in a window, or a topic, after what was known of it.
func next[K comparable](all map[K]queueSeen, k K, t *topicSeen, g *hubpb.QueueGroup, long int64, now time.Time) *routemap.QueueStats {
	q := t.q
	s := routemap.QueueSample{Long: time.Duration(long), QueueStats: routemap.QueueStats{
		Where: q.GetWhere(), Host: t.host, At: q.GetAtUnixNano(), Messages: q.GetMessages(), Bytes: q.GetBytes(), MaxBytes: uint64(q.GetMaxBytes()), Delayed: q.GetDelayed(),
		Lag: g.GetLag(), InFlight: g.GetInFlight(), Retrying: g.GetRetrying(), Dead: g.GetDead(), Oldest: g.GetOldestNs(), Blocked: t.blocked, Refused: uint64(t.refused),
	}}
	was, known := all[k]
	is := queueSeen{q.GetAtUnixNano(), q.GetLast(), q.GetBytes(), g.GetLag() + g.GetInFlight(), now, was.total}
	if known && is.at > was.at && is.at-was.at <= int64(processGoneAfter) && is.last >= was.last {
		s.Left, s.Measured, s.Published, s.Grown = was.left, is.at-was.at, is.last-was.last, int64(is.bytes)-int64(was.bytes)
		s.Handled = max(s.Published+was.left, is.left) - is.left
	}
	w := s.Window()
	if !known {
		is.total = new(routemap.QueueStats)
	}
	is.total.Then(&w)
	if known || len(all) < maxQueuesKnown {
		all[k] = is
	}
	return &w
}

// each tells of each topic and of each group that was told of in the last minute, and how it did since the hub was opened. A topic's groups come and go: what is the topic's is
// not told by theirs.
func (a *queues) each(topic func(topicName, *routemap.QueueStats), group func(routemap.QueueKey, *routemap.QueueStats)) {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, s := range a.topics {
		if now.Sub(s.seen) <= countedFor {
			topic(name, s.total)
		}
	}
	for k, s := range a.last {
		if k.Group != "" && now.Sub(s.seen) <= countedFor {
			group(k, s.total)
		}
	}
}

// lose counts windows of topics and groups that there was no room for later.
func (a *queues) lose(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost += n
}

// noRoom is how often there was no room for what was told.
func (a *queues) noRoom() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// find returns the key of an ID that was told of lately.
func (a *queues) find(id string) (routemap.QueueKey, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.last {
		if k.ID() == id {
			return k, true
		}
	}
	return routemap.QueueKey{}, false
}

// where tells where a topic is.
func (a *queues) where(name topicName) (queuePlace, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.places[name]
	return p, known
}
