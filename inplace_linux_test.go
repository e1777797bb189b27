package stile

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/transport"
)

// twoViews maps one memory twice, as two processes do.
func twoViews(t *testing.T, size int) (a, b []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("views", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		t.Fatal(err)
	}
	views := make([][]byte, 2)
	for i := range views {
		if views[i], err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(views[i]) })
	}
	return views[0], views[1]
}

// A message that is read where the peer wrote it may change under the decoder:
// whatever that makes of it, it returns.
func TestUnmarshalWhileChanged(t *testing.T) {
	var parts []*pb.ResponseParameters
	for i := range 2000 {
		parts = append(parts, &pb.ResponseParameters{Size: int32(i), IntervalUs: int32(i)})
	}
	data, err := proto.Marshal(&pb.StreamingOutputCallRequest{ResponseParameters: parts, Payload: payload(20_000)})
	if err != nil {
		t.Fatal(err)
	}
	mine, peers := twoViews(t, len(data))
	copy(mine, data)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			peers[rand.IntN(len(data))] = byte(rand.Uint32())
			if at := rand.IntN(len(data)); rand.IntN(100) == 0 {
				copy(peers[at:], data[at:])
			} else {
				peers[at] = data[at]
			}
		}
	})
	read := 0
	for range 3000 {
		copy(peers, data)
		var m pb.StreamingOutputCallRequest
		if unmarshal(mine, &m, true) == nil {
			read++
		}
	}
	stop.Store(true)
	wg.Wait()
	copy(peers, data)
	var m pb.StreamingOutputCallRequest
	if err := unmarshal(mine, &m, true); err != nil || len(m.GetResponseParameters()) != len(parts) {
		t.Errorf("left alone, the message is not read: %v", err)
	}
	t.Logf("%d of 3000 were read without an error", read)
}

// A panic inside the decoder is an error of the call.
func TestUnmarshalPanics(t *testing.T) {
	if err := unmarshal([]byte{1}, panicking{}, true); err == nil {
		t.Error("no error")
	}
}

type panicking struct{ proto.Message }

// large answers with messages that lie in lent memory.
type large struct{ echo }

func (*large) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
	for range 1000 {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: payload(12 << 10)}); err != nil {
			return err
		}
	}
	return nil
}

// lendable counts the slots that a server's connections have free.
func lendable(s *Server) int {
	n := 0
	for _, c := range s.opened().connections() {
		var loans []transport.Loan
		for l, ok := c.lend.Lend(12 << 10); ok; l, ok = c.lend.Lend(12 << 10) {
			loans = append(loans, l)
		}
		for _, l := range loans {
			c.lend.Return(l)
		}
		n += len(loans)
	}
	return n
}

// A call that ends while messages wait that nobody will read gives their memory back:
// to the server, and in the end to the system.
func TestUnreadMessagesLendNothing(t *testing.T) {
	for name, start := range map[string]func() (context.Context, context.CancelFunc){
		"canceled": func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 30*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, mappings := holdings(t)
			target, s, _ := startServer(t, &large{})
			cc, err := NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			c := pb.NewTestServiceClient(cc)
			if _, err := c.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
				t.Fatal(err)
			}
			free := lendable(s)
			for range 20 {
				ctx, cancel := start()
				stream, err := c.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
				if err == nil {
					_, err = stream.Recv()
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond) // messages gather
				if name == "canceled" {
					cancel()
				}
				<-ctx.Done()
				cancel()
			}
			for deadline := time.Now().Add(10 * time.Second); lendable(s) < free; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d slots are free, were %d", lendable(s), free)
				}
			}
			_ = cc.Close()
			s.Stop()
			checkHoldings(t, math.MaxInt, mappings)
		})
	}
}
