//go:build linux

package shm

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestGaps rests between calls for about as long as either side spins, so that
// the frame meets a reader in every state of falling asleep. A lost wake-up is a
// call that never returns.
func TestGaps(t *testing.T) {
	calls := 1500
	if testing.Short() {
		calls = 300
	}
	for name, cfg := range map[string]Config{
		"spin": {}, "no spin": {Spin: -1}, "short spin": {Spin: 5 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			p := startChild(t, "echo", cfg)
			cs := newCallers(4)
			p.conn.Start(cs)
			done := make(chan struct{})
			var wg sync.WaitGroup
			for id := range cs.slots {
				wg.Go(func() {
					for range calls {
						if ok, err := cs.call(p.conn, id, []byte{1}, rand.IntN(4) > 0); !ok || err != nil {
							t.Errorf("call: %v, %v", ok, err)
							return
						}
						for end := now() + time.Duration(rand.IntN(120_000)); id%2 == 0 && now() < end; {
							pause(10)
						}
						if id%2 == 1 {
							time.Sleep(time.Duration(rand.IntN(120_000)))
						}
					}
				})
			}
			go func() { wg.Wait(); close(done) }()
			await(t, done, "calls")
		})
	}
}
