//go:build stile_deaths

package shm

import (
	"encoding/binary"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Builds with the tag stile_deaths are for tests. They kill their own process before
// or after its n-th store to shared memory: DeathPoint in the environment is 2n-1
// or 2n. When that was, in ns of CLOCK_MONOTONIC, is written to the file that
// DeathNote names, 8 bytes in little endian.
const (
	DeathPoint = "STILE_DEATH_POINT"
	DeathNote  = "STILE_DEATH_NOTE"
)

var (
	deathAt    = deathOrder()
	deathSteps atomic.Int64
)

func deathOrder() int64 {
	n, err := strconv.ParseInt(os.Getenv(DeathPoint), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// deathPoint is called before and after each store to shared memory.
func deathPoint() {
	if deathAt == 0 || deathSteps.Add(1) != deathAt {
		return
	}
	if name := os.Getenv(DeathNote); name != "" {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		_ = os.WriteFile(name, binary.LittleEndian.AppendUint64(nil, uint64(now.Nano())), 0o600)
	}
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {}
}
