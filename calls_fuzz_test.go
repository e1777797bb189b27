package stile

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/wire"
)

// A fuzz input is a sequence of frames. Each begins with five bytes: its type,
// its flags, its call, and two for the length of its payload. A type over
// TypeGoAway stands for a frame that is in order, from the end's table.
const (
	frameHead = 5
	maxFrames = 300
)

// orderly is a frame in order; its call is the input's choice.
type orderly struct {
	typ     wire.Type
	flags   wire.Flags
	payload []byte
}

// feed writes the frames of a fuzz input until the connection ends.
func feed(conn transport.Conn, input []byte, table []orderly) {
	for range maxFrames {
		if len(input) < frameHead {
			return
		}
		f := orderly{wire.Type(input[0]), wire.Flags(input[1]), nil}
		id, n := uint64(input[2]), int(binary.LittleEndian.Uint16(input[3:]))
		input = input[frameHead:]
		if f.typ > wire.TypeGoAway {
			f = table[int(f.typ)%len(table)]
		} else {
			n = min(n, len(input), wire.MaxPayload)
			f.payload, input = input[:n], input[n:]
		}
		h := wire.Header{Type: f.typ, Flags: f.flags, Stream: id}
		if conn.Write(nil, h, f.payload, nil) != nil && !refused(h) {
			return
		}
	}
}

// refused tells frames that no transport carries.
func refused(h wire.Header) bool {
	b := make([]byte, wire.HeaderSize)
	wire.PutHeader(b, h)
	_, err := wire.ParseHeader(b)
	return err != nil
}

// soon fails the test, with all stacks, when f does not return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		b := make([]byte, 1<<20)
		t.Fatalf("%s does not end\n%s", what, b[:runtime.Stack(b, true)])
	}
}

// encodeFrame is the inverse of what feed reads.
func encodeFrame(typ wire.Type, flags wire.Flags, id byte, payload ...byte) []byte {
	b := []byte{byte(typ), byte(flags), id, byte(len(payload)), byte(len(payload) >> 8)}
	return append(b, payload...)
}

// ordered is the input for the frame at i of a table.
func ordered(i int, id byte, table []orderly) []byte {
	n := int(wire.TypeGoAway) + 1
	for n%len(table) != i {
		n++
	}
	return encodeFrame(wire.Type(n), 0, id)
}

func clientFrames() []orderly {
	st, fc, fh := wire.TypeStream, wire.FlagCall, wire.FlagHalfClose
	unary := call(wire.Call{Method: unaryMethod})
	bidi := call(wire.Call{Method: bidiMethod, Timeout: time.Minute, MD: wire.MD{"k": {"v"}}})
	msg := framed(0, []byte{0x12, 3, 0x12, 1, 'x'})
	return []orderly{
		{st, fc | fh, append(unary, msg...)},
		{st, fc, unary},
		{st, fc, bidi},
		{st, fc, call(wire.Call{Method: deafMethod})},
		{st, fc | fh, call(wire.Call{Method: "/no/such"})},
		{st, 0, msg},
		{st, 0, make([]byte, wire.MaxPayload)},
		{st, fh, nil},
		{wire.TypePart, 0, bidi[:7]},
		{st, fc, bidi[7:]},
		{wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: 1})},
		{wire.TypeWindow, 0, wire.AppendWindow(nil, 1000)},
		{wire.TypeGoAway, 0, nil},
	}
}

// FuzzServerFrames sends any frames to a server: it must survive them, and let go
// of everything when the connection ends.
func FuzzServerFrames(f *testing.F) {
	table := clientFrames()
	for i := range table { // each frame, after a call that is open
		f.Add(append(ordered(2, 1, table), ordered(i, 1, table)...))
	}
	f.Add(append(ordered(12, 0, table), ordered(0, 1, table)...))
	f.Add(encodeFrame(wire.TypeStream, wire.FlagCall, 1, 255, 255, 255, 255, 0))
	f.Add(encodeFrame(wire.TypeWindow, 0, 1, 1, 2, 3))
	s := NewServer(MaxConcurrentStreams(8), Logger(quiet()))
	pb.RegisterTestServiceServer(s, &deaf{})
	d := s.opened()
	f.Cleanup(s.Stop)
	f.Fuzz(func(t *testing.T, input []byte) {
		client, server := inproc.Pipe()
		c := newServerConn(d, server, &net.UnixAddr{Net: "unix", Name: "s"})
		c.start()
		client.Start(discard{})
		soon(t, "feeding", func() { feed(client, input, table) })
		soon(t, "the connection", func() {
			_ = client.Close()
			<-c.ctx.Done()
			_ = server.Close()
		})
		soon(t, "a handler", d.handlers.Wait)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.streams.size != 0 || c.active != 0 || c.parts.size != 0 || len(c.parts.parts) != 0 {
			t.Fatalf("%d calls, %d active and %d bytes of parts are left", c.streams.size, c.active, c.parts.size)
		}
	})
}

func serverFrames() []orderly {
	st, wh, wt := wire.TypeStream, wire.FlagHeader, wire.FlagTrailer
	head, end := header(wire.Head{MD: wire.MD{"k": {"v"}}}), trailer(wire.Trailer{})
	msg := framed(0, []byte{0x0a, 3, 0x12, 1, 'x'})
	return []orderly{
		{st, okFlags, okReply()},
		{st, wh, head},
		{st, wh, append(head, msg...)},
		{st, 0, msg},
		{st, 0, make([]byte, wire.MaxPayload)},
		{st, wt, end},
		{st, wt, trailer(wire.Trailer{Code: 1 << 31})},
		{wire.TypePart, 0, head[:5]},
		{st, wh, head[5:]},
		{wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: 7, Message: "m"})},
		{wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: wire.ResetRefused})},
		{wire.TypeWindow, 0, wire.AppendWindow(nil, 1000)},
		{wire.TypeGoAway, 0, nil},
	}
}

// callSink is a server that counts the calls it sees.
type callSink struct{ calls chan struct{} }

func (s *callSink) HandleFrame(h wire.Header, b *wire.Buf) {
	b.Release()
	if h.Flags&wire.FlagCall != 0 {
		s.calls <- struct{}{}
	}
}

func (*callSink) HandleClose(error) {}

// FuzzClientFrames sends any frames to a client with three calls under way: all
// must end at the latest when the connection does.
func FuzzClientFrames(f *testing.F) {
	table := serverFrames()
	for i := range table {
		f.Add(ordered(i, 1, table))
		f.Add(append(ordered(1, 3, table), ordered(i, 3, table)...))
	}
	f.Add(encodeFrame(wire.TypeStream, wire.FlagTrailer, 2, 255, 255, 255, 255, 0))
	f.Add(encodeFrame(wire.TypeReset, 0, 2, 0, 0))
	f.Fuzz(func(t *testing.T, input []byte) {
		server, client := inproc.Pipe()
		e := &entrance{d: &dialer{}, log: quiet(), living: map[*clientMux]struct{}{}}
		set := settings{maxStreams: 8, maxHeaderList: defaultHeaderList}
		m := newClientMux(client, place{"s", &net.UnixAddr{Net: "unix", Name: "s"}}, set, e)
		sink := &callSink{make(chan struct{}, 3)}
		server.Start(sink)
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				_ = e.invoke(context.Background(), m, clientRecord{}, unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil)
			})
		}
		calls.Go(func() { streamToEnd(e, m) })
		soon(t, "feeding", func() {
			for range 3 {
				<-sink.calls
			}
			feed(server, input, table)
		})
		soon(t, "the connection", func() {
			_ = server.Close()
			_ = client.Close()
		})
		soon(t, "a call", calls.Wait)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.streams.size != 0 || len(m.slots) != 0 {
			t.Fatalf("%d calls and %d slots are left", m.streams.size, len(m.slots))
		}
	})
}

func streamToEnd(e *entrance, m *clientMux) {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := e.newStream(context.Background(), m, clientRecord{}, desc, bidiMethod, nil)
	for err == nil {
		err = s.RecvMsg(&pb.StreamingOutputCallResponse{})
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
