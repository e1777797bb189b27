package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// The world of TestLoadMetastable: a front with a cache before a backend that can bear a third of the
// calls. For ten seconds the backend is five times slower, and at their begin the cache is lost.
const (
	metaRate    = 100.0 // calls/s
	metaKeys    = 200
	metaTTL     = 20 * time.Second
	metaTimeout = time.Second
	metaWarm    = 25 * time.Second // before second 0 of the plot
	metaTrigger = 10               // second at which it begins
	metaEnd     = 20
	metaLast    = 90
)

// front answers from its cache, or asks the backend.
type front struct {
	pb.UnimplementedTestServiceServer
	backend pb.TestServiceClient
	mu      sync.Mutex
	until   map[int32]time.Time // when a key's answer is too old
}

func (f *front) UnaryCall(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	key := req.GetResponseSize()
	f.mu.Lock()
	fresh := time.Now().Before(f.until[key])
	f.mu.Unlock()
	if fresh {
		time.Sleep(time.Millisecond)
		return &pb.SimpleResponse{}, nil
	}
	got, err := f.backend.UnaryCall(ctx, req)
	if err == nil {
		f.mu.Lock()
		f.until[key] = time.Now().Add(metaTTL)
		f.mu.Unlock()
	}
	return got, err
}

func (f *front) lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.until)
}

// naive tries a call three times at once, each time for a second: what is written in a hurry.
func naive(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var err error
	for range 3 {
		try, cancel := context.WithTimeout(ctx, metaTimeout)
		err = invoker(try, method, req, reply, cc, opts...)
		cancel()
		if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Unavailable {
			break
		}
	}
	return err
}

// metastable runs the world and returns the good answers of each second.
func metastable(t *testing.T, controls bool) (good [metaLast]float64) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		took := 100 * time.Millisecond
		backend := newWorkers(3, func() time.Duration { mu.Lock(); defer mu.Unlock(); return took })
		backend.most = 500
		opts := []grpc.DialOption{grpc.WithDisableRetry(), grpc.WithChainUnaryInterceptor(naive)}
		var server []grpc.ServerOption
		if controls {
			p := file(t, `
x-stile: {admission: {maxRequests: 3, maxPendingRequests: 20, maxQueueDelay: 0.3s}}
methodConfig:
- name: [{}]
  timeout: 1s
  retryPolicy: {maxAttempts: 3, initialBackoff: 0.05s, maxBackoff: 0.5s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}
  x-stile: {idempotency: NO_SIDE_EFFECTS, coalesce: true}
`, nil)
			opts, server = obeying(p), serving(p)
		}
		f := &front{backend: dial(t, serve(t, backend, server...), opts...), until: map[int32]time.Time{}}
		client := dial(t, serve(t, f), opts...)
		for key := range int32(metaKeys) { // the cache is warm, and its entries of all ages
			f.until[key] = time.Now().Add(metaTTL * time.Duration(key) / metaKeys)
		}
		r := rand.New(rand.NewPCG(3, 3))
		begin := time.Now().Add(metaWarm)
		at := func(second int, do func()) {
			time.AfterFunc(time.Until(begin.Add(time.Duration(second)*time.Second)), do)
		}
		at(metaTrigger, func() { f.lose(); mu.Lock(); took *= 5; mu.Unlock() })
		at(metaEnd, func() { mu.Lock(); took /= 5; mu.Unlock() })
		var wg sync.WaitGroup
		for time.Since(begin) < metaLast*time.Second {
			time.Sleep(time.Duration(r.ExpFloat64() / metaRate * float64(time.Second)))
			key, due := r.Int32N(metaKeys), time.Since(begin)
			wg.Go(func() {
				start := time.Now()
				_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{ResponseSize: key})
				if second := int(due / time.Second); err == nil && time.Since(start) <= metaTimeout && due >= 0 && second < metaLast {
					mu.Lock()
					good[second]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		backend.drain()
	})
	return good
}

// TestLoadMetastable: a trigger that is over must not keep a system down. Without controls it does: the
// backend works on what nobody waits for any more, and what it does in vain keeps the cache cold.
func TestLoadMetastable(t *testing.T) {
	with := metastable(t, true)
	without := [metaLast]float64{}
	if !raceDetector {
		without = metastable(t, false)
	}
	mean := func(good [metaLast]float64, from, to int) float64 {
		sum := 0.0
		for _, g := range good[from:to] {
			sum += g
		}
		return sum / float64(to-from)
	}
	before := mean(with, 0, metaTrigger)
	recovered := -1
	for s := metaEnd; s+5 <= metaLast && recovered < 0; s++ {
		if with[s] >= 0.9*before && mean(with, s, s+5) >= 0.9*before {
			recovered = s - metaEnd
		}
	}
	t.Logf("goodput before %.0f/s; during the trigger %.0f/s, without controls %.0f/s; from 10 to 70 s after it %.0f/s, without %.0f/s; recovered after %d s",
		before, mean(with, metaTrigger, metaEnd), mean(without, metaTrigger, metaEnd), mean(with, metaEnd+10, metaLast), mean(without, metaEnd+10, metaLast), recovered)
	t.Logf("with    %s", sparkline(with[:], before))
	t.Logf("without %s", sparkline(without[:], before))
	if recovered < 0 || recovered > 10 {
		t.Errorf("with controls goodput is back %d s after the trigger", recovered)
	}
	if late := mean(without, metaLast-10, metaLast); late > 0.5*before {
		t.Errorf("without controls %.0f/s of %.0f/s 60 s after the trigger: the recipe is not one", late, before)
	}
	if *update {
		if err := os.WriteFile("../docs/metastable.svg", []byte(plot(with[:], without[:])), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func sparkline(values []float64, most float64) string {
	const bars = "▁▂▃▄▅▆▇█"
	var b strings.Builder
	for _, v := range values {
		b.WriteRune([]rune(bars)[min(int(v/most*7), 7)])
	}
	return b.String()
}

// plot draws goodput over time as SVG.
func plot(with, without []float64) string {
	const w, h, left, top = 640, 240, 50, 30
	most := 1.25 * metaRate
	x := func(s float64) float64 { return left + s/metaLast*w }
	y := func(v float64) float64 { return top + h - v/most*h }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", w+left+20, h+top+50)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&b, `<rect x="%.0f" y="%d" width="%.0f" height="%d" fill="#eee"/><text x="%.0f" y="%d" fill="#555">backend 5 times slower, cache lost</text>`+"\n",
		x(metaTrigger), top, x(metaEnd)-x(metaTrigger), h, x(metaTrigger)+4, top+14)
	for v := 0.0; v <= metaRate; v += 25 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, left+w, y(v), y(v), left-6, y(v)+4, v)
	}
	for s := 0.0; s <= metaLast; s += 10 {
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" text-anchor="middle">%.0f</text>`+"\n", x(s), top+h+18, s)
	}
	line := func(values []float64, colour string) {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
		for s, v := range values {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(float64(s)+0.5), y(v))
		}
		b.WriteString(`"/>` + "\n")
	}
	line(without, "#c33")
	line(with, "#27c")
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#27c">with a policy</text><text x="%d" y="%d" fill="#c33">three tries of a second each</text>`+"\n", left, top-10, left+110, top-10)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">seconds</text><text x="14" y="%d" transform="rotate(-90 14 %d)" text-anchor="middle">answers within 1 s, each second</text>`+"\n", left+w/2, top+h+38, top+h/2, top+h/2)
	b.WriteString("</svg>\n")
	return b.String()
}
