package sock_test

import (
	"net"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/sock"
	"github.com/stile-ipc/stile/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unixAddr(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

func tcpAddr(*testing.T) string { return "127.0.0.1:0" }

func TestUnixConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Dialed(sock.Transport{}, unixAddr))
}

func TestTCPConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Dialed(sock.Transport{Network: "tcp"}, tcpAddr))
}

// TestPipeConformance runs over a stream that is no socket: every byte goes through
// the flusher goroutine.
func TestPipeConformance(t *testing.T) {
	transporttest.Run(t, func(*testing.T) (client, server transport.Conn) {
		a, b := net.Pipe()
		return sock.New(a, transport.Info{Transport: "pipe"}), sock.New(b, transport.Info{Transport: "pipe"})
	})
}

func TestUnixListener(t *testing.T) {
	transporttest.RunListener(t, sock.Transport{Network: "unix"}, unixAddr)
}

func TestTCPListener(t *testing.T) {
	transporttest.RunListener(t, sock.Transport{Network: "tcp"}, tcpAddr)
}
