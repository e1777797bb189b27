package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faultsAge is how old what is known of a control file may be.
const faultsAge = 50 * time.Millisecond

// fault is what happens to calls before they are served.
type fault struct {
	delay time.Duration
	fail  float64 // part of the calls, from 0 to 1
}

// faults makes calls to the shop's own services slow or has them fail, as a control file
// says: words such as delay=200ms and fail=0.3. It is there to show what callers do then.
// An empty file, or none, is no fault. It is safe for concurrent use.
type faults struct {
	path string // empty: nothing ever happens

	mu   sync.Mutex
	now  fault
	read time.Time // when now was read
}

func newFaults(path string) *faults { return &faults{path: path} }

// inject is a [grpc.UnaryServerInterceptor].
func (f *faults) inject(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if f.path == "" || !strings.HasPrefix(info.FullMethod, "/shop.") {
		return handler(ctx, req)
	}
	now := f.current()
	if now.delay > 0 {
		begin := time.Now()
		wait := time.NewTimer(now.delay)
		defer wait.Stop()
		select {
		case <-wait.C:
			slog.Debug("call delayed", "method", info.FullMethod, "took", time.Since(begin))
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if now.fail > 0 && rand.Float64() < now.fail {
		return nil, status.Error(codes.Unavailable, "a fault was injected")
	}
	return handler(ctx, req)
}

// current returns what the control file says, or said at most faultsAge ago. A file that
// cannot be read or understood changes nothing.
func (f *faults) current() fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.read) < faultsAge {
		return f.now
	}
	f.read = time.Now()
	text, err := os.ReadFile(f.path)
	if os.IsNotExist(err) {
		text, err = nil, nil
	}
	if err == nil {
		var next fault
		if next, err = parseFault(string(text)); err == nil {
			f.now = next
		}
	}
	if err != nil {
		slog.Warn("faults unknown", "error", err)
	}
	return f.now
}

// parseFault reads words such as delay=200ms and fail=0.3.
func parseFault(text string) (f fault, err error) {
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "delay":
			f.delay, err = time.ParseDuration(value)
		case "fail":
			f.fail, err = strconv.ParseFloat(value, 64)
		default:
			err = fmt.Errorf("%q is not a fault: want delay=DURATION or fail=PART", word)
		}
		if err != nil {
			return fault{}, err
		}
		if f.delay < 0 || !(f.fail >= 0 && f.fail <= 1) {
			return fault{}, fmt.Errorf("%q is out of range", word)
		}
	}
	return f, nil
}
