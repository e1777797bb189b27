//go:build unix && !aix && !solaris

package local

import (
	"testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/transporttest"
)

func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name  string
		noSHM bool
		want  string
	}{{"shm", false, infoSHM}, {"socket", true, infoSocket}} {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.noSHM && (kernelMemory{}).available() != nil {
				tt.want = infoSocket
			}
			transporttest.Run(t, func(t *testing.T) (client, server transport.Conn) {
				l := listen(t, ListenConfig{Dir: testDir(t), NoSHM: tt.noSHM})
				client, server = pair(t, l, testKey, DialConfig{})
				_ = l.Close()
				if got := client.Info().Transport; got != tt.want {
					t.Fatalf("transport %q, want %q", got, tt.want)
				}
				return client, server
			})
		})
	}
}
