package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errNoCalls is the failure of a window in which no call ended.
	errNoCalls = errors.New("no call was made")
	// errWrongEcho is wrapped when a reply is not what was sent.
	errWrongEcho = errors.New("wrong echo")
)

// pace is the time between two calls of the paced kind. It is long enough for
// both ends to have gone to sleep.
const pace = time.Millisecond

// kinds are the ways of calling. Each makes at least one call and returns when its
// deadline, counted from base, has passed, or when stop is set, having recorded
// the time of each call.
var kinds = map[string]func(l *load, c *caller, base time.Time, deadline time.Duration) error{
	"unary":  (*load).unary,
	"paced":  (*load).paced,
	"stream": (*load).stream,
	"bidi":   (*load).bidi,
}

// caller is one goroutine's part of a load.
type caller struct {
	number  int
	calls   uint64 // since the start, warm-up included
	payload []byte
	hist    *histogram // of the current window
}

// load makes the calls of one cell on one client.
type load struct {
	client  client
	kind    string
	callers []*caller
	stop    atomic.Bool // set by the first caller that fails
}

func newLoad(c client, kind string, size, callers int) *load {
	l := &load{client: c, kind: kind, callers: make([]*caller, callers)}
	for i := range l.callers {
		payload := make([]byte, size)
		for j := range payload {
			payload[j] = byte(j*7 + i)
		}
		l.callers[i] = &caller{number: i, payload: payload, hist: new(histogram)}
	}
	return l
}

// window is one stretch of time in which all callers called.
type window struct {
	hist    histogram
	elapsed time.Duration // until the last call ended
}

// run calls for about d and returns when every caller has had its last reply.
func (l *load) run(d time.Duration) (*window, error) {
	errs := make([]error, len(l.callers))
	for _, c := range l.callers {
		*c.hist = histogram{}
	}
	var running sync.WaitGroup
	base := time.Now()
	for i, c := range l.callers {
		running.Go(func() {
			if errs[i] = kinds[l.kind](l, c, base, d); errs[i] != nil {
				l.stop.Store(true)
			}
		})
	}
	running.Wait()
	w := &window{elapsed: time.Since(base)}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, c := range l.callers {
		w.hist.add(c.hist)
	}
	if w.hist.count == 0 {
		return nil, errNoCalls
	}
	return w, nil
}

// unary calls again as soon as it has the reply.
func (l *load) unary(c *caller, base time.Time, deadline time.Duration) error {
	ctx := context.Background()
	for last := time.Since(base); (last < deadline || c.hist.count == 0) && !l.stop.Load(); {
		if err := l.call(ctx, c); err != nil {
			return err
		}
		now := time.Since(base)
		c.hist.record(int64(now - last))
		last = now
	}
	return nil
}

// paced calls once every pace, and skips the turns that a late reply took.
func (l *load) paced(c *caller, base time.Time, deadline time.Duration) error {
	ctx := context.Background()
	for turn := pace; (turn < deadline || c.hist.count == 0) && !l.stop.Load(); turn += pace {
		wait := turn - time.Since(base)
		if wait <= 0 {
			continue
		}
		time.Sleep(wait)
		start := time.Since(base)
		if err := l.call(ctx, c); err != nil {
			return err
		}
		c.hist.record(int64(time.Since(base) - start))
	}
	return nil
}

const (
	// stampLen is the length of the call's number, at both ends of the payload.
	stampLen = 8
	// compareAll is the size up to which every reply is compared whole; of longer
	// ones every compareEvery-th is, so that comparing does not weigh on the
	// measure.
	compareAll   = 1024
	compareEvery = 64
)

// call makes one call whose payload differs from that of every other call, and
// verifies the reply.
func (l *load) call(ctx context.Context, c *caller) error {
	reply, err := l.client.echo(ctx, c.number, c.stamp())
	if err == nil {
		err = c.verify(reply)
	}
	if err != nil {
		return fmt.Errorf("call %d of caller %d: %w", c.calls, c.number, err)
	}
	return nil
}

// stamp makes the next payload.
func (c *caller) stamp() []byte {
	c.calls++
	p := c.payload
	if len(p) >= stampLen {
		stamp := uint64(c.number)<<48 | c.calls
		binary.LittleEndian.PutUint64(p, stamp)
		binary.LittleEndian.PutUint64(p[len(p)-stampLen:], stamp)
	}
	return p
}

// verify compares a reply with the payload it answers.
func (c *caller) verify(reply []byte) error {
	p := c.payload
	ok := len(reply) == len(p)
	switch {
	case !ok:
	case len(p) <= compareAll || c.calls%compareEvery == 1:
		ok = bytes.Equal(reply, p)
	default:
		ok = bytes.Equal(reply[:stampLen], p[:stampLen]) &&
			bytes.Equal(reply[len(p)-stampLen:], p[len(p)-stampLen:])
	}
	if !ok {
		return fmt.Errorf("%w: %d bytes sent, %d came back", errWrongEcho, len(p), len(reply))
	}
	return nil
}
