//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/stile-ipc/stile/transport"
)

func saysUID(uid int, known bool) func(*net.UnixConn) (transport.Cred, error) {
	return func(*net.UnixConn) (transport.Cred, error) { return transport.Cred{UID: uid, Known: known}, nil }
}

// What becomes of a peer, by what the kernel says of it. With other processes:
// TestOtherUIDs.
func TestPeerUID(t *testing.T) {
	noFDsLeft(t)
	own := ownUID()
	for _, tt := range []struct {
		name  string
		cred  func(*net.UnixConn) (transport.Cred, error)
		allow []int
		open  bool // folder
		ok    bool
	}{
		{"own", saysUID(own, true), nil, true, true},
		{"other", saysUID(otherUID(), true), nil, false, false},
		{"other allowed", saysUID(otherUID(), true), []int{otherUID()}, true, true},
		{"own, others allowed", saysUID(own, true), []int{otherUID()}, true, true},
		{"other, others allowed", saysUID(otherUID()+1, true), []int{otherUID()}, true, false},
		{"unknown in a closed folder", saysUID(0, false), nil, false, true},
		{"unknown in an open folder", saysUID(0, false), nil, true, false},
		{"unknown, others allowed", saysUID(0, false), []int{otherUID()}, false, false},
		{"error", func(*net.UnixConn) (transport.Cred, error) { return transport.Cred{}, net.ErrClosed }, nil, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := testDir(t)
			if tt.open {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			plain := listen(t, ListenConfig{Dir: dir, Keys: []Key{"tcp-192.0.2.1:8"}})
			acceptAll(t, plain)
			l := listen(t, ListenConfig{Dir: dir, AllowUIDs: tt.allow, env: env{cred: tt.cred}})
			acceptAll(t, l)

			c, _, err := dialOnce(t, dir, DialConfig{})
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrUID) {
				t.Errorf("as a client: %v", err)
			}
			if !tt.ok {
				eventually(t, "refusal counted", func() bool { return l.Stats() == Stats{RefusedUID: 1} })
			}
			if c != nil {
				_ = c.Close()
			}
			cfg := DialConfig{Dir: dir, AllowUIDs: tt.allow, Logger: quiet, env: env{cred: tt.cred}}
			c, _, err = Dial(t.Context(), "tcp-192.0.2.1:8", cfg)
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrUID) {
				t.Errorf("as a server: %v", err)
			}
			if c != nil {
				_ = c.Close()
			}
		})
	}
}
