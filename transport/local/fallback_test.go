//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/sock"
)

// paperMemory stands for shared memory: it passes a pipe and carries the frames
// over the control socket.
type paperMemory struct {
	availableErr, createErr, attachErr error
	closed                             *atomic.Int32 // connections it closed
}

type paperConn struct {
	transport.Conn
	closed *atomic.Int32
}

func (c *paperConn) Close() error {
	if c.closed != nil {
		c.closed.Add(1)
	}
	return c.Conn.Close()
}

func (m paperMemory) available() error { return m.availableErr }

func (m paperMemory) create(ctl *net.UnixConn, info transport.Info) (transport.Conn, []*os.File, error) {
	if m.createErr != nil {
		return nil, nil, m.createErr
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return &paperConn{sock.New(ctl, info), m.closed}, []*os.File{r, w}, nil
}

func (m paperMemory) attach(ctl *net.UnixConn, fds []int, info transport.Info) (transport.Conn, error) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	if len(fds) != 2 {
		return nil, errors.New("wrong number of descriptors")
	}
	if m.attachErr != nil {
		return nil, m.attachErr
	}
	return &paperConn{sock.New(ctl, info), m.closed}, nil
}

func TestFallback(t *testing.T) {
	noFDsLeft(t)
	for _, tt := range []struct {
		name           string
		server, client paperMemory
		noSHM          [2]bool // server, client
		want           string
		fallbacks      uint64
		logged         string
	}{
		{name: "both can", want: infoSHM},
		{name: "server cannot make it", server: paperMemory{createErr: errors.New("no memfd here")},
			want: infoSocket, fallbacks: 1, logged: "no memfd here"},
		{name: "client has none", client: paperMemory{availableErr: errors.New("no mmap here")},
			want: infoSocket, logged: "no mmap here"},
		{name: "client cannot map it", client: paperMemory{attachErr: errors.New("bad \x00 seals")},
			want: infoSocket, fallbacks: 1, logged: "seals"},
		{name: "turned off at the server", noSHM: [2]bool{true, false}, want: infoSocket},
		{name: "turned off at the client", noSHM: [2]bool{false, true}, want: infoSocket},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fellBack = fallbackLog{}
			var log logLines
			var closed atomic.Int32
			tt.server.closed = &closed
			l := listen(t, ListenConfig{Dir: testDir(t), Logger: log.logger(), NoSHM: tt.noSHM[0], env: env{shm: tt.server}})
			for range 2 {
				cfg := DialConfig{Logger: log.logger(), NoSHM: tt.noSHM[1], env: env{shm: tt.client}}
				c, s := pair(t, l, testKey, cfg)
				if ct, st := c.Info().Transport, s.Info().Transport; ct != tt.want || st != tt.want {
					t.Errorf("transports %q and %q, want %q", ct, st, tt.want)
				}
				exchange(t, c, s)
				_, _ = c.Close(), s.Close()
			}
			if got := l.Stats(); got.Accepted != 2 || got.Fallbacks != 2*tt.fallbacks {
				t.Errorf("stats %+v", got)
			}
			if tt.client.attachErr != nil && closed.Load() != 2 {
				t.Errorf("%d unused connections over memory were closed", closed.Load())
			}
			_ = l.Close()
			text := log.String()
			if tt.logged == "" && text != "" || !strings.Contains(text, tt.logged) {
				t.Errorf("log:\n%s", text)
			}
			for _, side := range []string{"side=server", "side=client"} {
				if strings.Count(text, side) > 1 {
					t.Errorf("logged more than once:\n%s", text)
				}
			}
		})
	}
}

// The reason why there is no shared memory reaches whoever asks.
func TestProbeSaysWhyNotMemory(t *testing.T) {
	noFDsLeft(t)
	for _, m := range []struct{ server, client paperMemory }{
		{server: paperMemory{createErr: errors.New("because")}},
		{client: paperMemory{availableErr: errors.New("because")}},
		{client: paperMemory{attachErr: errors.New("because")}},
	} {
		l := listen(t, ListenConfig{Dir: testDir(t), env: env{shm: m.server}})
		r, err := Probe(t.Context(), testKey, DialConfig{Dir: l.folder.path, Logger: quiet, env: env{shm: m.client}})
		if err != nil || r.Transport != infoSocket || r.NoSHM != "because" {
			t.Errorf("%+v, %v", r, err)
		}
	}
}
