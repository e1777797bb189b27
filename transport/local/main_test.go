//go:build unix && !aix && !solaris

package local

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// patience bounds waits that end by themselves unless something is broken.
const patience = 30 * time.Second

// roles are what this binary does when started by a test as another process.
var roles = map[string]func() error{}

const roleVar = "STILE_LOCAL_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const testKey Key = "tcp-192.0.2.1:7"

// testDir is a folder with the mode of a fresh rendezvous folder, which other
// uids could reach.
func testDir(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	for p := base; strings.HasPrefix(p, os.TempDir()+"/"); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(base, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// noFDsLeft fails the test if it leaves descriptors open.
func noFDsLeft(t *testing.T) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // the poller's own come with its first use
		_, _ = r.Close(), w.Close()
	}
	before := openFDs(t)
	t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		var now []string
		for time.Now().Before(deadline) {
			if now = openFDs(t); len(now) <= len(before) {
				return
			}
			time.Sleep(time.Millisecond) // the kernel and peers close on their own
		}
		t.Errorf("%d descriptors left over:\n%s", len(now)-len(before), strings.Join(now, "\n"))
	})
}

func openFDs(t *testing.T) []string {
	t.Helper()
	const dir = "/dev/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var fds []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil { // else it was ReadDir's own
			fds = append(fds, e.Name()+" "+to)
		}
	}
	return fds
}

// logLines collects what is logged.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

var quiet = slog.New(slog.DiscardHandler)

// listen starts a server that ends with the test. Zero fields get test values.
func listen(t *testing.T, cfg ListenConfig) *Listener {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = []Key{testKey}
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*Listener)
}

// acceptAll keeps accepting and closes what comes; it ends with l.
func acceptAll(t *testing.T, l transport.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// pair connects through l.
func pair(t *testing.T, l *Listener, key Key, cfg DialConfig) (client, server transport.Conn) {
	t.Helper()
	type result struct {
		c   transport.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		accepted <- result{c, err}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	cfg.Dir = l.folder.path
	client, _, err := Dial(ctx, key, cfg)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = client.Close() })
	select {
	case r := <-accepted:
		if r.err != nil {
			t.Fatalf("accept: %v", r.err)
		}
		t.Cleanup(func() { _ = r.c.Close() })
		return client, r.c
	case <-ctx.Done():
		t.Fatal("nothing accepted")
	}
	panic("unreachable")
}

func dialOnce(t *testing.T, dir string, cfg DialConfig) (transport.Conn, []byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg.Dir = dir
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	return Dial(ctx, testKey, cfg)
}

// mailbox is a Handler that keeps payloads.
type mailbox struct {
	frames chan string
	closed chan error
}

func newMailbox() *mailbox {
	return &mailbox{frames: make(chan string, 16), closed: make(chan error, 1)}
}

func (m *mailbox) HandleFrame(_ wire.Header, b *wire.Buf) {
	m.frames <- string(b.B)
	b.Release()
}

func (m *mailbox) HandleClose(err error) { m.closed <- err }

// exchange sends a frame each way.
func exchange(t *testing.T, client, server transport.Conn) {
	t.Helper()
	mc, ms := newMailbox(), newMailbox()
	client.Start(mc)
	server.Start(ms)
	h := wire.Header{Type: wire.TypeStream, Stream: 1}
	for _, d := range []struct {
		from transport.Conn
		to   *mailbox
		text string
	}{{client, ms, "ping"}, {server, mc, "pong"}} {
		if err := d.from.Write(nil, h, []byte(d.text), nil); err != nil {
			t.Fatalf("write %s: %v", d.text, err)
		}
		select {
		case got := <-d.to.frames:
			if got != d.text {
				t.Fatalf("got %q, want %q", got, d.text)
			}
		case <-time.After(patience):
			t.Fatalf("%s did not arrive", d.text)
		}
	}
}

// rawListen binds the entry of testKey in dir as any program could.
func rawListen(t *testing.T, dir string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, entryName(testKey)), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// fakeServer answers each client of testKey's entry with talk, in order.
func fakeServer(t *testing.T, dir string, talk func(*net.UnixConn)) {
	t.Helper()
	ln := rawListen(t, dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			uc, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			_ = uc.SetDeadline(time.Now().Add(patience))
			talk(uc)
			_ = uc.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
}

// rawDial connects to testKey's entry as any program could.
func rawDial(t *testing.T, dir string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, entryName(testKey)))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

// eventually waits for a condition that comes true by itself.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}
