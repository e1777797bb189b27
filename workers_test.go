package stile

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// meeting is a service whose calls return when as many run at once as the meeting
// has places; a call for none returns at once.
type meeting struct {
	pb.UnimplementedTestServiceServer

	mu     sync.Mutex
	places int
	came   int
	full   chan struct{}
}

func (m *meeting) call(places int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places, m.came, m.full = places, 0, make(chan struct{})
}

func (m *meeting) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if r.GetResponseSize() == 0 {
		return &pb.SimpleResponse{}, nil
	}
	m.mu.Lock()
	if m.came++; m.came == m.places {
		close(m.full)
	}
	full := m.full
	m.mu.Unlock()
	select {
	case <-full:
		return &pb.SimpleResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestWorkersMeet has handlers that all wait for each other: however calls come in, one
// that blocks must leave a worker for those behind it. Short calls go on beside them.
func TestWorkersMeet(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	m := &meeting{}
	_, addr, stop := runServer(t, "unix", filepath.Join(t.TempDir(), "s"), m)
	defer stop((*Server).Stop)
	clients := []pb.TestServiceClient{dialTest(t, "unix://"+addr), dialTest(t, "unix://"+addr)}
	for _, places := range []int{1, 2, 3, 8, 64, 500} {
		for range 20 {
			m.call(places)
			var wg sync.WaitGroup
			ask := func(i int, size int32) {
				wg.Go(func() {
					if _, err := clients[i%2].UnaryCall(testContext(t), &pb.SimpleRequest{ResponseSize: size}); err != nil {
						t.Errorf("%d places: %v", places, err)
					}
				})
			}
			for i := range places {
				ask(i, 1)
				ask(i, 0)
			}
			wg.Wait()
		}
	}
}
