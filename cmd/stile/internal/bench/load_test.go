package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// taking is a call that takes a time.
func taking(d time.Duration) call {
	return func(ctx context.Context, _ grpc.ClientConnInterface, _ ...grpc.CallOption) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name    string
		load    load
		length  time.Duration
		calls   int64
		elapsed time.Duration
	}{
		{"without pause", load{call: taking(10 * time.Millisecond), callers: 3}, time.Second, 300, time.Second},
		{"longer than the window", load{call: taking(5 * time.Second), callers: 2}, time.Second, 2, 5 * time.Second},
		{"paced", load{call: taking(100 * time.Microsecond), callers: 1, pace: time.Millisecond}, 100 * time.Millisecond, 100, 100*time.Millisecond + 100*time.Microsecond},
		{"paced, but too slow for each turn", load{call: taking(1500 * time.Microsecond), callers: 1, pace: time.Millisecond}, 100 * time.Millisecond, 50, 100*time.Millisecond + 500*time.Microsecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.load.reply = time.Minute
			w, err := c.load.run(t.Context(), c.length)
			if err != nil {
				t.Fatal(err)
			}
			if w.times.Count != c.calls || w.elapsed != c.elapsed {
				t.Errorf("%s: %d calls in %v, want %d in %v", c.name, w.times.Count, w.elapsed, c.calls, c.elapsed)
			}
		})
	}
}

func TestLoadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := load{call: taking(time.Hour), callers: 3, reply: time.Second}.run(t.Context(), time.Second)
		if !errors.Is(err, errNoReply) {
			t.Errorf("a call without end: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = (load{call: taking(time.Hour), callers: 3, reply: time.Minute}).run(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
		broken := errors.New("broken")
		fails := func(ctx context.Context, _ grpc.ClientConnInterface, _ ...grpc.CallOption) error {
			_ = taking(time.Millisecond)(ctx, nil)
			return broken
		}
		if _, err = (load{call: fails, callers: 64, reply: time.Minute}).run(t.Context(), time.Hour); !errors.Is(err, broken) {
			t.Errorf("a call that fails: %v", err)
		}
	})
}
