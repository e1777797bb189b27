package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stile-ipc/stile/bench/echopb"
)

// perStream is how many messages of size bytes the server sends on a stream of kind
// "stream". A window ends with the streams that were open when its time was over, so
// those of large messages are shorter.
func perStream(size int) int { return min(512, max(8, 8<<20/max(size, 1))) }

// streamer is a client whose peer has streams; the others are left out of the kinds
// that need them.
type streamer interface {
	// down opens a stream on which the server sends the payload perStream(its length) times.
	down(ctx context.Context, caller int, m *echopb.Message) (receiver, error)
	// chat opens a stream whose server answers each message with itself.
	chat(ctx context.Context, caller int) (chatter, error)
}

type receiver interface {
	Recv() (*echopb.Message, error)
}

type chatter interface {
	receiver
	Send(*echopb.Message) error
	CloseSend() error
}

// sendAll is the server's side of down.
func sendAll(m *echopb.Message, out interface{ Send(*echopb.Message) error }) error {
	for range perStream(len(m.GetValue())) {
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// answer is the server's side of chat.
func answer(s interface {
	receiver
	Send(*echopb.Message) error
}) error {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.Send(m)
		}
		if err != nil {
			return err
		}
	}
}

var errLongStream = errors.New("the stream does not end")

// stream reads one stream after the other. What is recorded is the time from one
// message to the next.
func (l *load) stream(c *caller, base time.Time, deadline time.Duration) error {
	want := perStream(len(c.payload))
	for last := time.Since(base); (last < deadline || c.hist.count == 0) && !l.stop.Load(); {
		r, err := l.client.(streamer).down(context.Background(), c.number, &echopb.Message{Value: c.stamp()})
		if err != nil {
			return err
		}
		for got := 0; ; got++ {
			m, err := r.Recv()
			if err == io.EOF && got == want {
				break
			}
			if err == nil && got == want {
				err = errLongStream
			}
			if err == nil {
				err = c.verify(m.GetValue())
			}
			if err != nil {
				return fmt.Errorf("message %d of a stream of caller %d: %w", got, c.number, err)
			}
			now := time.Since(base)
			c.hist.record(int64(now - last))
			last = now
		}
	}
	return nil
}

// bidi sends a message on one stream, again as soon as it has the answer.
func (l *load) bidi(c *caller, base time.Time, deadline time.Duration) error {
	s, err := l.client.(streamer).chat(context.Background(), c.number)
	if err != nil {
		return err
	}
	for last := time.Since(base); (last < deadline || c.hist.count == 0) && !l.stop.Load(); {
		err := s.Send(&echopb.Message{Value: c.stamp()})
		var m *echopb.Message
		if err == nil {
			m, err = s.Recv()
		}
		if err == nil {
			err = c.verify(m.GetValue())
		}
		if err != nil {
			return fmt.Errorf("message %d of caller %d: %w", c.calls, c.number, err)
		}
		now := time.Since(base)
		c.hist.record(int64(now - last))
		last = now
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err := s.Recv(); err != io.EOF {
		return fmt.Errorf("after the last message of caller %d: %w, want EOF", c.number, err)
	}
	return nil
}
