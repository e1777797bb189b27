package hostmap

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// pour connects to a unix socket, to a TCP address, and twice to one where nobody accepts, and writes to the first two for as long as somebody reads.
func pour(at []string) {
	for i, network := range []string{"unix", "tcp", "unix", "unix"} {
		c, err := net.Dial(network, at[min(i, 2)])
		if err != nil {
			panic(err)
		}
		if i < 2 {
			go func() {
				for b := make([]byte, 64<<10); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
		defer c.Close()
	}
	_, _ = os.Stdout.WriteString("connected\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

// TestWatch: who writes to one who does not read, by a unix socket and by TCP, waits for it, and so do those who are not accepted; others do not.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	var listeners []net.Listener
	for _, at := range [][2]string{{"unix", filepath.Join(dir, "full")}, {"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(dir, "closed")}, {"unix", filepath.Join(dir, "idle")}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	pid := startChild(t, listeners[:2], listeners[0].Addr().String()+" "+listeners[1].Addr().String()+" "+listeners[2].Addr().String(), r)
	_ = r.Close()
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil { // when it is full
		t.Fatal(err)
	}
	if n, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Fatal(n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	me, it, clients := End{PID: os.Getpid()}, End{PID: pid}, End{Address: Clients}
	want := map[key]bool{
		{it, me, routemap.UnixStream, listeners[0].Addr().String()}:      true,
		{it, me, routemap.TCPLoopback, listeners[1].Addr().String()}:     true,
		{me, it, routemap.Pipe, ""}:                                      true,
		{clients, me, routemap.UnixStream, listeners[2].Addr().String()}: false, // of backlogs, one of 4096 or so is not deep
	}
	for { // until buffers have grown as far as they do
		h, err := Watch(ctx, 400*time.Millisecond, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		found := map[key]Pressure{}
		for _, p := range h.Pressure {
			if p.From == me || p.To == me {
				found[key{p.From, p.To, p.Transport, p.Via}] = p
			}
		}
		right := len(found) == len(want) && h.Samples > 1
		for k, deep := range want {
			p := found[k]
			right = right && p.Blocking && p.Backpressure == deep && p.Samples == h.Samples && (p.Full == h.Samples) == deep
			right = right && (p.Backlog == h.Samples) == (k.from == clients)
			if k.transport == routemap.TCPLoopback {
				right = right && p.Limited > 0 && p.Busy >= p.Limited
			}
		}
		if right {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d samples, %+v", h.Samples, found)
		}
		t.Logf("not yet: %+v", found)
	}
}
