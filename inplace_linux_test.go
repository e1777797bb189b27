package stile

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
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
