package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/queue"
	"github.com/stile-ipc/stile/queue/embedded"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

type text = *wrapperspb.StringValue

// dying is a topic of an embedded queue whose group refuses all, until it is mended.
type dying struct {
	t      *testing.T
	q      *queue.Queue
	dir    string
	topic  *queue.Topic[text]
	sub    *queue.Subscription
	mended atomic.Bool
	sent   int
}

func newDying(t *testing.T, q *queue.Queue, dir string, letters int) *dying {
	t.Helper()
	d := &dying{t: t, q: q, dir: dir}
	var err error
	if d.topic, err = queue.NewTopic[text](q, "orders"); err != nil {
		t.Fatal(err)
	}
	d.sub, err = d.topic.Subscribe(t.Context(), "billing", func(context.Context, *queue.Msg[text]) error {
		if d.mended.Load() {
			return nil
		}
		return queue.Reject(errors.New("<b>no</b>"), "bad")
	}, queue.Workers(1)) // so that they die in their order
	if err != nil {
		t.Fatal(err)
	}
	d.publish(letters)
	d.dead(letters)
	return d
}

func (d *dying) publish(n int) {
	d.t.Helper()
	for range n {
		if _, err := d.topic.Publish(d.t.Context(), wrapperspb.String(fmt.Sprint("order ", d.sent)), queue.ID(fmt.Sprint("id-", d.sent))); err != nil {
			d.t.Fatal(err)
		}
		d.sent++
	}
}

func openQueue(t *testing.T, dir string) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// dead waits until there are so many dead letters.
func (d *dying) dead(n int) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st, err := d.sub.Stats(d.t.Context())
		if err == nil && st.Dead == uint64(n) && st.Lag == 0 && st.InFlight == 0 {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%+v, %v: want %d dead letters", st, err, n)
		}
	}
}

func (d *dying) close() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(d.sub.Drain(ctx), d.q.Close()); err != nil {
		d.t.Error(err)
	}
}

// tell has the hub know of the queue, as a process tells of it.
func (d *dying) tell(h *Hub, change func(*hubpb.Process, *hubpb.Queue)) (id string) {
	d.t.Helper()
	all, err := d.q.Observe(d.t.Context())
	if err != nil || len(all) != 1 {
		d.t.Fatalf("%+v, %v", all, err)
	}
	return tellQueue(h, d.dir, all[0], change)
}

func tellQueue(h *Hub, dir string, q telemetry.Queue, change func(*hubpb.Process, *hubpb.Queue)) string {
	p := &hubpb.Process{Identity: id(3, 16), Service: "shop", Boot: agent.Self(telemetry.Self).GetBoot(), Uid: int64(os.Getuid())}
	one := &hubpb.Queue{Topic: q.Topic, CreatedUnixNano: q.Created.UnixNano(), Where: "unix:" + dir, AtUnixNano: q.At.UnixNano(), Asked: true, Last: q.Last, Groups: []*hubpb.QueueGroup{{Name: "billing", Dead: q.Groups[0].Dead}}}
	if change != nil {
		change(p, one)
	}
	h.agents.queues.take(p, time.Second, []*hubpb.Queue{one})
	h.agents.queues.window()
	return routemap.QueueKey{Topic: one.Topic, Created: one.CreatedUnixNano, Group: "billing"}.ID()
}

func act(t *testing.T, h *Hub, what string, a QueueAct, headers ...string) reply {
	t.Helper()
	body, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return request(t, http.MethodPost, "http://"+h.Addrs()[forAPI]+"/api/v1/queues/"+what, body, append([]string{"Content-Type", typeJSON, OperateHeader, "1"}, headers...)...)
}

// TestActs: dead letters of a queue in a folder are shown, redriven and discarded, as many as were meant, and it is remembered who did.
func TestActs(t *testing.T) {
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 6)
	defer d.close()
	h := openHub(t, Config{})
	defer func() { closeHub(t, h) }()
	id := d.tell(h, nil)
	letters := decode[DeadLetters](t, get(t, h, "/api/v1/queues/dead?limit=4&queue="+id, OperateHeader, "1"))
	if len(letters.Letters) != 4 || letters.Letters[0].ID != "id-0" || letters.Letters[0].Error != "<b>no</b>" || letters.Letters[0].Reason != "bad" || !strings.Contains(string(letters.Letters[0].Data), "order 0") || letters.Letters[0].Size != len("order 0")+2 {
		t.Fatalf("%+v", letters)
	}
	first := letters.Letters[0].Sequence
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, Sequences: []uint64{first, 999, first}})); got.Done != 1 || got.Left != 5 || got.Error != "" {
		t.Errorf("%+v", got)
	}
	d.dead(5)
	d.mended.Store(true)
	if got := decode[QueueActed](t, act(t, h, "redrive", QueueAct{Queue: id, All: true, Limit: 2})); got.Done != 2 || got.Left != 3 {
		t.Errorf("%+v", got)
	}
	d.dead(3)
	if got := decode[QueueActed](t, act(t, h, "redrive", QueueAct{Queue: id, All: true})); got.Done != 3 || got.Left != 0 {
		t.Errorf("%+v", got)
	}
	d.dead(0)
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, Sequences: []uint64{first}})); got.Done != 0 {
		t.Errorf("what is not there was discarded: %+v", got)
	}
	who := fmt.Sprint(" by uid ", os.Getuid())
	want := []string{
		"discard begun: 3 named", "dead letters discarded: 1", "redrive begun: 2 at most of all", "dead letters redriven: 2", "redrive begun: all", "dead letters redriven: 3", "discard begun: 1 named", "dead letters discarded: 0",
	}
	for i := range want {
		want[i] += who
	}
	if got := noted(t, h.store); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestActsSeen: what dies after the list was asked for is neither discarded nor redriven with what was there.
func TestActsSeen(t *testing.T) {
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 3)
	defer d.close()
	h := openHub(t, Config{})
	defer closeHub(t, h)
	id := d.tell(h, nil)
	list := func() DeadLetters {
		t.Helper()
		return decode[DeadLetters](t, get(t, h, "/api/v1/queues/dead?limit=2&queue="+id, OperateHeader, "1"))
	}
	seen := list()
	if len(seen.Letters) != 2 || seen.Dead != 3 || seen.Last < seen.Letters[1].Sequence {
		t.Fatalf("%+v", seen)
	}
	d.publish(2)
	d.dead(5)
	for name, a := range map[string]struct {
		QueueAct
		want string
	}{
		"no bound":        {QueueAct{Queue: id, All: true}, "upTo, as /api/v1/queues/dead tells it as last"},
		"only a limit":    {QueueAct{Queue: id, All: true, Limit: 3}, "upTo, as /api/v1/queues/dead tells it as last"},
		"one of the next": {QueueAct{Queue: id, All: true, UpTo: seen.Last + 3}, "ask for them again"},
		"with sequences":  {QueueAct{Queue: id, Sequences: []uint64{1}, UpTo: seen.Last}, "upTo is for all"},
	} {
		if r := act(t, h, "discard", a.QueueAct); r.code != http.StatusBadRequest || !strings.Contains(string(r.body), a.want) {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	d.dead(5)
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: seen.Last})); got != (QueueActed{Done: 3, Left: 2}) {
		t.Errorf("%+v", got)
	}
	seen = list()
	if len(seen.Letters) != 2 || seen.Dead != 2 || seen.Letters[0].ID != "id-3" {
		t.Errorf("%+v", seen)
	}
	d.publish(1)
	d.dead(3)
	d.mended.Store(true)
	if got := decode[QueueActed](t, act(t, h, "redrive", QueueAct{Queue: id, All: true, UpTo: seen.Last})); got != (QueueActed{Done: 2, Left: 1}) {
		t.Errorf("%+v", got)
	}
	if all := noted(t, h.store); len(all) != 4 || !strings.HasPrefix(all[0], fmt.Sprintf("discard begun: all up to sequence %d by ", seen.Last-2)) {
		t.Errorf("%q", all)
	}
}

// TestActsMeant: letters are met once each, though they were named twice, and none is looked at after the last.
func TestActsMeant(t *testing.T) {
	a := QueueAct{Sequences: []uint64{3, 5, 3}, Limit: maxActed}
	var met []uint64
	looked := 0
	n, err := a.on(t.Context(), nil, func(_ *queue.DeadLetters, ctx context.Context, f func(*queue.DeadLetter) bool) (int, error) {
		for i := uint64(1); i < 10 && ctx.Err() == nil; i++ {
			looked++
			if f(&queue.DeadLetter{Sequence: i}) {
				met = append(met, i)
			}
		}
		return len(met), ctx.Err()
	})
	if n != 2 || err != nil || !slices.Equal(met, []uint64{3, 5}) || looked != 6 {
		t.Errorf("%d, %v, %v, %d looked at", n, err, met, looked)
	}
}

// TestActsRefused: nothing is done for pages of others, for who may not, in what is not the queue that was told of, and for what is not clear.
func TestActsRefused(t *testing.T) {
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 1)
	defer d.close()
	h := openHub(t, Config{})
	defer closeHub(t, h)
	id := d.tell(h, nil)
	at := h.Addrs()[forAPI]
	for name, c := range map[string]struct {
		headers []string
		code    int
	}{
		"no header":          {[]string{OperateHeader, ""}, 403},
		"another origin":     {[]string{"Origin", "https://evil.example"}, 403},
		"another port":       {[]string{"Origin", "http://localhost:3000"}, 403},
		"no origin":          {[]string{"Origin", "null"}, 403},
		"another site":       {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"another subdomain":  {[]string{"Sec-Fetch-Site", "same-site"}, 403},
		"a name that points": {[]string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		"a form":             {[]string{"Content-Type", "text/plain"}, 400},
		"its own page":       {[]string{"Origin", "http://" + at, "Sec-Fetch-Site", "same-origin"}, 200},
	} {
		if r := act(t, h, "discard", QueueAct{Queue: id, Sequences: []uint64{99}}, c.headers...); r.code != c.code {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	for _, path := range []string{"/api/v1/queues/redrive", "/api/v1/queues/discard"} {
		if r := get(t, h, path, OperateHeader, "1"); r.code != http.StatusMethodNotAllowed && r.code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, r.code)
		}
	}
	if r := get(t, h, "/api/v1/queues/dead?queue="+id); r.code != 403 {
		t.Errorf("messages are shown without the header: %d", r.code)
	}
	for name, a := range map[string]QueueAct{
		"neither": {Queue: id}, "both": {Queue: id, All: true, UpTo: 1, Sequences: []uint64{1}}, "too many": {Queue: id, All: true, UpTo: 1, Limit: maxActed + 1}, "less than none": {Queue: id, All: true, UpTo: 1, Limit: -1},
	} {
		if r := act(t, h, "discard", a); r.code != 400 {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	if r := act(t, h, "discard", QueueAct{Queue: "0123", All: true, UpTo: 1}); r.code != 404 {
		t.Errorf("%d %s", r.code, r.body)
	}
	for body, want := range map[string]int{`{"queue":"` + id + `","all":true,"upTo":1,"force":true}`: 400, `{} {}`: 400, `[`: 400, strings.Repeat(" ", 2*maxActBytes): 400} {
		if r := request(t, http.MethodPost, "http://"+at+"/api/v1/queues/discard", []byte(body), "Content-Type", typeJSON, OperateHeader, "1"); r.code != want {
			t.Errorf("%.50s: %d %s", body, r.code, r.body)
		}
	}
	d.dead(1)
}

// TestActsWhere: where a topic is, is not believed.
func TestActsWhere(t *testing.T) {
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 1)
	defer d.close()
	plain := t.TempDir()
	socket := filepath.Join(t.TempDir(), "q")
	for _, sub := range []string{"redo", "door"} {
		if err := os.MkdirAll(filepath.Join(socket, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(socket, "door", "nats.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	h := openHub(t, Config{})
	defer closeHub(t, h)
	for name, c := range map[string]struct {
		change func(*hubpb.Process, *hubpb.Queue)
		want   string
	}{
		"another host":   {func(p *hubpb.Process, _ *hubpb.Queue) { p.Boot = "another" }, "of another host"},
		"another user":   {func(p *hubpb.Process, _ *hubpb.Queue) { p.Uid++ }, "is of the user"},
		"elsewhere":      {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "nats://127.0.0.1:1" }, "start it with --nats-url"},
		"no folder":      {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:/nowhere" }, "is not entered"},
		"a relative one": {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:." }, "is not entered"},
		"no queue":       {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:" + plain }, "no queue is open there"},
		"no socket":      {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:" + socket }, "no queue is open there"},
		"root's":         {func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:/proc/1" }, "is not entered"},
		"another topic":  {func(_ *hubpb.Process, q *hubpb.Queue) { q.CreatedUnixNano++ }, "another one"},
		"no topic":       {func(_ *hubpb.Process, q *hubpb.Queue) { q.Topic = "others" }, "no such topic"},
	} {
		id := d.tell(h, c.change)
		r := act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: 1})
		if r.code != http.StatusConflict || !strings.Contains(string(r.body), c.want) {
			t.Errorf("%s: %d %s", name, r.code, r.body)
		}
	}
	id := d.tell(h, func(_ *hubpb.Process, q *hubpb.Queue) { q.Where = "unix:" + link })
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, Sequences: []uint64{99}})); got.Left != 1 {
		t.Errorf("by a link: %+v", got)
	}
	d.dead(1)
}

// TestActsAway: while the NATS server elsewhere is away the hub acts on a folder, and says why it does not on what is there.
func TestActsAway(t *testing.T) {
	s, err := embedded.Start(embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MaxStore: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 1)
	defer d.close()
	h := openHub(t, Config{NATSURL: "nats://" + s.Addr().String()})
	defer closeHub(t, h)
	for end := time.Now().Add(time.Minute); len(h.nats.all()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the hub does not see its NATS server")
		}
	}
	id := d.tell(h, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: 1})); got.Done != 1 || got.Error != "" {
		t.Errorf("%+v", got)
	}
	id = d.tell(h, func(_ *hubpb.Process, q *hubpb.Queue) { q.CreatedUnixNano++; q.Where = "nats://127.0.0.1:1" })
	if r := act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: 1}); r.code != http.StatusConflict || !strings.Contains(string(r.body), "does not answer") {
		t.Errorf("%d %s", r.code, r.body)
	}
}

// TestOperateToken: where there are tokens one that operates is needed, which also reads.
func TestOperateToken(t *testing.T) {
	reads, writes, operates := strings.Repeat("r", 32), strings.Repeat("w", 32), strings.Repeat("o", 32)
	h := openHub(t, Config{Tokens: []Token{{Role: Read, Secret: reads}, {Role: Write, Secret: writes}, {Role: Operate, Secret: operates, Name: "alice"}}})
	defer closeHub(t, h)
	for secret, want := range map[string][2]int{"": {401, 401}, reads: {200, 403}, writes: {401, 401}, operates: {200, 404}, "wrong": {401, 401}} {
		if r := get(t, h, "/api/v1/queues", "Authorization", "Bearer "+secret); r.code != want[0] {
			t.Errorf("%.5q asks: %d", secret, r.code)
		}
		if r := act(t, h, "redrive", QueueAct{Queue: "none", All: true}, "Authorization", "Bearer "+secret); r.code != want[1] {
			t.Errorf("%.5q acts: %d %s", secret, r.code, r.body)
		}
		if r := post(t, h, marshal(t, callSpans(0, 1, "x")), "Content-Type", typeProtobuf, "Authorization", "Bearer "+secret); (r.code == 200) != (secret == writes) {
			t.Errorf("%.5q sends: %d", secret, r.code)
		}
	}
}

// TestActsNotForged: no process can tell of acts as the hub does, and what processes tell leaves room for them.
func TestActsNotForged(t *testing.T) {
	h := openHub(t, Config{})
	r := newReporter(t, agentsOf(t, h), 1, "front")
	now := time.Now().UnixNano()
	event := &hubpb.Event{Kind: "dead letters discarded", Subject: "orders billing", Detail: "500 by alice", FirstUnixNano: now, LastUnixNano: now, Count: 1}
	for _, name := range []string{"stile hub", " Stile  Hub"} {
		forged := proto.CloneOf(r.is)
		forged.Service = name
		if _, err := r.agents.Report(t.Context(), &hubpb.ReportRequest{Process: forged, Hub: r.hub, Sequence: 1, Events: []*hubpb.Event{event}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", name, err)
		}
	}
	for range maxWindowEvents/maxReportEvents + 1 {
		r.sequence++
		r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, Events: slices.Repeat([]*hubpb.Event{event}, maxReportEvents)})
	}
	if err := h.acted(t.Context(), discards.done, "uid 1000", billing, 7, nil); err != nil {
		t.Error(err)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	all, err := h.store.Events(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), hubService, "", 10)
	if err != nil || len(all) != 1 || all[0].Detail != "7 by uid 1000" {
		t.Errorf("%+v, %v", all, err)
	}
}
