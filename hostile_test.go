package stile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

const (
	unaryMethod = "/grpc.testing.TestService/UnaryCall"
	bidiMethod  = "/grpc.testing.TestService/FullDuplexCall"
	deafMethod  = "/grpc.testing.TestService/StreamingInputCall"
)

// deaf is an echo with a method that reads nothing until its call ends.
type deaf struct{ echo }

func (*deaf) StreamingInputCall(s pb.TestService_StreamingInputCallServer) error {
	<-s.Context().Done()
	return s.Context().Err()
}

// liar is a peer that speaks frames and owes nobody the truth.
type liar struct {
	t    *testing.T
	conn transport.Conn
	done <-chan struct{} // of the test

	mu    sync.Mutex
	ends  map[uint64]codes.Code // of calls, as the server ended them; refused: Unavailable
	more  chan struct{}         // closed and made anew at each change
	cause error
}

// newLiar shakes hands with the server at target.
func newLiar(t *testing.T, target, framing string) *liar {
	t.Helper()
	key, err := local.KeyOf(&net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(target, "unix://")})
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	conn, _, err := local.Dial(ctx, key, local.DialConfig{NoSHM: framing == "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Info().Transport; got != framing {
		t.Fatalf("the connection is %s, want %s", got, framing)
	}
	l := &liar{t: t, conn: conn, done: ctx.Done(), ends: map[uint64]codes.Code{}, more: make(chan struct{})}
	conn.Start(l)
	t.Cleanup(func() { _ = conn.Close() })
	return l
}

func (l *liar) HandleFrame(h wire.Header, b *wire.Buf) {
	defer b.Release()
	code, over := codes.Unavailable, false
	switch {
	case h.Type == wire.TypeReset:
		r, err := wire.ParseReset(b.B)
		over = true
		if err != nil || r.Code != wire.ResetRefused {
			code = codes.DataLoss
		}
	case h.Flags&wire.FlagTrailer != 0:
		over = true
		rest, err := b.B, error(nil)
		if h.Flags&wire.FlagHeader != 0 {
			_, rest, err = wire.CutSection(rest)
		}
		var section []byte
		if err == nil {
			section, _, err = wire.CutSection(rest)
		}
		tr, terr := wire.ParseTrailer(section, defaultHeaderList)
		if code = codes.Code(tr.Code); err != nil || terr != nil {
			code = codes.DataLoss
		}
	}
	if over {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ends[h.Stream] = code
		l.changedLocked()
	}
}

func (l *liar) HandleClose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cause = err
	l.changedLocked()
}

func (l *liar) changedLocked() {
	close(l.more)
	l.more = make(chan struct{})
}

// until waits for cond, which is called under mu.
func (l *liar) until(what string, cond func() bool) {
	l.t.Helper()
	for {
		l.mu.Lock()
		ok, more, cause := cond(), l.more, l.cause
		l.mu.Unlock()
		if ok {
			return
		}
		if cause != nil {
			l.t.Fatalf("%s: the connection ended: %v", what, cause)
		}
		select {
		case <-more:
		case <-l.done:
			l.t.Fatalf("%s: nothing happens", what)
		}
	}
}

// cut waits until the server has ended the connection.
func (l *liar) cut() {
	l.t.Helper()
	var cause error
	l.until("to be cut off", func() bool { cause = l.cause; return cause != nil })
	if !errors.Is(cause, transport.ErrPeerGone) {
		l.t.Errorf("the connection ended with %v", cause)
	}
}

// ended waits until the server has ended call id with code.
func (l *liar) ended(id uint64, code codes.Code) {
	l.t.Helper()
	var got codes.Code
	l.until("end of a call", func() bool { c, ok := l.ends[id]; got = c; return ok })
	if got != code {
		l.t.Errorf("call %d ended with %v, want %v", id, got, code)
	}
}

// unharmed makes an ordinary call on the connection.
func (l *liar) unharmed() {
	l.t.Helper()
	const id = 1 << 40
	l.send(wire.TypeStream, wire.FlagCall|wire.FlagHalfClose, id, call(wire.Call{Method: unaryMethod}), framed(0, nil))
	l.ended(id, codes.OK)
}

// send writes one frame and reports whether the connection still takes any.
func (l *liar) send(typ wire.Type, flags wire.Flags, id uint64, payload ...[]byte) bool {
	l.t.Helper()
	err := l.conn.Write(l.done, wire.Header{Type: typ, Flags: flags, Stream: id}, bytes.Join(payload, nil), nil)
	if errors.Is(err, transport.ErrCanceled) {
		l.t.Fatal("the server does not read")
	}
	return err == nil
}

// open sends the first frame of a call.
func (l *liar) open(id uint64, c wire.Call, flags wire.Flags, payload ...[]byte) bool {
	l.t.Helper()
	return l.send(wire.TypeStream, wire.FlagCall|flags, id, append([][]byte{call(c)}, payload...)...)
}

func call(c wire.Call) []byte { return section(wire.AppendCall(nil, &c)) }

func section(b []byte) []byte { return wire.EndSection(append(wire.BeginSection(nil), b...), 0) }

// framed is a message of gRPC's framing.
func framed(flag byte, b []byte) []byte { return append(prefix(flag, uint32(len(b))), b...) }

func prefix(flag byte, size uint32) []byte { return binary.BigEndian.AppendUint32([]byte{flag}, size) }

// lie is one way to break the rules as a client. tell must say how it ends.
type lie struct {
	name     string
	tell     func(l *liar)
	breaches int // that the server is to count
}

func sentence(name string, breaches int, typ wire.Type, flags wire.Flags, id uint64, payload ...[]byte) lie {
	return lie{name, func(l *liar) {
		l.open(1, wire.Call{Method: bidiMethod}, 0)
		l.send(typ, flags, id, payload...)
		if breaches > 0 {
			l.cut()
		} else {
			l.unharmed()
		}
	}, breaches}
}

// ending is a call whose first frame ends it with code.
func ending(name string, code codes.Code, c wire.Call, flags wire.Flags, payload ...[]byte) lie {
	return lie{name, func(l *liar) {
		l.open(1, c, flags, payload...)
		l.ended(1, code)
		l.unharmed()
	}, 0}
}

const fewStreams = 64

func frameLies() []lie {
	st, fc, fh := wire.TypeStream, wire.FlagCall, wire.FlagHalfClose
	whole := wire.AppendCall(nil, &wire.Call{Method: bidiMethod, MD: wire.MD{"k": {"v"}}})
	unary := wire.Call{Method: unaryMethod}
	manyMD := binary.AppendUvarint([]byte{0, 0, 0, 0, 0, 0, 0}, 1<<60)
	longTime := binary.AppendUvarint([]byte{0}, 1<<63)
	return []lie{
		sentence("header from a client", 1, st, wire.FlagHeader, 1, section(nil)),
		sentence("trailer from a client", 1, st, wire.FlagTrailer, 1, section(nil)),
		sentence("trailer for no call", 1, st, wire.FlagTrailer, 77, section(nil)),
		sentence("call with a trailer", 1, st, fc|wire.FlagTrailer, 2, section(whole)),
		sentence("call with a header", 1, st, fc|wire.FlagHeader, 2, section(whole)),
		sentence("call opened twice", 1, st, fc, 1, section(whole)),
		sentence("call without a section", 1, st, fc, 2),
		sentence("section of 4 GiB", 1, st, fc, 2, []byte{255, 255, 255, 255}, whole),
		sentence("section longer than its frame", 1, st, fc, 2, section(whole)[:len(whole)]),
		sentence("section cut short", 1, st, fc, 2, section(whole[:len(whole)-1])),
		sentence("section with a byte too many", 1, st, fc, 2, section(append(whole, 0))),
		sentence("trace of zeroes", 1, st, fc, 2, section(append(whole[:len(whole):len(whole)], make([]byte, 24)...))),
		sentence("trace without a span", 1, st, fc, 2, section(append(whole[:len(whole):len(whole)], append([]byte{1}, make([]byte, 23)...)...))),
		sentence("trace cut short", 1, st, fc, 2, section(append(whole[:len(whole):len(whole)], bytes.Repeat([]byte{1}, 23)...))),
		sentence("metadata without end", 1, st, fc, 2, section(manyMD)),
		sentence("timeout over 64 bits", 1, st, fc, 2, section(longTime)),
		sentence("window over 2 GiB", 1, wire.TypeWindow, 0, 1, wire.AppendWindow(nil, math.MaxInt32)),
		sentence("window of three bytes", 1, wire.TypeWindow, 0, 1, []byte{1, 0, 0}),
		sentence("window of no call cut short", 1, wire.TypeWindow, 0, 77, nil),
		sentence("window of no call", 0, wire.TypeWindow, 0, 77, wire.AppendWindow(nil, math.MaxUint32)),
		sentence("reset of no call", 0, wire.TypeReset, 0, 77, wire.AppendReset(nil, &wire.Reset{Code: 1})),
		sentence("reset that is garbage", 0, wire.TypeReset, 0, 1, []byte{255, 255}),
		sentence("reset with any code", 0, wire.TypeReset, 0, 1, wire.AppendReset(nil, &wire.Reset{Code: wire.ResetRefused})),
		sentence("message for no call", 0, st, fh, 77, framed(0, nil)),
		sentence("part for an open call", 0, wire.TypePart, 0, 1, []byte("x")),
		ending("message of 4 GiB", codes.ResourceExhausted, unary, 0, prefix(0, math.MaxUint32)),
		ending("message half sent in time", codes.DeadlineExceeded, wire.Call{Method: unaryMethod, Timeout: 50 * time.Millisecond}, 0, prefix(0, 1<<20), make([]byte, 1000)),
		ending("prefix half sent in time", codes.DeadlineExceeded, wire.Call{Method: bidiMethod, Timeout: 50 * time.Millisecond}, 0, []byte{0, 0}),
		ending("end inside a message", codes.Internal, unary, fh, prefix(0, 10), []byte("x")),
		ending("end inside a prefix", codes.Internal, unary, fh, []byte{0, 0}),
		ending("no message", codes.Internal, unary, fh),
		ending("two messages", codes.Internal, unary, fh, framed(0, nil), framed(0, nil)),
		ending("compressed without an encoding", codes.Internal, unary, fh, framed(1, []byte("x"))),
		ending("garbage said to be gzip", codes.Internal, wire.Call{Method: unaryMethod, Encoding: "gzip"}, fh, framed(1, []byte("x"))),
		ending("encoding that nobody has", codes.Unimplemented, wire.Call{Method: unaryMethod, Encoding: "snow"}, fh, framed(1, []byte("x"))),
		ending("unknown payload format", codes.Internal, unary, fh, framed(7, []byte("x"))),
		ending("garbage for protobuf", codes.Internal, unary, fh, framed(0, []byte{255, 255, 255})),
		ending("no method", codes.Unimplemented, wire.Call{}, fh),
		ending("method of 10 kB", codes.Unimplemented, wire.Call{Method: "/" + strings.Repeat("\xff", 10_000)}, fh),
		ending("subtype that nobody has", codes.OK, wire.Call{Method: unaryMethod, ContentSubtype: "snow"}, fh, framed(0, nil)),
		ending("longest timeout", codes.OK, wire.Call{Method: unaryMethod, Timeout: math.MaxInt64}, fh, framed(0, nil)),
	}
}

func floodLies() []lie {
	full := make([]byte, wire.MaxPayload)
	bidi := wire.Call{Method: bidiMethod}
	return []lie{
		{"message bytes over the window", func(l *liar) {
			l.open(1, wire.Call{Method: deafMethod}, 0)
			for range initialWindow/wire.MaxPayload + 1 {
				l.send(wire.TypeStream, 0, 1, full)
			}
			l.cut()
		}, 1},
		{"lent messages over the window", func(l *liar) {
			l.open(1, wire.Call{Method: deafMethod}, 0)
			lender, ok := l.conn.(transport.Lender)
			if !ok { // then what one must not send is too long for a frame
				l.send(wire.TypeStream, wire.FlagCall, 1)
				l.cut()
				return
			}
			// The first may overdraw the window, the second finds it closed.
			for range 2 {
				loan, ok := lender.Lend(initialWindow + 1)
				if !ok {
					l.t.Fatal("nothing is lent")
				}
				_ = lender.WriteLoan(l.done, wire.Header{Type: wire.TypeStream, Stream: 1}, nil, loan)
			}
			l.cut()
		}, 1},
		{"section over the limit", func(l *liar) { parts(l, 1, full); l.cut() }, 1},
		{"parts of many calls", func(l *liar) { parts(l, 1<<30, full); l.cut() }, 1},
		{"more calls than allowed", func(l *liar) {
			for id := range uint64(fewStreams + 1) {
				l.open(id+1, bidi, 0)
			}
			l.ended(fewStreams+1, codes.Unavailable)
		}, 0},
		{"frames after the end", func(l *liar) {
			l.open(1, bidi, wire.FlagHalfClose, framed(0, nil))
			for range 2 * initialWindow / wire.MaxPayload {
				l.send(wire.TypeStream, 0, 1, full)
			}
			l.send(wire.TypeStream, wire.FlagHalfClose, 1)
			l.ended(1, codes.OK)
			l.unharmed()
		}, 0},
		{"calls after the goodbye", func(l *liar) {
			l.open(1, bidi, 0)
			l.send(wire.TypeGoAway, 0, 0)
			for id := uint64(2); id < 100; id++ {
				l.open(id, wire.Call{Method: unaryMethod}, wire.FlagHalfClose, framed(0, nil))
			}
			for id := uint64(2); id < 100; id++ {
				l.ended(id, codes.Unavailable)
			}
			l.send(wire.TypeStream, wire.FlagHalfClose, 1)
			l.ended(1, codes.OK) // what was open goes on
		}, 0},
		{"100,000 resets", func(l *liar) {
			l.open(1, bidi, 0)
			reset := wire.AppendReset(nil, &wire.Reset{Code: 1})
			for id := range uint64(100_000) {
				l.send(wire.TypeReset, 0, id, reset)
			}
			l.unharmed()
		}, 0},
		{"calls that never send", func(l *liar) {
			for id := uint64(1); id <= fewStreams; id++ {
				l.open(id, wire.Call{Method: unaryMethod, Timeout: 20 * time.Millisecond}, 0)
			}
			for id := uint64(1); id <= fewStreams; id++ {
				l.ended(id, codes.DeadlineExceeded)
			}
			l.unharmed()
		}, 0},
		{"message byte by byte", func(l *liar) {
			l.open(1, wire.Call{Method: unaryMethod}, 0)
			for _, b := range framed(0, []byte{0x12, 10, 0x12, 8, 1, 2, 3, 4, 5, 6, 7, 8}) {
				l.send(wire.TypeStream, 0, 1, []byte{b})
			}
			l.send(wire.TypeStream, wire.FlagHalfClose, 1)
			l.ended(1, codes.OK)
			l.unharmed()
		}, 0},
		{"hang up with everything open", func(l *liar) {
			for id := uint64(1); id <= fewStreams; id++ {
				l.open(id, wire.Call{Method: deafMethod}, 0, framed(0, make([]byte, 60_000)))
			}
			_ = l.conn.Close()
		}, 0},
	}
}

// parts sends over 32 MiB of parts, over as many calls as ids says.
func parts(l *liar, ids uint64, full []byte) {
	for i := range uint64(64 << 20 / wire.MaxPayload) {
		if !l.send(wire.TypePart, 0, 1+i%ids, full) {
			return
		}
	}
}

// countingLog keeps the lines that say protocol.
type countingLog struct {
	slog.Handler
	mu   sync.Mutex
	said []string
}

func (*countingLog) Enabled(context.Context, slog.Level) bool { return true }

func (c *countingLog) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.Contains(r.Message, "protocol") {
		c.said = append(c.said, line)
	}
	return nil
}

// wantOnce checks that one line was logged, and holds all of parts.
func (c *countingLog) wantOnce(t *testing.T, parts ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) != 1 {
		t.Errorf("%d lines in the log, want one: %q", len(c.said), c.said)
		return
	}
	for _, p := range parts {
		if !strings.Contains(c.said[0], p) {
			t.Errorf("the log says %q, want %q in it", c.said[0], p)
		}
	}
}

// bystander makes ordinary local calls until the result is called, which fails
// the test when one of them was harmed.
func bystander(t *testing.T, target string) (stop func()) {
	t.Helper()
	c := dialTest(t, target)
	quit, done := make(chan struct{}), make(chan int)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	go func() {
		n := 0
		defer func() { done <- n }()
		for ; ; n++ {
			select {
			case <-quit:
				return
			default:
			}
			var p peer.Peer
			r, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(n % 5000)}, grpc.Peer(&p))
			if _, isLocal := p.AuthInfo.(AuthInfo); err != nil || !isLocal || len(r.Payload.Body) != n%5000 {
				t.Errorf("an ordinary call beside the liar: %v, local %v", err, isLocal)
				return
			}
		}
	}()
	return func() {
		close(quit)
		if n := <-done; n == 0 {
			t.Error("no ordinary call was made")
		}
	}
}

// maxGrowth is how much a lie may make the heap grow, in bytes: what 32 MiB of
// sections take as they are put together, with ample room.
const maxGrowth = 160 << 20

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// waitConns waits until the server has n local connections.
func waitConns(t *testing.T, d *door, n int) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		got := len(d.conns)
		d.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, want %d", got, n)
		}
	}
}

// TestHostileClient tells a server all lies, each on a connection of its own,
// while another client makes ordinary calls.
func TestHostileClient(t *testing.T) {
	for _, framing := range []string{"shm", "unix"} {
		t.Run(framing, func(t *testing.T) {
			files, mappings := holdings(t)
			t.Run("lies", func(t *testing.T) { hostileClients(t, framing) })
			checkHoldings(t, files, mappings)
		})
	}
}

func hostileClients(t *testing.T, framing string) {
	log := &countingLog{}
	target, s, _ := startServer(t, &deaf{}, MaxConcurrentStreams(fewStreams), Logger(slog.New(log)))
	stop := bystander(t, target)
	d := s.opened()
	waitConns(t, d, 1)
	breaches := 0
	before := heap()
	for _, lie := range append(frameLies(), floodLies()...) {
		t.Run(lie.name, func(t *testing.T) {
			l := newLiar(t, target, framing)
			lie.tell(l)
			if now := heap(); now > before+maxGrowth {
				t.Errorf("the heap grew by %d MiB", (now-before)>>20)
			}
			_ = l.conn.Close()
			waitConns(t, d, 1)
		})
		breaches += lie.breaches
		if got := d.breaches.Load(); got != int64(breaches) {
			t.Fatalf("%d breaches counted after %q, want %d", got, lie.name, breaches)
		}
	}
	stop()
	log.wantOnce(t, "WARN", "flags 0x2", "pid=", "uid=")
}

// TestHostilePrefix has a server that takes messages of any size: what a length
// prefix claims is not allocated before it comes.
func TestHostilePrefix(t *testing.T) {
	target, _, _ := startServer(t, &deaf{}, MaxRecvMsgSize(math.MaxInt))
	before := heap()
	l := newLiar(t, target, "unix")
	for id := uint64(1); id <= 8; id++ {
		l.open(id, wire.Call{Method: unaryMethod}, 0, prefix(0, math.MaxUint32), make([]byte, 100))
	}
	l.unharmed()
	if now := heap(); now > before+64<<20 {
		t.Errorf("the heap grew by %d MiB", (now-before)>>20)
	}
}
