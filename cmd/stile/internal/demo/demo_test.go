package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
)

// fakeDemo is a short run of the fake shop. The temporary folder is the test's,
// and must be empty when the test ends.
func fakeDemo(t *testing.T) (Config, *bytes.Buffer) {
	t.Helper()
	bin := t.TempDir()
	if err := fakeshop.Install(bin); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp("", "d") // short, for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	t.Cleanup(func() {
		if err := os.Remove(temp); err != nil {
			t.Errorf("something is left: %v", err)
			_ = os.RemoveAll(temp)
		}
	})
	var out bytes.Buffer
	return Config{
		Shop: bin, Duration: 2 * time.Second, Rate: 200, Network: "unix", Progress: &out,
		Way: func(_ context.Context, target, dir string) (string, string, error) {
			if !strings.HasPrefix(target, "unix:///") || !strings.HasPrefix(dir, temp) {
				t.Errorf("asked the way to %s in %s", target, dir)
			}
			return "shm", "", nil
		},
		Queue: func(_ context.Context, dir string) (Depth, error) {
			if dir != filepath.Join(temp, filepath.Base(filepath.Dir(filepath.Dir(dir))), "q", "queue") {
				t.Errorf("asked for the queue in %s", dir)
			}
			return Depth{Dead: 1}, nil
		},
	}, &out
}

func TestRun(t *testing.T) {
	for _, live := range []bool{false, true} {
		cfg, out := fakeDemo(t)
		cfg.Live = live
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if r.Failed != 0 || r.Failure != "" || r.Rate != 200 || r.Windows != 1 || r.Requests < 200 {
			t.Errorf("%+v", r)
		}
		for _, s := range []Side{r.Plain, r.Stile} {
			if s.Requests < 50 || s.PerSecond < 100 || s.P50 <= 0 || s.P99 < s.P50 || s.Most <= 0 || s.Failed != 0 {
				t.Errorf("%+v", s)
			}
		}
		if m := r.Mail; m == nil || m.Called.Failed+m.Queued.Failed > 0 || m.Called.Orders == 0 || m.Queued.Orders == 0 || m.Queued.P99 < m.Queued.P50 || m.Sent == nil || m.Dead != 1 {
			t.Errorf("%+v", r.Mail)
		}
		if r.Way.Services["catalog"] != "shm" || len(r.Way.Services) != 5 {
			t.Errorf("%+v", r.Way)
		}
		for _, want := range []string{"starting six services over grpc-go …", "starting six services over Stile …", "window 2 of 2", "shared memory"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the progress does not say %q:\n%s", want, out)
			}
		}
		if strings.Contains(out.String(), "\x1b") != live {
			t.Errorf("live is %v, and the progress is\n%q", live, out)
		}
	}
}

func TestRunChoosesRate(t *testing.T) {
	cfg, out := fakeDemo(t)
	cfg.Rate, cfg.Duration, cfg.Network, cfg.Way = 0, time.Second, "tcp", nil
	r, err := Run(t.Context(), cfg)
	if err != nil || r.Rate < 1 || r.Requests == 0 || !strings.Contains(out.String(), "the load: ") {
		t.Errorf("%v %+v\n%s", err, r, out)
	}
}

// TestRunRefused has the programs over Stile refuse orders from the start.
func TestRunRefused(t *testing.T) {
	t.Setenv(fakeshop.Refuse, "on")
	cfg, out := fakeDemo(t)
	_, err := Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "fake refusal") {
		t.Errorf("the first requests of the second set failed, and the run ended with %v\n%s", err, out)
	}
}

func TestRunNoticesDeath(t *testing.T) {
	t.Setenv(fakeshop.Dying, "mailer")
	cfg, out := fakeDemo(t)
	cfg.Duration = time.Minute
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "mailer ended in the middle") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRunInterrupted interrupts at each line of the progress.
func TestRunInterrupted(t *testing.T) {
	for _, at := range []string{"over grpc-go", "over Stile", "window 1", "over both", "for good", "is called", "by a queue"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := errors.New("stop")
			cfg, _ := fakeDemo(t)
			cfg.Duration = time.Second
			progress := &trigger{on: at, do: func() { cancel(stop) }}
			cfg.Progress = progress
			if _, err := Run(ctx, cfg); progress.do == nil && !errors.Is(err, stop) {
				t.Errorf("%v, want %v", err, stop)
			}
		})
	}
}

// trigger calls do once, when it sees the text on.
type trigger struct {
	on string
	do func()
}

func (w *trigger) Write(text []byte) (int, error) {
	if w.do != nil && strings.Contains(string(text), w.on) {
		w.do()
		w.do = nil
	}
	return len(text), nil
}

func TestRunRefusesLongPaths(t *testing.T) {
	cfg, _ := fakeDemo(t)
	long := os.Getenv("TMPDIR") + "/" + strings.Repeat("x", 90)
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(long) })
	t.Setenv("TMPDIR", long)
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--network tcp") {
		t.Errorf("%v does not say what to do", err)
	}
	cfg.Shop = long
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrNoShop) {
		t.Errorf("%v, want %v", err, ErrNoShop)
	}
}

func TestPlan(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 20 * time.Second, 40 * time.Second, time.Hour} {
		p := planFor(d)
		sum := p.lead + time.Duration(2*p.pairs)*(p.warm+p.main) + 5*p.burst + 2*p.tail
		if sum < d*9/10 || sum > d*11/10 || p.pairs < 1 {
			t.Errorf("%v: %+v takes %v", d, p, sum)
		}
	}
}
