package near

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errCall = errors.New("the call failed")

// follower is what became of a call that followed.
type follower struct {
	value any
	err   error
	lead  bool
	took  time.Duration
}

// follow joins key as a follower and gives the outcome of its Wait.
func follow(t *testing.T, f *Flights, ctx context.Context, key string) (*Flight, <-chan follower) {
	t.Helper()
	fl, leader := f.Join([]byte(key))
	if leader {
		t.Fatal("leads, want a flight under way")
	}
	out, began := make(chan follower, 1), time.Now()
	go func() {
		value, err, lead := fl.Wait(ctx)
		out <- follower{value, err, lead, time.Since(began)}
	}()
	return fl, out
}

func lead(t *testing.T, f *Flights, key string) *Flight {
	t.Helper()
	fl, leader := f.Join([]byte(key))
	if !leader {
		t.Fatal("follows, want to lead")
	}
	return fl
}

func none(t *testing.T, f *Flights) {
	t.Helper()
	if len(f.by) != 0 {
		t.Errorf("%d flights are left", len(f.by))
	}
}

func TestAnswerIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights
		fl := lead(t, &f, "k")
		other := lead(t, &f, "other")
		var outs []<-chan follower
		for range 3 {
			_, out := follow(t, &f, t.Context(), "k")
			outs = append(outs, out)
		}
		synctest.Wait()
		fl.End("answer", errCall, false)
		for _, out := range outs {
			if got := <-out; got.value != "answer" || got.err != errCall || got.lead {
				t.Errorf("got %+v", got)
			}
		}
		lead(t, &f, "k").End(nil, nil, false)
		other.End(nil, nil, true)
		none(t, &f)
	})
}

func TestLeaderCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights
		fl := lead(t, &f, "k")
		out := make(chan follower)
		const n = 5
		for range n {
			_, one := follow(t, &f, t.Context(), "k")
			go func() { out <- <-one }()
		}
		for range n - 2 { // each leader gives up in its turn
			synctest.Wait()
			fl.End("nothing", context.Canceled, true)
			synctest.Wait()
			if got := <-out; !got.lead || got.value != nil || got.err != nil {
				t.Fatalf("got %+v, want to lead", got)
			}
			synctest.Wait()
			select {
			case got := <-out:
				t.Fatalf("a second one is done: %+v", got)
			default:
			}
		}
		fl.End("answer", nil, false)
		for range 2 {
			if got := <-out; got.value != "answer" || got.err != nil || got.lead {
				t.Errorf("got %+v", got)
			}
		}
		none(t, &f)
	})
}

func TestShorterDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Flights
		fl := lead(t, &f, "k")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, first := follow(t, &f, short, "k")
		_, second := follow(t, &f, t.Context(), "k")
		if got := <-first; got.err != context.DeadlineExceeded || got.took != time.Second || got.lead {
			t.Errorf("got %+v", got)
		}
		time.Sleep(2 * time.Second)
		fl.End("answer", nil, false)
		if got := <-second; got.value != "answer" || got.took != 3*time.Second {
			t.Errorf("got %+v", got)
		}
		none(t, &f)
	})
}

func TestChosenFollowerLeaves(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			var f Flights
			fl := lead(t, &f, "k")
			ctx, cancel := context.WithCancel(t.Context())
			_, leaving := follow(t, &f, ctx, "k")
			_, staying := follow(t, &f, t.Context(), "k")
			synctest.Wait()
			go cancel()
			fl.End(nil, context.Canceled, true)
			next := <-leaving
			if next.lead { // it had not been cancelled yet
				fl.End(nil, ctx.Err(), true)
			} else if next.err != context.Canceled {
				t.Errorf("got %+v", next)
			}
			if got := <-staying; !got.lead {
				t.Errorf("got %+v, want to lead", got)
			}
			fl.End(nil, nil, false)
			none(t, &f)
		})
	}
}

// TestLastFollowerLeaves has nobody take what the leader gave up.
func TestLastFollowerLeaves(t *testing.T) {
	for range 50 {
		var f Flights
		fl := lead(t, &f, "k")
		if _, leader := f.Join([]byte("k")); leader {
			t.Fatal("leads")
		}
		fl.End(nil, nil, true)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err, lead := fl.Wait(ctx); err != context.Canceled || lead {
			t.Fatalf("%v, lead %v", err, lead)
		}
		none(t, &f)
		lead(t, &f, "k").End(nil, nil, false)
	}
}

func TestJoinWhileNobodyLeads(t *testing.T) {
	var f Flights
	fl := lead(t, &f, "k")
	f.Join([]byte("k"))
	fl.End(nil, nil, true)
	same, leader := f.Join([]byte("k"))
	if leader || same != fl {
		t.Fatal("a second flight for a key")
	}
	if _, _, lead := fl.Wait(t.Context()); !lead {
		t.Fatal("does not lead")
	}
	fl.End(1, nil, false)
	if value, _, lead := fl.Wait(t.Context()); value != 1 || lead {
		t.Errorf("got %v, lead %v", value, lead)
	}
	none(t, &f)
}

func TestSecondEndPanics(t *testing.T) {
	for _, again := range []bool{false, true} {
		var f Flights
		fl := lead(t, &f, "k")
		f.Join([]byte("k"))
		fl.End(nil, nil, again)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("again %v: no panic", again)
				}
			}()
			fl.End(nil, nil, false)
		}()
	}
}

// TestFlightsStress has calls come, lead, follow, give up and leave at random.
func TestFlightsStress(t *testing.T) {
	const keys, callers, calls = 3, 16, 2000
	var f Flights
	var running [keys]atomic.Int32
	var answers, handed [keys]atomic.Int64 // one number for each answer
	var led, followed, left atomic.Int64
	// call leads: it answers unless its context ends first.
	call := func(r *rand.Rand, ctx context.Context, fl *Flight, k int) {
		if running[k].Add(1) != 1 {
			t.Error("two lead one key")
		}
		for range r.IntN(20) {
			runtime.Gosched()
		}
		again := ctx.Err() != nil
		if !again {
			answers[k].Add(1)
		}
		led.Add(1)
		running[k].Add(-1)
		fl.End(answers[k].Load(), nil, again)
	}
	var wg sync.WaitGroup
	for g := range callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(g)))
			for range calls {
				k := r.IntN(keys)
				ctx, cancel := context.WithCancel(t.Context())
				switch r.IntN(4) {
				case 0:
					cancel()
				case 1:
					go cancel()
				}
				before := answers[k].Load()
				fl, lead := f.Join(fmt.Append(nil, k))
				if !lead {
					var value any
					var err error
					value, err, lead = fl.Wait(ctx)
					switch {
					case lead:
						handed[k].Add(1)
					case err != nil:
						left.Add(1)
					case value.(int64) < before:
						t.Error("an answer from before the call")
					default:
						followed.Add(1)
					}
				}
				if lead {
					call(r, ctx, fl, k)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	none(t, &f)
	if sum := led.Load() + followed.Load() + left.Load(); sum != callers*calls {
		t.Errorf("%d calls ended, want %d", sum, callers*calls)
	}
	if followed.Load() == 0 || left.Load() == 0 || handed[0].Load() == 0 {
		t.Errorf("not all was tried: %d followed, %d left, %d took over", followed.Load(), left.Load(), handed[0].Load())
	}
}

func BenchmarkFlights(b *testing.B) {
	key := []byte("/shop.Catalog/Quote sku=12345678")
	b.Run("join,end", func(b *testing.B) {
		b.ReportAllocs()
		var f Flights
		for b.Loop() {
			fl, _ := f.Join(key)
			fl.End(nil, nil, false)
		}
	})
	b.Run("join,follow,end,wait", func(b *testing.B) {
		b.ReportAllocs()
		var f Flights
		ctx := b.Context()
		for b.Loop() {
			fl, _ := f.Join(key)
			f.Join(key)
			fl.End(nil, nil, false)
			fl.Wait(ctx)
		}
	})
	b.Run("join,end,parallel", func(b *testing.B) {
		b.ReportAllocs()
		var f Flights
		var n atomic.Int64
		b.RunParallel(func(p *testing.PB) {
			key := fmt.Append(nil, "/shop.Catalog/Quote sku=", n.Add(1))
			for p.Next() {
				fl, _ := f.Join(key)
				fl.End(nil, nil, false)
			}
		})
	})
}
