package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const second = time.Second

func TestBreakerStates(t *testing.T) {
	const slow = 100 * time.Millisecond
	byCalls := BreakerConfig{Window: 4, MinCalls: 2, FailureRate: 50, SlowCall: slow, SlowRate: 100, OpenFor: 10 * second, HalfOpenCalls: 2}
	bySeconds := byCalls
	bySeconds.TimeBased = true
	with := func(c BreakerConfig, f func(*BreakerConfig)) BreakerConfig { f(&c); return c }

	// Each letter of a walk is a call or a second, and the state after it is checked where
	// one is written. "+" succeeds, "-" fails, "s" is slow, "_" is forgotten, "x" is refused,
	// "(" begins a call that "+)" or "-)" or "_)" ends, the oldest first; a digit is that
	// many seconds; C, O, H are the states.
	for _, tt := range []struct {
		name, walk string
		c          BreakerConfig
	}{
		{"too few calls", "-C", byCalls},
		{"failures at the limit", "+C-O", byCalls},
		{"failures below the limit", "++-C", byCalls},
		{"old outcomes leave", "++++C-C-O", byCalls},
		{"a success may complete the minimum", "-C+O", byCalls},
		{"slow calls", "sCsO", byCalls},
		{"slow calls below the limit", "s+sC", byCalls},
		{"fewer calls than the minimum fit", "---C-O", with(byCalls, func(c *BreakerConfig) { c.MinCalls = 100 })},
		{"no limits", "----ssssC", with(byCalls, func(c *BreakerConfig) { c.FailureRate, c.SlowRate = 0, 0 })},
		{"nothing forgotten counts", "____C-C_C+O", byCalls},
		{"open refuses", "--Ox9Ox", byCalls},
		{"open, then half-open", "--O91H", byCalls},
		{"half-open to closed", "--91H+H+C", byCalls},
		{"half-open to open, failures", "--91H-H+O", byCalls},
		{"half-open to open, slow calls", "--91HsHsO", byCalls},
		{"half-open lasts to its last call", "--91H-H9H1H+O", byCalls},
		{"open anew as long", "--91--O9O1H", byCalls},
		{"closed with an empty window", "--91++C-C-O", byCalls},
		{"places", "--91((Hxx+)x+)C", byCalls},
		{"places in total", "--91+(xx+)C", byCalls},
		{"forgotten places", "--91((x_)(x_)(x+)H+)C", byCalls},
		{"forgotten after another ended", "--91((-)x_)H(x+)O", byCalls},
		{"lost calls", "--91((x9x1H((x", byCalls},
		{"lost calls come back", "--91((x91((x-)-)Hx+)H+)C", byCalls},
		{"a place long free is given once", "--91+91(x9x+)C", byCalls},
		{"outcomes of before", "((--O-)-)O91H", byCalls},
		{"outcomes of before, half-open", "((--91H-)-)H+H+C", byCalls},
		{"outcomes of before, closed again", "((--91++C-)-)C", byCalls},
		{"forgotten, of before", "(--91((x_)x+)+)C", byCalls},
		{"seconds: at the limit", "-C+O", bySeconds},
		{"seconds: within", "-3+O", bySeconds},
		{"seconds: gone", "-4+C", bySeconds},
		{"seconds: one by one", "-1+1+1+O", with(bySeconds, func(c *BreakerConfig) { c.MinCalls, c.FailureRate = 4, 25 })},
		{"seconds: all gone", "-99+C-O", bySeconds},
		{"seconds: many calls", "++++++++----C---C-O", bySeconds},
		{"seconds: empty again", "--91++C-C-O", bySeconds},
		{"nothing set", "+--ssC", BreakerConfig{}},
		{"least of all", "-O1-O1+C", BreakerConfig{FailureRate: 100}},
	} {
		t.Run(tt.name, func(t *testing.T) { walkBreaker(t, tt.c, tt.walk) })
	}
}

// walkBreaker does what walk says.
func walkBreaker(t *testing.T, c BreakerConfig, walk string) {
	b, now := NewBreaker(c), -3*second
	var out []Permit
	for i, letter := range walk {
		oldest := strings.HasPrefix(walk[i+1:], ")")
		if strings.ContainsRune("(x+-s_", letter) && !oldest {
			p, _, ok := b.Allow(now)
			if ok != (letter != 'x') {
				t.Fatalf("after %q: allowed: %v", walk[:i], ok)
			}
			if ok {
				out = append(out, p)
			}
		}
		switch letter {
		case '+', '-', 's', '_':
			n := len(out) - 1
			if oldest {
				n = 0
			}
			p := out[n]
			out = slices.Delete(out, n, n+1)
			switch letter {
			case '_':
				b.Forget(p)
			case 's':
				b.Done(p, now, c.SlowCall, false)
			default:
				b.Done(p, now, c.SlowCall-1, letter == '-')
			}
		case 'C', 'O', 'H':
			want := map[rune]State{'C': Closed, 'O': Open, 'H': HalfOpen}[letter]
			if s, after := b.State(now), b.RetryAfter(now); s != want || after > 0 != (want == Open) {
				t.Fatalf("after %q: %v, retry after %v; want %v", walk[:i], s, after, want)
			}
		case '(', ')', 'x':
		default:
			now += time.Duration(letter-'0') * second
		}
	}
}

func TestBreakerMoves(t *testing.T) {
	b := NewBreaker(BreakerConfig{Window: 1, FailureRate: 100, OpenFor: 10, HalfOpenCalls: 1})
	call := func(now time.Duration, failed bool) (Move, Move) {
		p, m, ok := b.Allow(now)
		if !ok {
			t.Fatalf("refused at %d", now)
		}
		return m, b.Done(p, now, 0, failed)
	}
	for _, tt := range []struct {
		now         time.Duration
		failed      bool
		allow, done Move
	}{
		{100, false, Move{}, Move{}},
		{100, true, Move{}, Move{Closed, Open}},
		{110, true, Move{Open, HalfOpen}, Move{HalfOpen, Open}},
		{120, false, Move{Open, HalfOpen}, Move{HalfOpen, Closed}},
		{119, true, Move{}, Move{Closed, Open}},
	} {
		allow, done := call(tt.now, tt.failed)
		if allow != tt.allow || done != tt.done || done.Happened() != (tt.done != Move{}) {
			t.Fatalf("at %d: %v, %v", tt.now, allow, done)
		}
	}
	for now, want := range map[time.Duration]time.Duration{118: 10, 119: 10, 120: 9, 128: 1, 129: 0, 200: 0} {
		if got := b.RetryAfter(now); got != want {
			t.Errorf("at %d: retry after %d, want %d", now, got, want)
		}
	}
	if got := fmt.Sprint(Closed, Open, HalfOpen, State(9)); got != "closed open half-open unknown" {
		t.Error(got)
	}
}

func TestBreakerIgnoresSecondUse(t *testing.T) {
	b := NewBreaker(BreakerConfig{Window: 1, FailureRate: 100, OpenFor: 10, HalfOpenCalls: 3})
	p, _, _ := b.Allow(0)
	b.Done(Permit{}, 0, 0, true)
	b.Forget(Permit{})
	if s := b.State(0); s != Closed {
		t.Fatal("moved by the zero Permit: ", s)
	}
	b.Done(p, 0, 0, true)
	p, _, _ = b.Allow(10)
	for range 5 {
		b.Done(p, 10, 0, false)
		b.Forget(p)
	}
	for i := range 3 {
		if _, _, ok := b.Allow(10); ok != (i < 2) {
			t.Fatalf("call %d: %v", i+2, ok)
		}
	}
}

func TestBreakerMemory(t *testing.T) {
	const huge = 1 << 40
	calls, seconds := newCallWindow(huge), newTimeWindow(huge)
	if n := len(calls.bits) * 8; n != 250_000 || calls.size != maxWindow {
		t.Errorf("%d bytes for %d calls", n, calls.size)
	}
	if n := len(seconds.buckets); n != maxBuckets || seconds.width != maxWindow/maxBuckets*second {
		t.Errorf("%d buckets of %v", n, seconds.width)
	}
	for _, timeBased := range []bool{false, true} {
		b := NewBreaker(BreakerConfig{TimeBased: timeBased, Window: 50, MinCalls: 10, FailureRate: 50, OpenFor: second, HalfOpenCalls: 3})
		now, i := time.Duration(0), 0
		if n := testing.AllocsPerRun(10_000, func() {
			now, i = now+10*time.Millisecond, i+1
			if p, _, ok := b.Allow(now); ok {
				b.Done(p, now, 0, i%1000 < 300)
			}
			b.State(now)
			b.RetryAfter(now)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestBreakerTwin(t *testing.T) {
	seen := map[Move]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := [8]byte{}
		ops := make([]byte, 2*(50+r.IntN(400)))
		for _, b := range [][]byte{c[:], ops} {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		if msg := compareBreaker(c, ops, seen); msg != "" {
			t.Fatalf("seed %d: %s", seed, msg)
		}
	}
	for _, m := range []Move{{Closed, Open}, {Open, HalfOpen}, {HalfOpen, Closed}, {HalfOpen, Open}, {HalfOpen, HalfOpen}} {
		if seen[m] < 100 {
			t.Errorf("%v → %v happened %d times only", m.From, m.To, seen[m])
		}
	}
}

// breakerTwin keeps a plain list of the outcomes of a phase and counts it each time.
type breakerTwin struct {
	c                 BreakerConfig
	failRate, lagRate int // in thousandths
	state             State
	phase, given      int
	since             time.Duration // it opened, or a place was given
	list              []twinCall
	seen              map[Move]int
}

type twinCall struct {
	bucket       int64
	failed, slow bool
}

func (w *breakerTwin) begin(s State) Move {
	m := Move{w.state, s}
	w.seen[m]++
	w.state, w.phase, w.given, w.list = s, w.phase+1, 0, nil
	return m
}

func (w *breakerTwin) retryAfter(now time.Duration) time.Duration {
	if w.state != Open || now-w.since >= w.c.OpenFor {
		return 0
	}
	return min(w.since+w.c.OpenFor-now, w.c.OpenFor)
}

func (w *breakerTwin) allow(now time.Duration) (phase int, m Move, ok bool) {
	switch {
	case w.retryAfter(now) > 0, w.state == HalfOpen && w.given == w.c.HalfOpenCalls && now-w.since < w.c.OpenFor:
		return 0, m, false
	case w.state == Open:
		m = w.begin(HalfOpen)
	case w.state == HalfOpen && w.given == w.c.HalfOpenCalls:
		w.begin(HalfOpen)
	}
	if w.state == HalfOpen {
		w.given++
		w.since = now
	}
	return w.phase, m, true
}

func (w *breakerTwin) done(phase int, now, took time.Duration, failed bool) Move {
	if phase != w.phase {
		return Move{}
	}
	width := max(second, time.Duration(w.c.Window)*time.Millisecond)
	call := twinCall{int64((now+1e6*width)/width) - 1e6, failed, took >= w.c.SlowCall}
	if n := len(w.list); n > 0 {
		call.bucket = max(call.bucket, w.list[n-1].bucket)
	}
	w.list = append(w.list, call)
	window, least := w.list, w.c.MinCalls
	switch {
	case w.state == HalfOpen:
		least = w.c.HalfOpenCalls
	case w.c.TimeBased:
		n := min(int64(w.c.Window), maxBuckets)
		window = slices.DeleteFunc(slices.Clone(w.list), func(c twinCall) bool { return c.bucket <= call.bucket-n })
	default:
		window, least = w.list[max(len(w.list)-w.c.Window, 0):], min(least, w.c.Window)
	}
	bad, slow := 0, 0
	for _, c := range window {
		if c.failed {
			bad++
		}
		if c.slow {
			slow++
		}
	}
	switch n := len(window); {
	case n < least:
		return Move{}
	case bad*1000 >= w.failRate*n, slow*1000 >= w.lagRate*n:
		w.since = now
		return w.begin(Open)
	case w.state == HalfOpen:
		return w.begin(Closed)
	}
	return Move{}
}

func (w *breakerTwin) forget(phase int) {
	if phase == w.phase {
		w.given--
	}
}

// compareBreaker has a breaker and its twin do the same, two bytes of ops at a time, and tells
// of the first difference.
func compareBreaker(c [8]byte, ops []byte, seen map[Move]int) string {
	w := &breakerTwin{failRate: 1 + int(c[3])*4%1000, lagRate: 1 + int(c[4])*4%1000, seen: seen, c: BreakerConfig{
		TimeBased: c[0]&1 != 0, Window: 1 + int(c[1])%40, MinCalls: int(c[2]) % 16,
		SlowCall: 10, OpenFor: 1 + time.Duration(c[5])*100*time.Millisecond, HalfOpenCalls: 1 + int(c[6])%5,
	}}
	if c[0]&2 != 0 {
		w.c.Window = 1 + int(c[1])*10
	}
	w.c.FailureRate, w.c.SlowRate = float64(w.failRate)/10, float64(w.lagRate)/10
	b, now := NewBreaker(w.c), time.Duration(int(c[7])-128)*second
	type pair struct {
		p    Permit
		twin int
	}
	var out []pair
	for i := 0; i+1 < len(ops); i += 2 {
		op, arg := ops[i]%8, time.Duration(ops[i+1])
		now += 7 * time.Millisecond
		var got, want Move
		switch {
		case op < 3:
			p, m, ok := b.Allow(now)
			phase, twinM, twinOK := w.allow(now)
			if ok != twinOK {
				return fmt.Sprintf("op %d, %+v: allowed: %v, want %v", i/2, w.c, ok, twinOK)
			}
			if got, want = m, twinM; ok {
				out = append(out, pair{p, phase})
			}
		case op == 7:
			now += []time.Duration{-time.Millisecond, time.Millisecond, second / 10, time.Duration(w.c.Window) * second / 20}[arg>>6] * (arg & 63)
		case len(out) > 0:
			n := int(arg>>3) % len(out)
			x := out[n]
			if out = slices.Delete(out, n, n+1); op == 6 {
				b.Forget(x.p)
				w.forget(x.twin)
				break
			}
			took, failed := 3*(arg&7), arg%3 == 0
			got, want = b.Done(x.p, now, took, failed), w.done(x.twin, now, took, failed)
		}
		after, state := w.retryAfter(now), w.state
		if state == Open && after == 0 {
			state = HalfOpen
		}
		if got != want || b.State(now) != state || b.RetryAfter(now) != after {
			return fmt.Sprintf("op %d, %+v: %v, %v, %v; want %v, %v, %v", i/2, w.c, got, b.State(now), b.RetryAfter(now), want, state, after)
		}
	}
	return ""
}

func FuzzBreaker(f *testing.F) {
	f.Add(uint64(0), []byte{0, 0, 3, 1, 0, 0, 3, 1})
	f.Add(uint64(0x0102030405060708), []byte{0, 0, 0, 0, 4, 0, 4, 0, 8, 255, 0, 0, 1, 0, 2, 0, 3, 0})
	f.Add(uint64(0xffffffffffffffff), []byte("0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p"))
	f.Add(uint64(1)<<63|7, []byte{0, 1, 4, 1, 0, 1, 4, 1, 9, 200, 0, 1, 0, 1, 5, 0, 0, 1, 9, 255, 0, 1, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, config uint64, ops []byte) {
		if len(ops) > 4096 {
			return
		}
		var c [8]byte
		for i := range c {
			c[i] = byte(config >> (8 * i))
		}
		if msg := compareBreaker(c, ops, map[Move]int{}); msg != "" {
			t.Fatal(msg)
		}
	})
}

// TestBreakerConcurrent has callers at once on a breaker whose peer fails now and then.
func TestBreakerConcurrent(t *testing.T) {
	const phases = 1 << 16
	for _, timeBased := range []bool{false, true} {
		c := BreakerConfig{TimeBased: timeBased, Window: 8, MinCalls: 4, FailureRate: 50, OpenFor: 20 * second, HalfOpenCalls: 3}
		b := NewBreaker(c)
		var clock atomic.Int64
		var enters, leaves [3]atomic.Int64
		out, done := make([]atomic.Int64, phases), make([]atomic.Int64, phases)
		moved := func(m Move) {
			if m.Happened() {
				leaves[m.From].Add(1)
				enters[m.To].Add(1)
			}
		}
		caller := func(r *rand.Rand) {
			for range 20_000 {
				now := time.Duration(clock.Add(1)-int64(r.IntN(3))) * second
				p, m, ok := b.Allow(now)
				moved(m)
				if !ok {
					continue
				}
				half, i := p.phase.state() == HalfOpen, uint64(p.phase>>stateBits)%phases
				if n := out[i].Add(1); half && n > int64(c.HalfOpenCalls) {
					t.Errorf("%d calls are tried at once", n)
				}
				b.State(now)
				out[i].Add(-1)
				if r.IntN(4) == 0 {
					b.Forget(p)
					continue
				}
				if n := done[i].Add(1); half && n > int64(c.HalfOpenCalls) {
					t.Errorf("%d calls were tried", n)
				}
				moved(b.Done(p, now, 0, r.IntN(5) < 2))
			}
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { caller(rand.New(rand.NewPCG(uint64(i), 2))) })
		}
		wg.Wait()
		enters[Closed].Add(1)
		now := b.phase().state()
		for s := Closed; s <= HalfOpen; s++ {
			in := int64(0)
			if s == now {
				in = 1
			}
			if e, l := enters[s].Load(), leaves[s].Load(); e-l != in || e < 10 {
				t.Errorf("%v: entered %d times, left %d, now %v", s, e, l, now)
			}
		}
		if n := uint64(b.phase() >> stateBits); n >= phases {
			t.Fatalf("%d phases are more than are told apart", n)
		}
	}
}

func BenchmarkBreaker(b *testing.B) {
	for _, timeBased := range []bool{false, true} {
		c := BreakerConfig{TimeBased: timeBased, Window: 100, MinCalls: 100, FailureRate: 50, SlowCall: second, SlowRate: 100, OpenFor: second, HalfOpenCalls: 10}
		name := map[bool]string{false: "calls", true: "seconds"}[timeBased]
		b.Run(name+"/serial", func(b *testing.B) {
			br, now := NewBreaker(c), time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				now += time.Microsecond
				p, _, _ := br.Allow(now)
				br.Done(p, now, time.Microsecond, false)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			br := NewBreaker(c)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for now := time.Duration(0); pb.Next(); now += time.Microsecond {
					p, _, _ := br.Allow(now)
					br.Done(p, now, time.Microsecond, false)
				}
			})
		})
	}
	b.Run("refused/parallel", func(b *testing.B) {
		br := NewBreaker(BreakerConfig{FailureRate: 1, OpenFor: second})
		p, _, _ := br.Allow(0)
		br.Done(p, 0, 0, true)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				br.Allow(0)
			}
		})
	})
}
