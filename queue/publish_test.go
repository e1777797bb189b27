package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue/embedded"
)

type text = *wrapperspb.StringValue

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t testing.TB, dir string) *Queue {
	t.Helper()
	q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

func shut(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func topic(t testing.TB, q *Queue, name string, opts ...TopicOption) *Topic[text] {
	t.Helper()
	top, err := NewTopic[text](q, name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// stored returns the messages of a topic, by sequence.
func stored(t testing.TB, q *Queue, topic string) map[uint64]*nats.Msg {
	t.Helper()
	ctx := context.Background()
	s, err := q.js.Stream(ctx, streamName(topic))
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint64]*nats.Msg{}
	for seq := max(1, info.State.FirstSeq); seq <= info.State.LastSeq; seq++ { // an empty stream begins at 0
		m, err := s.GetMsg(ctx, seq)
		for ; notNow(err); m, err = s.GetMsg(ctx, seq) { // a cluster may just have no leader, or no time
		}
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		all[seq] = &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
	}
	return all
}

func TestPublish(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	q := open(t, dir)
	top := topic(t, q, "orders.placed", KeyBy(func(m text) string { return "customer " + m.GetValue() }))
	r, err := top.Publish(t.Context(), wrapperspb.String("hello"), ID("a"), Trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	if err != nil || r != (Receipt{Topic: "orders.placed", ID: "a", Sequence: 1}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = top.Publish(t.Context(), wrapperspb.String("hello"), ID("a")); err != nil || r != (Receipt{Topic: "orders.placed", ID: "a", Sequence: 1, Duplicate: true}) {
		t.Fatalf("again: %+v, %v", r, err)
	}
	if r, err = top.Publish(t.Context(), wrapperspb.String("b")); err != nil || r.Sequence != 2 || r.ID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	m := stored(t, q, "orders.placed")[1]
	for name, want := range map[string]string{
		"ce-id": "a", "ce-type": "google.protobuf.StringValue", "ce-source": "stile:topic:orders.placed", "ce-specversion": "1.0",
		"ce-partitionkey": "customer hello", "content-type": "application/protobuf; schema=" + schemaHash(wrapperspb.String("").ProtoReflect().Descriptor()), "Nats-Msg-Id": "a",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	} {
		if got := strings.Join(m.Header[name], ","); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(m.Subject, "q.orders~placed.") {
		t.Errorf("subject %s", m.Subject)
	}
	shut(t, q)
	if _, err := top.Publish(t.Context(), wrapperspb.String("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	q = open(t, dir)
	if r, err := topic(t, q, "orders.placed", KeyBy(func(m text) string { return "" })).Publish(t.Context(), wrapperspb.String("hello"), ID("a")); err != nil || !r.Duplicate {
		t.Errorf("after opening it again: %+v, %v", r, err)
	}
}

func TestPublishRefused(t *testing.T) {
	q := open(t, t.TempDir())
	for _, name := range []string{"", ".", "a..b", "a b", "a.*", "orders>", "/etc", strings.Repeat("x", 129), "a=dead"} {
		if _, err := NewTopic[text](q, name); err == nil {
			t.Errorf("a topic %q", name)
		}
	}
	small := topic(t, q, "small", Keep(defaultMaxAge, 10_000))
	body := wrapperspb.String(strings.Repeat("x", 1000))
	n := 0
	for ; ; n++ {
		_, err := small.Publish(t.Context(), body)
		if err == nil && n < 100 {
			continue
		}
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), `topic "small"`) {
			t.Errorf("after %d: %v", n, err)
		}
		break
	}
	if got := len(stored(t, q, "small")); got != n {
		t.Errorf("%d stored, %d receipts", got, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := small.Publish(ctx, body, WhenFullWait()); !errors.Is(err, ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for room: %v", err)
	}
	if _, err := NewTopic[text](q, "small"); err == nil {
		t.Error("other settings")
	}
	if _, err := NewTopic[*structpb.Struct](q, "small", Keep(defaultMaxAge, 10_000)); err == nil {
		t.Error("another type")
	}
	top := topic(t, q, "orders")
	if _, err := top.Publish(t.Context(), wrapperspb.String(strings.Repeat("x", 2<<20))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("2 MiB: %v", err)
	}
	for _, id := range []string{"a\nb", "a\x00", " a", "a\r\nNats-Rollup: all"} {
		if _, err := top.Publish(t.Context(), body, ID(id)); err == nil {
			t.Errorf("ID %q", id)
		}
	}
	if _, err := top.Publish(t.Context(), wrapperspb.String("\xff")); err == nil {
		t.Error("a string that is not UTF-8")
	}
	if _, err := NewTopic[text](q, "vast", Keep(defaultMaxAge, 1<<40)); err == nil || !strings.Contains(err.Error(), "raise Config.MaxStore") {
		t.Errorf("1 TiB: %v", err)
	}
	ended, cancel2 := context.WithCancel(t.Context())
	cancel2()
	if _, err := top.Publish(ended, body); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoAnswer) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestOpenRefused(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	if _, err := Open(t.Context(), Config{Dir: dir, Logger: quiet()}); !errors.Is(err, embedded.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder in use: %v", err)
	}
	shut(t, q)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{"neither": {}, "both": {Dir: dir, URL: "nats://x"}, "a file": {Dir: file}, "nobody there": {URL: "nats://127.0.0.1:1"}} {
		cfg.Logger = quiet()
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Log(name, err)
		}
	}
}

// TestPublishTogether: many publishers of topics of each level.
func TestPublishTogether(t *testing.T) {
	t.Parallel()
	const each = 200
	dir := t.TempDir()
	q := open(t, dir)
	var wg sync.WaitGroup
	for _, d := range []Durability{Synced, Bounded, Buffered} {
		top := topic(t, q, d.String(), Durable(d))
		for p := range 8 {
			wg.Go(func() {
				for i := range each {
					if _, err := top.Publish(t.Context(), wrapperspb.String(fmt.Sprint(p, " ", i))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	shut(t, q)
	q = open(t, dir)
	for _, d := range []Durability{Synced, Bounded, Buffered} {
		if n := len(stored(t, q, d.String())); n != 8*each {
			t.Errorf("%s: %d messages", d, n)
		}
	}
}

// TestPublishAll: all or none, and what is there already is not there twice.
func TestPublishAll(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders")
	batch := func(n int) (ms []text) {
		for i := range n {
			ms = append(ms, wrapperspb.String(fmt.Sprint(i)))
		}
		return ms
	}
	if rs, err := top.PublishAll(t.Context(), nil); len(rs) != 0 || err != nil {
		t.Errorf("none: %v, %v", rs, err)
	}
	check := func(rs []Receipt, first uint64, duplicates int) {
		t.Helper()
		for i, r := range rs {
			want := Receipt{Topic: "orders", ID: fmt.Sprintf("b-%d", i), Sequence: first + uint64(i), Duplicate: i < duplicates}
			if r != want {
				t.Errorf("%+v, want %+v", r, want)
			}
		}
	}
	rs, err := top.PublishAll(t.Context(), batch(10), ID("b"))
	if err != nil || len(rs) != 10 {
		t.Fatalf("%v, %v", rs, err)
	}
	check(rs, 1, 0)
	if rs, err = top.PublishAll(t.Context(), batch(12), ID("b")); err != nil || len(rs) != 12 {
		t.Fatalf("again, and two more: %v, %v", rs, err)
	}
	check(rs, 1, 10)
	if rs, err = top.PublishAll(t.Context(), batch(1000)); err != nil || rs[999].Sequence != 1012 {
		t.Errorf("a thousand: %v", err)
	}
	if _, err = top.PublishAll(t.Context(), batch(1001)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more: %v", err)
	}
	if _, err = top.PublishAll(t.Context(), []text{wrapperspb.String(strings.Repeat("x", 9<<20))}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("9 MiB: %v", err)
	}
	if _, err = top.PublishAll(t.Context(), []text{wrapperspb.String("good"), wrapperspb.String(strings.Repeat("x", 2<<20))}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one is too large: %v", err)
	}
	small := topic(t, q, "small", Keep(defaultMaxAge, 10_000))
	if _, err = small.PublishAll(t.Context(), batch(200)); !errors.Is(err, ErrFull) {
		t.Errorf("too many: %v", err)
	}
	if n := len(stored(t, q, "small")); n != 0 {
		t.Errorf("%d of a batch that was refused", n)
	}
	shut(t, q)
	if err := os.RemoveAll(filepath.Join(dir, "jetstream", "$G", "streams", "orders", "msgs")); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	if n := len(stored(t, q, "orders")); n != 1012 {
		t.Errorf("%d messages are back", n)
	}
	for _, m := range stored(t, q, "orders") {
		if m.Header.Get(headerBatchID) != "" {
			t.Fatal("a message that is back has a batch")
		}
	}
}

// TestAnswers: what a server may say, read quickly or not, is the same.
func TestAnswers(t *testing.T) {
	for text, want := range map[string]answer{
		`{"stream":"orders","seq":5}`:                        {Sequence: 5},
		`{"stream":"orders", "seq":5,"duplicate": true}`:     {Sequence: 5, Duplicate: true},
		`{"stream":"orders","seq":5,"duplicate":true}`:       {Sequence: 5, Duplicate: true},
		`{"stream":"orders","domain":"x","seq":5}`:           {Sequence: 5},
		`{"stream":"orders","seq":18446744073709551615}`:     {Sequence: 18446744073709551615},
		`{"stream":"orders","seq":12,"batch":"b","count":3}`: {Sequence: 12},
		`{"type":"x","stream":"orders","seq":7}`:             {Sequence: 7},
	} {
		if got := readAnswer(&nats.Msg{Data: []byte(text)}); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{``, `{}`, `{"stream":"orders","seq":}`, `{"stream":"a","seq":0}`, `{"error":{"code":503,"err_code":10077,"description":"x"},"stream":"orders","seq":0}`,
		`{"stream":"orders","seq":1,"error":{"code":400}}`, `+OK`, `{"stream":"orders","seq":99999999999999999999}`} {
		if got := readAnswer(&nats.Msg{Data: []byte(text)}); got.Error == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}
