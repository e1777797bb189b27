package stile

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// waiting is a job that ends when its channel closes.
type waiting chan struct{}

func (j waiting) run(*worker) job {
	<-j
	return nil
}

// TestWorkersShrink: after a burst the workers that nobody needs end, the others stay,
// and the last look stops the timer.
func TestWorkersShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		defer w.close()
		idle := func() int {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.idle)
		}
		burst := func(n int) {
			j := make(waiting)
			for range n {
				w.run(j)
			}
			synctest.Wait() // each has a worker
			close(j)
		}
		burst(100)
		if n := idle(); n < 90 || n > 101 { // the last searcher may find nothing
			t.Fatalf("%d idle after 100 jobs at once", n)
		}
		// 40 are needed every second: these stay.
		for range 30 {
			time.Sleep(time.Second)
			burst(40)
		}
		if n := idle(); n < 40 || n > 60 {
			t.Errorf("%d idle while 40 are needed", n)
		}
		time.Sleep(3 * shrinkAfter)
		if n := idle(); n != keepIdleWorkers {
			t.Errorf("%d idle after a quiet time, want %d", n, keepIdleWorkers)
		}
		w.mu.Lock()
		if w.timer != nil {
			t.Error("the timer goes on")
		}
		w.mu.Unlock()
		burst(3)
		if n := idle(); n != keepIdleWorkers {
			t.Errorf("%d idle after 3 jobs more", n)
		}

	})
}
