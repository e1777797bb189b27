package hub

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestUIDOf: the kernel tells whose a connection is, and of none that is not there.
func TestUIDOf(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		dialed, err := net.Dial("tcp", strings.Replace(l.Addr().String(), "[::]", "127.0.0.1", 1))
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if uid, err := uidOf(c.LocalAddr(), c.RemoteAddr()); err != nil || uid != os.Getuid() {
			t.Errorf("%s: %d, %v", at, uid, err)
		}
		strange := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
		if _, err := uidOf(c.LocalAddr(), strange); err == nil {
			t.Error("whose a connection is that is not there is known")
		}
		for _, c := range []interface{ Close() error }{c, dialed, l} {
			c.Close()
		}
	}
}
