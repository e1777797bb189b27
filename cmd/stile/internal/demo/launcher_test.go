package demo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
)

func fakeSet(t *testing.T, network string) setConfig {
	t.Helper()
	folder, err := os.MkdirTemp("", "s") // short, for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	bin := t.TempDir()
	if err := fakeshop.Install(bin); err != nil {
		t.Fatal(err)
	}
	return setConfig{
		bin: bin, data: t.TempDir(), network: network, sockets: folder,
		stile: "on", dir: filepath.Join(folder, "doors"), inFlight: 10,
	}
}

// alive reports whether any process of the set still is one.
func alive(s *set) bool {
	for _, p := range s.processes {
		select {
		case <-p.done:
		default:
			return true
		}
	}
	return false
}

func mustNotFail(t *testing.T) func(error) {
	return func(err error) { t.Errorf("a program failed: %v", err) }
}

func TestSetStartsAndStops(t *testing.T) {
	t.Setenv("STILE", "off")
	t.Setenv("SHOP_LISTEN", "nonsense")
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			cfg := fakeSet(t, network)
			s, err := startSet(t.Context(), cfg, mustNotFail(t))
			if err != nil {
				t.Fatal(err)
			}
			for n := range int64(10) {
				if err := s.send(t.Context(), n); err != nil {
					t.Errorf("request %d: %v", n, err)
				}
			}
			if got, want := environment(t, s), "STILE=on STILE_DIR="+cfg.dir; got != want {
				t.Errorf("environment %q, want %q", got, want)
			}
			if err := s.stop(t.Context()); err != nil {
				t.Error(err)
			}
			if alive(s) {
				t.Error("a process is left")
			}
		})
	}
}

func environment(t *testing.T, s *set) string {
	t.Helper()
	url := "http://" + s.process("gateway").address + "/environment"
	if strings.HasPrefix(url, "http://unix") {
		url = "http://gateway/environment"
	}
	resp, err := (&http.Client{Transport: s.transport}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSetKilled(t *testing.T) {
	t.Setenv(fakeshop.Deaf, "orders,gateway")
	failed := make(chan error, 1)
	s, err := startSet(t.Context(), fakeSet(t, "unix"), func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process("orders").stop(t.Context(), 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a program that does not end when told to: %v", err)
	}
	<-failed // the set did not know that one of its programs was to end
	s.kill()
	if alive(s) {
		t.Error("a process is left")
	}
}

func TestSetThatCannotStart(t *testing.T) {
	for what, says := range map[string]string{
		fakeshop.Failing: "the shelf is empty",
		fakeshop.Mute:    `"hello"`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv(what, "orders")
			s, err := startSet(t.Context(), fakeSet(t, "unix"), mustNotFail(t))
			if err == nil {
				s.kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), "start orders") || !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say what is wrong: %q", err, says)
			}
		})
	}
}

func TestSetThatDies(t *testing.T) {
	t.Setenv(fakeshop.Dying, "pricing")
	failed := make(chan error, 1)
	s, err := startSet(t.Context(), fakeSet(t, "unix"), func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !strings.Contains(err.Error(), "pricing ended") || !strings.Contains(err.Error(), "the roof fell in") {
		t.Errorf("%q does not say what happened", err)
	}
	s.kill()
}

func TestStartInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	s, err := startSet(ctx, fakeSet(t, "unix"), mustNotFail(t))
	if err == nil {
		s.kill() // it was quicker to start than to be interrupted
	} else if !errors.Is(err, stop) {
		t.Errorf("%v, want %v", err, stop)
	}
}

func TestFindShop(t *testing.T) {
	folder := t.TempDir()
	if err := FindShop(folder); !errors.Is(err, ErrNoShop) || !strings.Contains(err.Error(), "catalog") {
		t.Errorf("empty folder: %v", err)
	}
	if err := fakeshop.Install(folder); err != nil {
		t.Fatal(err)
	}
	if err := FindShop(folder); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(folder, "orders")), os.Mkdir(filepath.Join(folder, "orders"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := FindShop(folder); !errors.Is(err, ErrNoShop) {
		t.Errorf("a folder in place of a program: %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var log tail
	for range 5000 {
		if n, err := log.Write([]byte("some line of a log\n")); n != 19 || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = log.Write([]byte("the end"))
	if len(log.text) > 2*logKept+19 || !strings.HasSuffix(log.String(), "\nthe end") || strings.Count(log.String(), "\n") != 9 {
		t.Errorf("%d bytes kept, last lines %q", len(log.text), log.String())
	}
}
