package stile

import (
	"context"
	"io"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

// A client that cancels a call may open the next one at once.
type slow struct {
	echo
	free chan struct{}
}

func (s *slow) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	<-s.free
	return &pb.Empty{}, nil
}

func TestCancelFreesStream(t *testing.T) {
	impl := &slow{free: make(chan struct{})}
	target, _, accepted := startServer(t, impl, MaxConcurrentStreams(1))
	c := dialTest(t, target)
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if _, err := c.EmptyCall(ctx, &pb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(impl.free) })
	if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Errorf("after a canceled call: %v", err)
	}
	if len(accepted) != 0 {
		t.Errorf("went over HTTP/2")
	}
}

// Parts without bytes are not free.
func TestEmptyParts(t *testing.T) {
	target, _, _ := startServer(t, &deaf{})
	for _, size := range []int{0, 1} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			before := heap()
			l := newLiar(t, target, "shm")
			for id := range uint64(1_000_000) {
				l.send(wire.TypePart, 0, 1+id, make([]byte, size))
			}
			l.mu.Lock()
			cut := l.cause
			l.mu.Unlock()
			now := heap()
			t.Logf("cut: %v; %d MiB", cut, (now-before)>>20)
			if now > before+40<<20 {
				t.Errorf("a million parts of %d bytes hold %d MiB", size, (now-before)>>20)
			}
		})
	}
}

// Refused calls cost no goroutine each.
func TestRefuse(t *testing.T) {
	target, _, _ := startServer(t, &deaf{})
	key, err := local.KeyOf(&net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(target, "unix://")})
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := local.Dial(testContext(t), key, local.DialConfig{NoSHM: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // it is never started: nobody reads
	before := runtime.NumGoroutine()
	_ = conn.Write(nil, wire.Header{Type: wire.TypeGoAway}, nil, nil)
	peak := 0
	for id := range uint64(200_000) {
		_ = conn.Write(nil, wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall, Stream: 1 + id}, call(wire.Call{Method: unaryMethod}), nil)
		if id%1000 == 0 {
			peak = max(peak, runtime.NumGoroutine()-before)
		}
	}
	if peak > 2000 {
		t.Errorf("%d goroutines for refused calls", peak)
	}
}

// A reset with code 0 ends the call.
func TestResetOK(t *testing.T) {
	i := newImpostor(t, "unix", nil, func(a *answer) {
		a.send(wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: 0}))
	})
	ctx, cancel := context.WithTimeout(testContext(t), time.Second)
	defer cancel()
	if _, err := i.dial().UnaryCall(ctx, &pb.SimpleRequest{}); status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("the call hung until its deadline: %v", err)
	}
}

// A call that the client fails for its header is ended at the server.
type badHeader struct {
	echo
	ended chan struct{}
}

func (b *badHeader) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
	defer close(b.ended)
	_ = grpc.SetHeader(s.Context(), metadata.MD{"Bad Key": {"v"}})
	for {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(10_000)}); err != nil {
			return err
		}
	}
}

func TestBadHeaderEndsHandler(t *testing.T) {
	impl := &badHeader{ended: make(chan struct{})}
	target, _, _ := startServer(t, impl)
	s, err := dialTest(t, target).StreamingOutputCall(context.Background(), &pb.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	t.Log(err)
	select {
	case <-impl.ended:
	case <-time.After(3 * time.Second):
		t.Error("the handler sends for ever")
	}
}

// The window bounds what small frames pin.
func TestSmallFrames(t *testing.T) {
	target, _, _ := startServer(t, &deaf{})
	l := newLiar(t, target, "shm")
	l.open(1, wire.Call{Method: deafMethod}, 0)
	before := heap()
	for range initialWindow {
		l.send(wire.TypeStream, 0, 1, []byte{0})
	}
	l.unharmed()
	if now := heap(); now > before+16<<20 {
		t.Errorf("a window of 256 KiB pins %d MiB", (now-before)>>20)
	}
}

// A frame that is late on one connection does not reach a call on another.
func TestPooledStream(t *testing.T) {
	e := &entrance{d: &dialer{}, log: quiet(), living: map[*clientMux]struct{}{}}
	mux := func() (transport.Conn, *clientMux) {
		server, client := inproc.Pipe()
		server.Start(discard{})
		set := settings{maxStreams: math.MaxUint32, maxHeaderList: defaultHeaderList}
		return server, newClientMux(client, place{"s", &net.UnixAddr{Net: "unix", Name: "s"}}, set, e)
	}
	sa, a := mux()
	sb, b := mux()
	defer func() {
		for _, c := range []transport.Conn{sa, sb, a.conn, b.conn} {
			_ = c.Close()
		}
	}()
	s := new(clientStream)
	if err := a.open(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	a.opened()
	first := s.id
	late, _ := a.stream(first) // as a's reader does, before it is preempted
	a.forget(first)
	if err := b.open(context.Background(), s); err != nil { // s came back from the pool
		t.Fatal(err)
	}
	b.opened()
	buf := wire.GetBuf(0)
	buf.B = append(buf.B, trailer(wire.Trailer{Code: 5})...)
	if err := a.handleStream(late, wire.Header{Type: wire.TypeStream, Flags: wire.FlagTrailer, Stream: first}, buf, false); err != nil {
		t.Fatal(err)
	}
	if tr := s.in.status(); tr != nil {
		t.Errorf("the call on connection b ended with what a's server said: %v", tr)
	}
	b.forget(s.id)
}

// A server applies its header list limit, and the rules for names and values.
type mdSpy struct {
	echo
	seen chan metadata.MD
}

func (m *mdSpy) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	m.seen <- md
	return &pb.SimpleResponse{}, nil
}

func TestIncomingMetadata(t *testing.T) {
	impl := &mdSpy{seen: make(chan metadata.MD, 10)}
	target, _, _ := startServer(t, impl, grpc.MaxHeaderListSize(1000))
	big := wire.MD{}
	for i := range 60 {
		big["k"+strconv.Itoa(i)] = []string{"v"}
	}
	for name, md := range map[string]wire.MD{
		"name": {"Authorization": {"x"}}, "empty name": {"": {"v"}},
		"value": {"k": {"a\r\nb: c"}}, "list over the limit": big,
	} {
		l := newLiar(t, target, "unix")
		l.open(1, wire.Call{Method: unaryMethod, MD: md}, wire.FlagHalfClose, framed(0, nil))
		l.until("end", func() bool { _, ok := l.ends[1]; return ok || l.cause != nil })
		select {
		case got := <-impl.seen:
			t.Errorf("%s: the handler saw %d keys: %.80q", name, len(got), got)
		default:
		}
	}
}

// A section of 16 MiB takes much more.
func TestMetadataMemory(t *testing.T) {
	target, _, _ := startServer(t, &deaf{})
	sec := []byte{byte(len(deafMethod))}
	sec = append(sec, deafMethod...)
	sec = append(sec, 0, 0, 0, 0, 0, 0)
	const n = 5 << 20
	sec = append(sec, 0x80|(n&0x7f), 0x80|(n>>7&0x7f), 0x80|(n>>14&0x7f), n>>21)
	for i := range n {
		sec = append(sec, 4, byte(i), byte(i>>8), byte(i>>16), 'k', 0)
	}
	sec = section(sec)
	before := heap()
	l := newLiar(t, target, "shm")
	for len(sec) > wire.MaxPayload {
		l.send(wire.TypePart, 0, 1, sec[:wire.MaxPayload])
		sec = sec[wire.MaxPayload:]
	}
	l.send(wire.TypeStream, wire.FlagCall, 1, sec)
	l.open(2, wire.Call{Method: unaryMethod}, wire.FlagHalfClose, framed(0, nil))
	l.until("end", func() bool { _, ok := l.ends[2]; return ok || l.cause != nil })
	if now := heap(); now > before+160<<20 {
		t.Errorf("one call of %d MiB holds %d MiB", 30, (now-before)>>20)
	}
}

// A few bytes reserve 4 MiB.
func TestEager(t *testing.T) {
	target, _, _ := startServer(t, &deaf{})
	before := heap()
	l := newLiar(t, target, "shm")
	for id := range uint64(200) {
		l.open(1+id, wire.Call{Method: unaryMethod}, 0, prefix(0, 4<<20), []byte{0})
	}
	time.Sleep(200 * time.Millisecond)
	if now := heap(); now > before+200*initialWindow {
		t.Errorf("200 calls that sent 6 bytes hold %d MiB", (now-before)>>20)
	}
}

// Settings that allow no call do not hang calls after the connection is gone.
func TestNoStreams(t *testing.T) {
	server, client := inproc.Pipe()
	server.Start(discard{})
	e := &entrance{d: &dialer{}, log: quiet(), living: map[*clientMux]struct{}{}}
	s, err := parseSettings(settings{maxStreams: 0, maxHeaderList: 1000}.encode())
	if err != nil {
		t.Log(err)
		_ = server.Close()
		_ = client.Close()
		return
	}
	m := newClientMux(client, place{"s", &net.UnixAddr{Net: "unix", Name: "s"}}, s, e)
	errs := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		errs <- e.invoke(ctx, m, clientRecord{}, unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil)
	}()
	time.Sleep(50 * time.Millisecond)
	_ = server.Close()
	_ = client.Close()
	select {
	case <-errs:
	case <-time.After(time.Second):
		t.Error("the call waits for a slot of a connection that is gone")
		cancel()
		<-errs
	}
}

var _ = io.EOF

// crowded counts the handlers that run at once, each until free is closed.
type crowded struct {
	echo
	running, most atomic.Int32
	free          chan struct{}
}

func (c *crowded) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	n := c.running.Add(1)
	defer c.running.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	<-c.free
	return &pb.Empty{}, nil
}

// Resetting calls does not get more handlers to run than the server allows; those
// that wait for one begin when another has returned, or never if they are reset.
func TestResetsStartNoHandlers(t *testing.T) {
	const limit = 10
	svc := &crowded{free: make(chan struct{})}
	target, s, _ := startServer(t, svc, grpc.MaxConcurrentStreams(limit))
	c := dialTest(t, target)
	for range 300 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
		_, _ = c.EmptyCall(ctx, &pb.Empty{})
		cancel()
	}
	if most := svc.most.Load(); most > limit {
		t.Errorf("%d handlers ran at once, %d are allowed", most, limit)
	}
	// Calls that wait for a handler.
	results := make(chan error, limit)
	for range limit {
		go func() {
			_, err := c.EmptyCall(testContext(t), &pb.Empty{})
			results <- err
		}()
	}
	conn := s.opened().connections()[0]
	waiting := func() int {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		return len(conn.waiting)
	}
	for deadline := time.Now().Add(10 * time.Second); waiting() < limit; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d calls wait, want %d", waiting(), limit)
		}
	}
	close(svc.free)
	for range limit {
		if err := <-results; err != nil {
			t.Errorf("a call that waited: %v", err)
		}
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if len(conn.waiting) != 0 {
		t.Errorf("%d calls still wait", len(conn.waiting))
	}
}

// A connection that ends takes the calls along that wait for a handler.
func TestWaitingCallsEnd(t *testing.T) {
	svc := &crowded{free: make(chan struct{})}
	target, s, _ := startServer(t, svc, grpc.MaxConcurrentStreams(1))
	cc, err := NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := pb.NewTestServiceClient(cc)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for svc.most.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, _ = c.EmptyCall(ctx, &pb.Empty{}) // its handler stays
	done := make(chan error, 1)
	go func() {
		_, err := c.EmptyCall(context.Background(), &pb.Empty{})
		done <- err
	}()
	conn := s.opened().connections()[0]
	for waiting := 0; waiting == 0; time.Sleep(time.Millisecond) {
		conn.mu.Lock()
		waiting = len(conn.waiting)
		conn.mu.Unlock()
	}
	_ = cc.Close()
	if err := <-done; err == nil {
		t.Error("a call whose connection was closed ended well")
	}
	close(svc.free)
	s.opened().handlers.Wait()
	if n := svc.most.Load(); n != 1 {
		t.Errorf("%d handlers ran", n)
	}
}

// A client's next call does not come to the server before it knows that the place is
// free.
func TestPlaceAfterReset(t *testing.T) {
	target, _, _ := startServer(t, &echo{}, grpc.MaxConcurrentStreams(1))
	c := dialTest(t, target)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				s, err := c.FullDuplexCall(ctx)
				if err == nil {
					_ = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)})
					_, err = s.Recv()
				}
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

// Several calls may send long metadata in pieces at once.
func TestPiecesOfManyCalls(t *testing.T) {
	target, _, _ := startServer(t, &echo{}, grpc.MaxHeaderListSize(130<<10))
	l := newLiar(t, target, "shm")
	sec := call(wire.Call{Method: unaryMethod, MD: wire.MD{"big": {strings.Repeat("x", 120<<10)}}})
	for id := uint64(1); id <= 5; id++ {
		l.send(wire.TypePart, 0, id, sec[:wire.MaxPayload])
	}
	for id := uint64(1); id <= 5; id++ {
		l.send(wire.TypeStream, wire.FlagCall|wire.FlagHalfClose, id, sec[wire.MaxPayload:], framed(0, nil))
	}
	for id := uint64(1); id <= 5; id++ {
		l.ended(id, codes.OK)
	}
}

// earlyHeader sends its header beside the handler's return.
type earlyHeader struct {
	echo
	sending sync.WaitGroup
	sent    atomic.Int32
}

func (e *earlyHeader) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	begun := make(chan struct{})
	e.sending.Go(func() {
		close(begun)
		if grpc.SendHeader(ctx, metadata.Pairs("a", "b")) == nil {
			e.sent.Add(1)
		}
	})
	<-begun
	return &pb.SimpleResponse{}, nil
}

// A header that was sent comes before the status.
func TestHeaderBesideReturn(t *testing.T) {
	svc := &earlyHeader{}
	target, s, _ := startServer(t, svc)
	c := dialTest(t, target)
	var got int32
	for range 5000 {
		var md metadata.MD
		if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Header(&md)); err != nil {
			t.Fatal(err)
		}
		if len(md["content-type"]) == 0 {
			t.Fatal("a response without a header")
		}
		if len(md["a"]) > 0 {
			got++
		}
	}
	s.Stop()
	svc.sending.Wait()
	if sent := svc.sent.Load(); got != sent {
		t.Errorf("%d headers were sent, %d came", sent, got)
	}
}
