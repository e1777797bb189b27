package queue

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// counted is a stream that counts the messages it is asked for, and answers if it is not slow.
type counted struct {
	jetstream.Stream
	asked int
	slow  bool
}

func (s *counted) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	if s.asked++; s.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Stream.GetMsg(ctx, seq, opts...)
}

// due is a context that does not end when it says.
type due struct {
	context.Context
	at time.Time
}

func (d due) Deadline() (time.Time, bool) { return d.at, true }

// TestOldest: the message that a group is to be done with first is asked for once, and again when the group has come further or the message is
// gone; not longer than half of the time that a look has.
func TestOldest(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	next, release := make(chan struct{}), make(chan struct{})
	sub := subscribe(t, top, "g", func(ctx context.Context, _ *Msg[text]) error {
		select {
		case <-next:
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}, Workers(1))
	publish(t, top, "a", "b", "c")
	s := &counted{}
	age := func(ctx context.Context) time.Duration {
		t.Helper()
		var err error
		if s.Stream, err = q.js.Stream(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		c, err := s.Consumer(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		oldest, err := q.oldest.age(ctx, s, c.CachedInfo())
		if err != nil {
			t.Fatal(err)
		}
		return oldest
	}
	first := age(t.Context())
	if again := age(t.Context()); first <= 0 || again <= first || s.asked != 1 {
		t.Errorf("%s, %s, asked %d times", first, again, s.asked)
	}
	next <- struct{}{}
	until(t, func() bool {
		info, err := s.Consumer(t.Context(), "g")
		return err == nil && info.CachedInfo().AckFloor.Stream == 1
	})
	s.slow = true
	if got := age(due{t.Context(), time.Now().Add(lookWithin / 2)}); got != 0 || s.asked != 2 {
		t.Errorf("%s, asked %d times", got, s.asked)
	}
	s.slow = false
	if got := age(t.Context()); got <= 0 || s.asked != 3 {
		t.Errorf("%s, asked %d times", got, s.asked)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if age(t.Context()); s.asked != 4 {
		t.Errorf("asked %d times after the message was deleted", s.asked)
	}
	close(release)
	drained(t, sub)
}

// vanishing has streams that are deleted as soon as they have been looked up.
type vanishing struct {
	jetstream.JetStream
	gone string
	seen bool
}

func (v *vanishing) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if name == v.gone && v.seen {
		return nil, jetstream.ErrStreamNotFound
	}
	v.seen = v.seen || name == v.gone
	return v.JetStream.Stream(ctx, name)
}

// TestLookGoesOn: a topic that is deleted meanwhile does not keep others from being told of.
func TestLookGoesOn(t *testing.T) {
	q := open(t, t.TempDir())
	for _, name := range []string{"a", "b", "c"} {
		if _, err := topic(t, q, name).Publish(t.Context(), wrapperspb.String("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []string{"a", "b", "c"} {
		looks := &Queue{js: &vanishing{JetStream: q.js, gone: gone}}
		all, err := looks.lookAt(t.Context(), q.full.list())
		if len(all) != 2 || err != nil {
			t.Errorf("without %s: %+v, %v", gone, all, err)
		}
	}
}
