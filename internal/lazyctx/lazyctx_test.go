package lazyctx

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// twins are a context of package context and a lazy one, derived alike.
type twins struct {
	theirs, ours       context.Context
	endTheirs, endOurs func()
}

func newTwins(parent context.Context, d time.Duration) twins {
	deadline := time.Now().Add(d)
	if earlier, ok := parent.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	theirs, cancel := context.WithDeadline(parent, deadline)
	a := NewAttempt(parent, deadline, d)
	return twins{theirs, a, cancel, func() { a.Cancel(context.Canceled) }}
}

func ended(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// look returns what can be seen of a context, in the order that what says.
func look(ctx context.Context, what int) string {
	switch what {
	case 0:
		return fmt.Sprint("err ", ctx.Err() != nil)
	case 1:
		return fmt.Sprint("done ", ended(ctx))
	case 2:
		d, ok := ctx.Deadline()
		return fmt.Sprint("deadline ", d, ok)
	}
	return fmt.Sprint("value ", ctx.Value(testKey{}))
}

type testKey struct{}

// TestLikePackageContext lets random things happen to a lazy context and to one of package context: both
// must look the same at each step, but for the reason of an end.
func TestLikePackageContext(t *testing.T) {
	for seed := range 500 {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 3))
			root, cancelRoot := context.WithCancel(context.WithValue(context.Background(), testKey{}, seed))
			defer cancelRoot()
			if r.IntN(3) == 0 { // a parent that is lazy too
				parent := NewAttempt(root, time.Now().Add(time.Duration(r.IntN(60))*time.Millisecond), 0)
				defer parent.Cancel(context.Canceled)
				root = parent
			}
			pair := newTwins(root, time.Duration(r.IntN(50))*time.Millisecond)
			defer pair.endTheirs()
			defer pair.endOurs()
			views := []twins{pair}
			var fired [2]atomic.Int64
			for step := range 30 {
				at := views[r.IntN(len(views))]
				switch r.IntN(10) {
				case 0:
					theirs, c1 := context.WithCancel(at.theirs)
					ours, c2 := context.WithCancel(at.ours)
					defer c1()
					defer c2()
					views = append(views, twins{theirs, ours, c1, c2})
				case 1:
					stop := [2]func() bool{context.AfterFunc(at.theirs, func() { fired[0].Add(1) }), context.AfterFunc(at.ours, func() { fired[1].Add(1) })}
					if r.IntN(2) == 0 {
						synctest.Wait()
						if a, b := stop[0](), stop[1](); a != b {
							t.Fatalf("seed %d step %d: stop %v, ours %v", seed, step, a, b)
						}
					}
				case 2:
					if r.IntN(4) == 0 {
						at.endTheirs()
						at.endOurs()
					}
				case 3:
					if r.IntN(8) == 0 {
						cancelRoot()
					}
				case 4, 5:
					time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
				default:
					synctest.Wait()
					what := r.IntN(4)
					if a, b := look(at.theirs, what), look(at.ours, what); a != b {
						t.Fatalf("seed %d step %d: %s, ours %s", seed, step, a, b)
					}
				}
				synctest.Wait()
				if fired[0].Load() != fired[1].Load() {
					t.Fatalf("seed %d step %d: %d functions called, ours %d", seed, step, fired[0].Load(), fired[1].Load())
				}
			}
		})
	}
}

// TestNobodyWaits: a context that nobody waits for allocates nothing but itself.
func TestNobodyWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deadline := time.Now().Add(time.Hour)
	if n := testing.AllocsPerRun(100, func() {
		var a Attempt
		a.Start(ctx, deadline, time.Hour)
		if a.Err() != nil || a.Waited() {
			t.Error("ended")
		}
		a.Cancel(context.Canceled)
		if a.Err() != context.Canceled || !a.Waited() {
			t.Error("goes on")
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// TestLateDeadline: a context gets its deadline after somebody waits for its end.
func TestLateDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Core
		done := c.Done()
		c.SetDeadline(time.Now().Add(time.Second))
		c.SetDeadline(time.Now().Add(time.Minute)) // the first stays
		begin := time.Now()
		<-done
		if took := time.Since(begin); took != time.Second || c.Err() != context.DeadlineExceeded {
			t.Errorf("ended after %v: %v", took, c.Err())
		}
	})
}

// TestCut: the word of who cancels reaches one who waits for no more.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAttempt(context.Background(), time.Now().Add(time.Second), time.Second)
		cut := a.Cut()
		if a.Waited() {
			t.Error("a timer runs")
		}
		time.AfterFunc(time.Millisecond, func() { a.Cancel(context.Canceled) })
		begin := time.Now()
		<-cut
		if took := time.Since(begin); took != time.Millisecond || a.Err() != context.Canceled || !ended(a) {
			t.Errorf("cut after %v: %v", took, a.Err())
		}
		<-a.Cut() // closed from now on
	})
}
