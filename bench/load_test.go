package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stile-ipc/stile/bench/echopb"
)

// fakeClient answers in the test's own process.
type fakeClient func(payload []byte) ([]byte, error)

func (f fakeClient) echo(_ context.Context, _ int, payload []byte) ([]byte, error) { return f(payload) }
func (fakeClient) check() error                                                    { return nil }
func (fakeClient) close() error                                                    { return nil }

func (f fakeClient) down(_ context.Context, _ int, m *echopb.Message) (receiver, error) {
	return &fakeStream{answer: f, sent: m, left: perStream(len(m.GetValue()))}, nil
}

func (f fakeClient) chat(context.Context, int) (chatter, error) {
	return &fakeStream{answer: f, left: -1}, nil
}

// fakeStream answers what was sent last, left times or until it is closed.
type fakeStream struct {
	answer fakeClient
	sent   *echopb.Message
	left   int
}

func (s *fakeStream) Send(m *echopb.Message) error { s.sent = m; return nil }
func (s *fakeStream) CloseSend() error             { s.left = 0; return nil }

func (s *fakeStream) Recv() (*echopb.Message, error) {
	if s.left == 0 {
		return nil, io.EOF
	}
	s.left--
	reply, err := s.answer(s.sent.GetValue())
	return &echopb.Message{Value: reply}, err
}

func TestLoadRefusesWrongEcho(t *testing.T) {
	var old []byte
	for name, answer := range map[string]fakeClient{
		"short":     func(p []byte) ([]byte, error) { return p[:len(p)-1], nil },
		"long":      func(p []byte) ([]byte, error) { return append(p, 0), nil },
		"none":      func([]byte) ([]byte, error) { return nil, nil },
		"last call": func(p []byte) ([]byte, error) { r := old; old = append([]byte(nil), p...); return r, nil },
		"one byte": func(p []byte) ([]byte, error) {
			r := append([]byte(nil), p...)
			r[len(r)/2]++
			return r, nil
		},
	} {
		for _, size := range []int{64, 64 << 10} {
			for _, kind := range []string{"unary", "bidi"} {
				old = make([]byte, size)
				_, err := newLoad(answer, kind, size, 1).run(time.Hour)
				if !errors.Is(err, errWrongEcho) {
					t.Errorf("%s reply to %d bytes of kind %s: %v", name, size, kind, err)
				}
			}
		}
	}
}

// A stream that ends early, or goes on, is not taken for a whole one.
func TestLoadRefusesWrongStream(t *testing.T) {
	for _, n := range []int{0, perStream(64) - 1, perStream(64) + 1} {
		c := wrongStreams{fakeClient(func(p []byte) ([]byte, error) { return p, nil }), n}
		if _, err := newLoad(c, "stream", 64, 1).run(time.Hour); err == nil {
			t.Errorf("a stream of %d messages instead of %d was taken", n, perStream(64))
		}
	}
}

type wrongStreams struct {
	fakeClient
	n int
}

func (c wrongStreams) down(_ context.Context, _ int, m *echopb.Message) (receiver, error) {
	return &fakeStream{answer: c.fakeClient, sent: m, left: c.n}, nil
}

func TestLoadEndsAtFirstError(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	l := newLoad(fakeClient(func(p []byte) ([]byte, error) {
		if calls++; calls == 100 {
			return nil, broken
		}
		return p, nil
	}), "unary", 64, 1)
	if _, err := l.run(time.Hour); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestLoadCallsAtLeastOnce(t *testing.T) {
	for kind := range kinds {
		l := newLoad(fakeClient(func(p []byte) ([]byte, error) { return p, nil }), kind, 64, 3)
		want := uint64(3)
		if kind == "stream" { // a whole one
			want *= uint64(perStream(64))
		}
		if w, err := l.run(0); err != nil || w.hist.count != want {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestLoadWithoutCallsFails(t *testing.T) {
	l := newLoad(fakeClient(func(p []byte) ([]byte, error) { return p, nil }), "unary", 64, 2)
	l.stop.Store(true)
	if _, err := l.run(time.Hour); !errors.Is(err, errNoCalls) {
		t.Error(err)
	}
}

func TestLoadDoesNotAllocate(t *testing.T) {
	l := newLoad(fakeClient(func(p []byte) ([]byte, error) { return p, nil }), "unary", 64, 1)
	c := l.callers[0]
	allocs := testing.AllocsPerRun(1000, func() {
		if err := l.call(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c.hist.record(int64(c.calls))
	})
	if allocs != 0 {
		t.Errorf("%v allocations a call", allocs)
	}
}

// strayClient goes another way unless its number is 3.
type strayClient struct {
	fakeClient
	number int
	closed *int
}

func (c strayClient) check() error {
	if c.number == 3 {
		return nil
	}
	return errOtherWay
}

func (c strayClient) close() error {
	*c.closed++
	return nil
}

func TestDialSettled(t *testing.T) {
	var dialed, closed int
	c, err := dialSettled(func() (client, error) {
		dialed++
		return strayClient{nil, dialed, &closed}, nil
	})
	if err != nil || c.(strayClient).number != 3 || closed != 2 {
		t.Errorf("%v after %d clients, of which %d were closed", err, dialed, closed)
	}
	broken := errors.New("broken")
	if _, err := dialSettled(func() (client, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestHistogram(t *testing.T) {
	for _, v := range []int64{-1, 0, 1, 127, 128, 129, 255, 256, 1000, 123_456, 1<<39 + 12345, 1<<40 - 1, 1 << 40, 1 << 62} {
		start, width := bucketStart(bucketOf(v))
		in := min(max(v, 0), 1<<maxBits-1)
		if in < start || in >= start+width || width > max(1, in>>subBits) {
			t.Errorf("%d is in [%d, %d)", v, start, start+width)
		}
	}
	for i := range buckets {
		if start, width := bucketStart(i); bucketOf(start) != i || bucketOf(start+width-1) != i {
			t.Fatalf("bucket %d: [%d, %d)", i, start, start+width)
		}
	}
	var all histogram
	for part := range int64(10) {
		var h histogram
		for v := range int64(100) {
			h.record((part*100 + v + 1) * 1000)
		}
		all.add(&h)
	}
	for q, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3, 1: 1000e3} {
		if got := all.quantile(q); got < want*0.99 || got > want*1.01 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("median of nothing is %v", got)
	}
}
