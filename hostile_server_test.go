package stile

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

// impostor is a local door behind which a liar answers. Beside it serves an
// honest grpc-go server.
type impostor struct {
	t      *testing.T
	target string
	dir    string // of its rendezvous
	lis    transport.Listener
	reply  func(*answer)
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns []*lane
	cuts  int // connections that the client ended
}

// lane is one connection of an impostor.
type lane struct {
	imp  *impostor
	conn transport.Conn
	wg   sync.WaitGroup
}

// answer is a call that the impostor answers.
type answer struct {
	conn transport.Conn
	id   uint64
}

// newImpostor opens a door at which every call gets reply, on a goroutine of its
// own; greet is done with each new connection, if not nil.
func newImpostor(t *testing.T, framing string, greet func(transport.Conn), reply func(*answer)) *impostor {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	honest := grpc.NewServer()
	pb.RegisterTestServiceServer(honest, &echo{})
	go func() { _ = honest.Serve(lis) }()
	keys, err := local.KeysForListener(lis)
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{t: t, target: "unix://" + path, dir: filepath.Join(dir, "doors"), reply: reply}
	i.lis, err = local.Listen(local.ListenConfig{
		Dir: i.dir, Keys: keys, NoSHM: framing == "unix",
		Settings: settings{maxStreams: math.MaxUint32, maxHeaderList: defaultHeaderList}.encode(),
	})
	if err != nil {
		t.Fatal(err)
	}
	i.wg.Add(1)
	go i.accept(greet)
	t.Cleanup(func() {
		_ = i.lis.Close()
		i.wg.Wait()
		for _, l := range i.conns {
			_ = l.conn.Close()
			l.wg.Wait()
		}
		honest.Stop()
	})
	return i
}

func (i *impostor) dial(opts ...grpc.DialOption) pb.TestServiceClient {
	return dialTest(i.t, i.target, append(opts, WithDir(i.dir))...)
}

func (i *impostor) accept(greet func(transport.Conn)) {
	defer i.wg.Done()
	for {
		c, err := i.lis.Accept()
		if err != nil {
			return
		}
		l := &lane{imp: i, conn: c}
		i.mu.Lock()
		i.conns = append(i.conns, l)
		i.mu.Unlock()
		if greet != nil {
			greet(c)
		}
		c.Start(l)
	}
}

func (l *lane) HandleFrame(h wire.Header, b *wire.Buf) {
	b.Release()
	if h.Flags&wire.FlagCall != 0 {
		l.wg.Go(func() { l.imp.reply(&answer{l.conn, h.Stream}) })
	}
}

func (l *lane) HandleClose(error) {
	l.imp.mu.Lock()
	defer l.imp.mu.Unlock()
	l.imp.cuts++
}

// connections tells how many clients came, and how many have left.
func (i *impostor) connections() (came, left int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.conns), i.cuts
}

func (a *answer) send(typ wire.Type, flags wire.Flags, payload ...[]byte) bool {
	return a.sendTo(a.id, typ, flags, payload...)
}

func (a *answer) sendTo(id uint64, typ wire.Type, flags wire.Flags, payload ...[]byte) bool {
	return a.conn.Write(nil, wire.Header{Type: typ, Flags: flags, Stream: id}, bytes.Join(payload, nil), nil) == nil
}

// ok ends the call well.
func (a *answer) ok() { a.send(wire.TypeStream, okFlags, okReply()) }

const okFlags = wire.FlagHeader | wire.FlagTrailer

func okReply() []byte {
	return bytes.Join([][]byte{header(wire.Head{}), trailer(wire.Trailer{}), framed(0, nil)}, nil)
}

func header(h wire.Head) []byte     { return section(wire.AppendHead(nil, &h)) }
func trailer(t wire.Trailer) []byte { return section(wire.AppendTrailer(nil, &t)) }

// told is one way to break the rules as a server.
type told struct {
	name string
	code codes.Code // of the client's call
	cut  bool       // the connection must end
	lie  func(*answer)
}

// frames is a lie of a single frame, after which everything would be well.
func frames(name string, code codes.Code, cut bool, typ wire.Type, flags wire.Flags, payload ...[]byte) told {
	return told{name, code, cut, func(a *answer) {
		if a.send(typ, flags, payload...) && code == codes.OK {
			a.ok()
		}
	}}
}

func serverFrameLies() []told {
	st, rs := wire.TypeStream, wire.TypeReset
	wh, wt := wire.FlagHeader, wire.FlagTrailer
	lost, internal := codes.Unavailable, codes.Internal
	head, end := header(wire.Head{}), trailer(wire.Trailer{})
	manyMD := append(bytes.Repeat([]byte{0}, 2), 255, 255, 255, 255, 255, 255, 255, 255, 127)
	return []told{
		frames("call from a server", lost, true, st, wire.FlagCall, call(wire.Call{})),
		frames("half-close from a server", lost, true, st, wire.FlagHalfClose),
		frames("header without a section", lost, true, st, wh),
		frames("trailer without a section", lost, true, st, wh|wt, head),
		frames("section of 4 GiB", lost, true, st, wt, []byte{255, 255, 255, 255, 0, 0, 0}),
		frames("header that is garbage", lost, true, st, wh, section([]byte{200, 1, 2})),
		frames("trailer that is garbage", lost, true, st, wt, section([]byte{1, 200})),
		frames("trailer with a byte too many", lost, true, st, wt, section([]byte{0, 0, 0, 0})),
		frames("metadata without end", lost, true, st, wh, section(manyMD)),
		frames("reset that is garbage", lost, true, rs, 0, []byte{255}),
		frames("window cut short", lost, true, wire.TypeWindow, 0, []byte{1}),
		frames("window over 2 GiB", lost, true, wire.TypeWindow, 0, wire.AppendWindow(nil, math.MaxInt32)),
		frames("status 17", 17, false, st, wt, trailer(wire.Trailer{Code: 17})),
		frames("largest status", math.MaxInt32, false, st, wt, trailer(wire.Trailer{Code: math.MaxInt32})),
		frames("status over 31 bits", codes.Unknown, false, st, wt, trailer(wire.Trailer{Code: 1 << 31})),
		frames("details of another status", codes.NotFound, false, st, wt, trailer(wire.Trailer{Code: 5, MD: wire.MD{statusDetailsKey: {"\x08\x06"}}})),
		frames("reset", codes.PermissionDenied, false, rs, 0, wire.AppendReset(nil, &wire.Reset{Code: 7})),
		frames("header name that is none", internal, false, st, wh|wt, header(wire.Head{MD: wire.MD{"A b": {"v"}}}), end),
		frames("header value with a line end", internal, false, st, wh|wt, header(wire.Head{MD: wire.MD{"k": {"v\r\n"}}}), end),
		frames("trailer value with a line end", internal, false, st, wt, trailer(wire.Trailer{MD: wire.MD{"k": {"v\r\n"}}})),
		frames("no message", internal, false, st, wt, end),
		frames("two messages", internal, false, st, okFlags, okReply(), framed(0, nil)),
		frames("end inside a message", internal, false, st, okFlags, head, end, prefix(0, 9)),
		frames("end inside a prefix", internal, false, st, okFlags, head, end, []byte{0}),
		frames("message of 4 GiB", codes.ResourceExhausted, false, st, wh, head, prefix(0, math.MaxUint32)),
		frames("garbage for protobuf", internal, false, st, okFlags, head, end, framed(0, []byte{255, 255})),
		frames("compressed without an encoding", internal, false, st, okFlags, head, end, framed(1, []byte{1})),
		frames("encoding that nobody has", internal, false, st, okFlags, header(wire.Head{Encoding: "snow"}), end, framed(1, []byte{1})),
		frames("unknown payload format", internal, false, st, okFlags, head, end, framed(9, []byte{1})),
		frames("half a message", codes.DeadlineExceeded, false, st, wh, head, prefix(0, 100), []byte{1}),
	}
}

func serverFloodLies() []told {
	return []told{
		{"message on stream 0", codes.OK, false, func(a *answer) {
			a.sendTo(0, wire.TypeStream, 0, []byte{1, 2, 3})
			a.ok()
		}},
		{"two headers", codes.Unavailable, true, func(a *answer) {
			a.send(wire.TypeStream, wire.FlagHeader, header(wire.Head{}))
			a.ok()
		}},
		{"two trailers", codes.OK, false, func(a *answer) {
			a.ok()
			a.send(wire.TypeStream, wire.FlagTrailer, trailer(wire.Trailer{Code: 5}))
		}},
		{"header after the trailer", codes.OK, false, func(a *answer) {
			a.ok()
			a.send(wire.TypeStream, wire.FlagHeader, header(wire.Head{}))
		}},
		{"messages for unknown calls", codes.OK, false, func(a *answer) {
			for id := range uint64(1000) {
				a.sendTo(a.id+1+id, wire.TypeStream, 0, framed(0, make([]byte, 1000)))
				a.sendTo(a.id+1+id, wire.TypePart, 0, make([]byte, wire.MaxPayload))
				a.sendTo(a.id+1+id, wire.TypeReset, 0)
			}
			a.ok()
		}},
		{"refused call", codes.OK, false, func(a *answer) { // it is made again over gRPC
			a.send(wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: wire.ResetRefused}))
		}},
		{"goodbye in place of an answer", codes.OK, true, func(a *answer) {
			a.send(wire.TypeGoAway, 0)
			a.ok()
		}},
		{"parts over the limit", codes.Unavailable, true, func(a *answer) {
			for a.send(wire.TypePart, 0, make([]byte, wire.MaxPayload)) {
			}
		}},
		{"never an answer", codes.DeadlineExceeded, false, func(*answer) {}},
		{"hang up", codes.Unavailable, true, func(a *answer) { _ = a.conn.Close() }},
	}
}

// TestHostileServer makes a call at a door that lies, for each lie, while another
// connection makes ordinary calls.
func TestHostileServer(t *testing.T) {
	for _, framing := range []string{"shm", "unix"} {
		t.Run(framing, func(t *testing.T) {
			files, mappings := holdings(t)
			t.Run("lies", func(t *testing.T) {
				target, _, _ := startServer(t, &echo{})
				stop := bystander(t, target)
				for _, c := range append(serverFrameLies(), serverFloodLies()...) {
					t.Run(c.name, func(t *testing.T) { c.run(t, framing) })
				}
				stop()
			})
			checkHoldings(t, files, mappings)
		})
	}
}

func (c *told) run(t *testing.T, framing string) {
	var once sync.Once
	i := newImpostor(t, framing, nil, func(a *answer) {
		lie := (*answer).ok
		once.Do(func() { lie = c.lie })
		lie(a)
	})
	log := &countingLog{}
	client := i.dial(WithLogger(slog.New(log)))
	ctx := testContext(t)
	if c.code == codes.DeadlineExceeded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
	}
	before := heap()
	if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(100)}); status.Code(err) != c.code {
		t.Errorf("the call ended with %v, want %v", err, c.code)
	}
	if now := heap(); now > before+maxGrowth {
		t.Errorf("the heap grew by %d MiB", (now-before)>>20)
	}
	if c.cut {
		i.waitLeft(1)
	} else if came, left := i.connections(); came != 1 || left != 0 {
		t.Errorf("%d connections, %d of them ended; want one that lives", came, left)
	}
	if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if c.cut && c.name != "hang up" && c.name != "goodbye in place of an answer" { // in good order
		log.wantOnce(t, "INFO", "protocol", "pid=", i.target)
	} else if len(log.said) != 0 {
		t.Errorf("the log says %q", log.said)
	}
}

func (i *impostor) waitLeft(n int) {
	i.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, left := i.connections(); left >= n {
			return
		}
		if time.Now().After(deadline) {
			i.t.Fatal("the client does not end the connection")
		}
	}
}

// A server that sends more than the window allows, to a call that does not read,
// is cut off.
func TestHostileWindow(t *testing.T) {
	i := newImpostor(t, "unix", nil, func(a *answer) {
		a.send(wire.TypeStream, wire.FlagHeader, header(wire.Head{}))
		for a.send(wire.TypeStream, 0, make([]byte, wire.MaxPayload)) {
		}
	})
	s, err := i.dial(WithLogger(slog.New(&countingLog{}))).FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	i.waitLeft(1)
	for err == nil { // what is within the window can be read
		_, err = s.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
}

// A server may answer before it has the whole request.
func TestHostileEarlyAnswer(t *testing.T) {
	i := newImpostor(t, "unix", nil, func(a *answer) {
		a.send(wire.TypeStream, wire.FlagTrailer, trailer(wire.Trailer{Code: 5, Message: "enough"}))
	})
	c := i.dial()
	if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(3 << 20)}); status.Code(err) != codes.NotFound {
		t.Errorf("the call ended with %v", err)
	}
	s, err := c.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(100_000)})
	}
	if err != io.EOF {
		t.Errorf("Send: %v", err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Recv: %v", err)
	}
}

// A server that says goodbye at once gets no call that matters.
func TestHostileGreeting(t *testing.T) {
	i := newImpostor(t, "unix", func(c transport.Conn) {
		_ = c.Write(nil, wire.Header{Type: wire.TypeGoAway}, nil, nil)
	}, func(a *answer) {
		a.send(wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: wire.ResetRefused}))
	})
	c := i.dial()
	for range 20 {
		if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}
