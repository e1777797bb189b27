package hub

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// reported is a topic with one group, as a server has said at some second.
func reported(at int64, last, lag, dead uint64) *hubpb.Queue {
	return &hubpb.Queue{
		Topic: "orders", CreatedUnixNano: 5, Where: "unix:/q", AtUnixNano: at * 1e9, Asked: true, Messages: last, Bytes: last * 10, MaxBytes: 10_000, Last: last, Delayed: 3,
		Groups: []*hubpb.QueueGroup{{Name: "billing", Lag: lag, InFlight: 2, Retrying: 1, Dead: dead, OldestNs: 7e9}},
	}
}

var billing = routemap.QueueKey{Topic: "orders", Created: 5, Group: "billing"}

// TestQueuesTaken: of a topic that several tell of the newest counts, and how long their senders waited in sum; rates are those of the server's counts from window to window.
func TestQueuesTaken(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newQueues(func() time.Time { return now })
	process := func(n byte) *hubpb.Process {
		return &hubpb.Process{Identity: id(uint64(n), 16), Host: fmt.Sprint("h", n), Boot: "boot", Uid: 7}
	}
	const long = 10 * time.Second
	blocked := proto.CloneOf(reported(1000, 100, 10, 1))
	blocked.BlockedNs, blocked.Refused = 5e9, 2
	late := proto.CloneOf(blocked)
	late.AtUnixNano, late.Last = 999e9, 7
	a.take(process(1), long, []*hubpb.Queue{blocked})
	a.take(process(2), long, []*hubpb.Queue{late})
	a.take(process(3), long, []*hubpb.Queue{{Topic: "orders", CreatedUnixNano: 5, BlockedNs: 1e9}, {Topic: "unasked", BlockedNs: 1e9}})
	first := a.window()
	s := first[billing]
	if len(first) != 1 || s.Messages != 100 || s.Host != "h1" || s.Blocked != 11e9 || s.Told != int64(long) || s.Refused != 4 || s.Measured != 0 || s.Lag != 10 || s.Dead != 1 || s.Delayed != 3 || s.Windows != 1 {
		t.Fatalf("%d, %+v", len(first), s)
	}
	now = now.Add(long)
	a.take(process(1), long, []*hubpb.Queue{reported(1010, 150, 40, 1), {Topic: "unasked", Asked: true, AtUnixNano: 1010e9}})
	second := a.window()
	if s := second[billing]; s.Published != 50 || s.Handled != 20 || s.Measured != int64(long) || s.Grown != 500 || s.Growing != 1 || s.Blocked != 0 {
		t.Errorf("%+v", s)
	}
	if s := second[routemap.QueueKey{Topic: "unasked"}]; s == nil || s.Blocked != 1e9 {
		t.Errorf("what senders met before the server had said anything: %+v", s)
	}
	now = now.Add(long)
	a.take(process(1), long, []*hubpb.Queue{reported(1020, 150, 5, 0)})
	if s := a.window()[billing]; s.Published != 0 || s.Handled != 35 || s.Growing != 0 {
		t.Errorf("%+v", s)
	}
	now = now.Add(long)
	a.take(process(1), long, []*hubpb.Queue{reported(1030, 3, 1, 0)}) // it cannot be less than before
	if s := a.window()[billing]; s.Measured != 0 || s.Published != 0 {
		t.Errorf("%+v", s)
	}
	if p, known := a.where(topicName{"orders", 5}); !known || p.where != "unix:/q" || p.uid != 7 || p.boot != "boot" {
		t.Errorf("%+v, %v", p, known)
	}
	now = now.Add(time.Hour)
	a.window()
	if _, known := a.where(topicName{"orders", 5}); known || len(a.last)+len(a.open) != 0 {
		t.Errorf("%d are known after an hour", len(a.last))
	}
}

// TestQueuesBounded: what is reported of queues has no more than its room.
func TestQueuesBounded(t *testing.T) {
	a := newQueues(time.Now)
	p := &hubpb.Process{Identity: id(1, 16)}
	for i := range 3 * maxWindowQueues {
		a.take(p, time.Second, []*hubpb.Queue{{Topic: fmt.Sprint(i), Asked: true, AtUnixNano: math.MaxInt64}})
	}
	if got := a.window(); len(got) != maxWindowQueues || a.lost != 2*maxWindowQueues {
		t.Errorf("%d, %d lost", len(got), a.lost)
	}
	for n := range 4 {
		for i := range maxWindowQueues {
			a.take(p, time.Second, []*hubpb.Queue{{Topic: fmt.Sprint(n, " ", i), Asked: true}})
		}
		a.window()
	}
	if len(a.last) > maxQueuesKnown || len(a.places) > maxQueuesKnown {
		t.Errorf("%d and %d are known", len(a.last), len(a.places))
	}
}

// TestQueuesRoom: a topic takes the room of its groups once, however many tell of it, whatever comes first.
func TestQueuesRoom(t *testing.T) {
	a := newQueues(time.Now)
	take := func(n int, q *hubpb.Queue) {
		a.take(&hubpb.Process{Identity: id(uint64(n), 16)}, time.Second, []*hubpb.Queue{q})
	}
	for i := range 2 * maxWindowQueues {
		take(i, &hubpb.Queue{Topic: "orders", CreatedUnixNano: 5, BlockedNs: 1})
	}
	if a.groups != 1 {
		t.Errorf("%d groups before the server has said anything", a.groups)
	}
	one, two := reported(1, 2, 3, 4), reported(2, 2, 3, 4)
	two.Groups = append(two.Groups, &hubpb.QueueGroup{Name: "audit"})
	for i, want := range []int{1, 2, 2} { // the last is older
		if take(i, []*hubpb.Queue{one, two, one}[i]); a.groups != want {
			t.Errorf("%d groups, not %d", a.groups, want)
		}
	}
	a.window()
	if take(1, &hubpb.Queue{Topic: "unasked"}); a.groups != 1 {
		t.Errorf("%d groups in the next window", a.groups)
	}
	if a.window(); a.groups != 1 || a.noRoom() != 0 {
		t.Errorf("%d groups are held, %d times no room", a.groups, a.noRoom())
	}
}

// TestTopicTotals: what a topic got, and its senders waited, is one count, whichever groups come and go.
func TestTopicTotals(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newQueues(func() time.Time { return now })
	for i := range uint64(6) {
		q := reported(now.Unix(), 1000*i, 3, 4)
		q.BlockedNs = 1e9
		if q.Groups = q.Groups[:0]; i > 0 {
			q.Groups = append(q.Groups, &hubpb.QueueGroup{Name: "first"})
		}
		if i >= 3 {
			q.Groups = append(q.Groups, &hubpb.QueueGroup{Name: "second"})
		}
		a.take(&hubpb.Process{Identity: id(1, 16)}, store.Finest, []*hubpb.Queue{q})
		a.window()
		now = now.Add(store.Finest)
	}
	topics, groups := 0, map[string]bool{}
	a.each(func(k topicName, s *routemap.QueueStats) {
		if topics++; k != (topicName{"orders", 5}) || s.Published != 5000 || s.Blocked != 6e9 || s.Messages != 5000 {
			t.Errorf("%v: %+v", k, s)
		}
	}, func(k routemap.QueueKey, _ *routemap.QueueStats) { groups[k.Group] = true })
	if topics != 1 || len(groups) != 2 || !groups["first"] || !groups["second"] {
		t.Errorf("%d topics, groups %v", topics, groups)
	}
	now = now.Add(time.Hour)
	if a.window(); len(a.topics) != 0 {
		t.Errorf("%d topics are known after an hour", len(a.topics))
	}
}

// TestBadQueues: what contradicts itself is refused.
func TestBadQueues(t *testing.T) {
	if err := checkQueues([]*hubpb.Queue{reported(1, 2, 3, 4), {Topic: "x"}}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*hubpb.Queue){
		"no name":        func(q *hubpb.Queue) { q.Topic = "" },
		"long name":      func(q *hubpb.Queue) { q.Topic = strings.Repeat("x", 257) },
		"long place":     func(q *hubpb.Queue) { q.Where = strings.Repeat("x", 257) },
		"no UTF-8":       func(q *hubpb.Queue) { q.Groups[0].Name = "\xff" },
		"no group":       func(q *hubpb.Queue) { q.Groups[0].Name = "" },
		"a group twice":  func(q *hubpb.Queue) { q.Groups = append(q.Groups, q.Groups[0]) },
		"too many":       func(q *hubpb.Queue) { q.Last = maxQueueNumber + 1 },
		"too much":       func(q *hubpb.Queue) { q.MaxBytes = -1 },
		"too many dead":  func(q *hubpb.Queue) { q.Groups[0].Dead = math.MaxUint64 },
		"before 1970":    func(q *hubpb.Queue) { q.AtUnixNano = -1 },
		"younger":        func(q *hubpb.Queue) { q.Groups[0].OldestNs = -1 },
		"blocked":        func(q *hubpb.Queue) { q.BlockedNs = math.MaxInt64 },
		"unblocked":      func(q *hubpb.Queue) { q.BlockedNs = -1 },
		"many groups":    func(q *hubpb.Queue) { q.Groups = make([]*hubpb.QueueGroup, maxReportGroups+1) },
		"a lag of worse": func(q *hubpb.Queue) { q.Groups[0].Lag = maxQueueNumber + 1 },
	} {
		q := reported(1, 2, 3, 4)
		if change(q); checkQueues([]*hubpb.Queue{q}) == nil {
			t.Errorf("%s is taken", name)
		}
	}
	again := proto.CloneOf(reported(1, 2, 3, 4))
	if again.CreatedUnixNano++; checkQueues([]*hubpb.Queue{reported(1, 2, 3, 4), again}) != nil {
		t.Error("another topic of the same name is refused")
	}
	if checkQueues([]*hubpb.Queue{reported(1, 2, 3, 4), reported(1, 2, 3, 4)}) == nil {
		t.Error("a topic is taken twice")
	}
}

// TestBlockedMuch: what senders waited is no more than there were senders and time for, and a window that is told the most can be read.
func TestBlockedMuch(t *testing.T) {
	a := newQueues(time.Now)
	most := reported(1, 2, 3, 4)
	most.BlockedNs, most.Refused = maxQueueNumber*int64(time.Microsecond), maxQueueNumber
	if err := checkQueues([]*hubpb.Queue{most}); err != nil {
		t.Fatal(err)
	}
	window := func(n int, long time.Duration) *routemap.QueueStats {
		for range n {
			a.take(&hubpb.Process{Identity: id(1, 16)}, long, []*hubpb.Queue{most})
		}
		all, err := routemap.UnpackQueues(routemap.PackQueues(a.window()))
		if err != nil {
			t.Fatal(err)
		}
		return all[billing]
	}
	if s := window(2, time.Second); s.Blocked != 2*maxSenders*1e9 || s.Refused != 2*maxQueueNumber {
		t.Errorf("%+v", s)
	}
	if s := window(maxWindowReports, longest); s.Blocked != math.MaxInt64 || s.Refused != math.MaxInt64 {
		t.Errorf("%+v", s)
	}
}

// TestQueuesAPI: what processes tell of queues is kept, and told of any time, one queue over time, and as a finding of the map.
func TestQueuesAPI(t *testing.T) {
	h := openHub(t, Config{})
	r := newReporter(t, agentsOf(t, h), 1, "shop")
	r.queues(reported(time.Now().Unix(), 90, 4, 1))
	h = reopen(t, h)
	defer func() { closeHub(t, h) }()
	full := reported(time.Now().Unix(), 900, 10, 2)
	full.Groups = append(full.Groups, &hubpb.QueueGroup{Name: "audit"})
	r.again(h)
	r.queues(full, &hubpb.Queue{Topic: "unread", Asked: true, Messages: 3})
	h = reopen(t, h)

	all := decode[Queues](t, get(t, h, "/api/v1/queues"))
	if len(all.Queues) != 3 || all.All != 3 || all.Queues[0].Group != "billing" || all.Queues[1].Group != "audit" || all.Queues[2].Topic != "unread" || all.Queues[2].Group != "" || len(all.Points) != 0 {
		t.Fatalf("%+v", all)
	}
	q := all.Queues[0]
	if q.Lag != 10 || q.Dead != 2 || q.Windows < 1 || q.MostBytes != 9000 || q.Where != "unix:/q" || !q.Created.Equal(time.Unix(0, 5)) || q.ID != billing.ID() {
		t.Errorf("%+v", q)
	}
	one := decode[Queues](t, get(t, h, "/api/v1/queues?points=5&queue="+q.ID))
	if len(one.Queues) != 1 || len(one.Points) == 0 || one.Points[len(one.Points)-1].Lag != 10 {
		t.Errorf("%+v", one)
	}
	for path, want := range map[string]int{"?queue=none": 404, "?points=0": 400, "?points=1000": 400, "?from=tomorrow": 400, "?what=x": 400, "?from=2h&to=1h": 200} {
		if got := get(t, h, "/api/v1/queues"+path); got.code != want {
			t.Errorf("%s: %d, %s", path, got.code, got.body)
		}
	}
	m, err := h.Map(t.Context(), time.Now().Add(-time.Minute), time.Now().Add(time.Minute))
	if err != nil || len(m.Findings) != 1 || m.Findings[0].Kind != routemap.Backpressure || m.Findings[0].Values["full"] != 1 {
		t.Errorf("%+v, %v", m.Findings, err)
	}
}

// queues reports a window that has some.
func (r *reporter) queues(all ...*hubpb.Queue) {
	r.t.Helper()
	r.sequence++
	r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, ToUnixNano: int64(10 * time.Second), Queues: all})
}

// TestQueuePoints: points are of whole windows, no more than were asked for, and together all there is.
func TestQueuePoints(t *testing.T) {
	begin := time.Unix(1e9, 0)
	var windows []store.QueueWindow
	for i := range 100 {
		if i >= 40 && i < 50 {
			continue // nothing was told
		}
		windows = append(windows, store.QueueWindow{Start: begin.Add(time.Duration(i) * store.Finest), Long: store.Finest, Queues: store.Queues{billing: {Windows: 1, Published: uint64(i), Measured: 1e9, Lag: uint64(i)}}})
	}
	for _, most := range []int{1, 7, 60, 240} {
		points := queuePoints(windows, billing, begin, begin.Add(100*store.Finest), most)
		sum, n := uint64(0), uint64(0)
		for i, p := range points {
			sum, n = sum+p.Published, n+p.Windows
			if i > 0 && p.From.Before(points[i-1].To) {
				t.Errorf("%s begins before %s", p.From, points[i-1].To)
			}
		}
		if len(points) > most || n != 90 || sum != 99*50-445 || points[len(points)-1].Lag != 99 {
			t.Errorf("%d points of %d, %d windows, %d messages", len(points), most, n, sum)
		}
	}
}

// TestLeaderMoves: that another server of a cluster leads a topic is an event, once, whoever tells of it, and however late.
func TestLeaderMoves(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newQueues(func() time.Time { return now })
	led := func(process byte, at int64, by string) {
		q := reported(at, 100, 10, 1)
		q.Leader = by
		a.take(&hubpb.Process{Identity: id(uint64(process), 16), Host: "h"}, 10*time.Second, []*hubpb.Queue{q})
	}
	led(1, 1000, "n1")
	led(2, 1001, "n1")
	led(1, 1002, "") // nobody leads it just now
	if moved := a.moved(); len(moved) != 0 {
		t.Errorf("%+v", moved)
	}
	a.window()
	now = now.Add(10 * time.Second)
	led(1, 1010, "n2")
	led(2, 1005, "n1") // which was so before
	led(2, 1011, "n2")
	moved := a.moved()
	if len(moved) != 1 || moved[0].Kind != "queue leader moved" || moved[0].Subject != "orders" || moved[0].Detail != "n1 → n2" || !moved[0].First.Equal(now) || moved[0].Service != store.OwnService {
		t.Errorf("%+v", moved)
	}
	if again := a.moved(); len(again) != 0 {
		t.Errorf("%+v", again)
	}
}
