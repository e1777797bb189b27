package rpc

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestParseFault(t *testing.T) {
	for text, want := range map[string]fault{
		"":                          {},
		" \n":                       {},
		"delay=200ms":               {delay: 200 * time.Millisecond},
		"fail=0.3\n":                {fail: 0.3},
		"delay=1s fail=1":           {time.Second, 1},
		"fail=0.5 delay=3ms fail=0": {delay: 3 * time.Millisecond},
	} {
		if got, err := parseFault(text); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"delay", "delay=", "delay=3", "delay=-1s", "fail=x", "fail=-0.1", "fail=1.1", "fail=NaN", "slow=3s", "fail=0.1 ="} {
		if got, err := parseFault(text); err == nil || got != (fault{}) {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// call has f serve a call of method, and returns its code and how long it took.
func call(ctx context.Context, f *faults, method string) (codes.Code, time.Duration) {
	start := time.Now()
	_, err := f.inject(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
	return status.Code(err), time.Since(start)
}

func TestFaults(t *testing.T) {
	const own, health = "/shop.pricing.v1.PricingService/GetPrice", "/grpc.health.v1.Health/Check"
	path := filepath.Join(t.TempDir(), "pricing")
	synctest.Test(t, func(t *testing.T) {
		f := newFaults(path)
		check := func(text, method string, code codes.Code, took time.Duration) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(faultsAge)
			if gotCode, gotTook := call(t.Context(), f, method); gotCode != code || gotTook != took {
				t.Errorf("%q: %v after %v, want %v after %v", text, gotCode, gotTook, code, took)
			}
		}
		if code, took := call(t.Context(), f, own); code != codes.OK || took != 0 {
			t.Errorf("without a file: %v after %v", code, took)
		}
		check("delay=200ms", own, codes.OK, 200*time.Millisecond)
		check("delay=200ms fail=1", health, codes.OK, 0)
		check("fail=1", own, codes.Unavailable, 0)
		check("fail=nonsense", own, codes.Unavailable, 0)
		check("", own, codes.OK, 0)

		check("delay=1h", health, codes.OK, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if code, took := call(ctx, f, own); code != codes.DeadlineExceeded || took != time.Second {
			t.Errorf("a caller that gives up: %v after %v", code, took)
		}
	})
	if code, _ := call(t.Context(), newFaults(""), own); code != codes.OK {
		t.Errorf("without a control file: %v", code)
	}
}
