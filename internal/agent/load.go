package agent

import (
	"math"
	"runtime"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/usage"
)

// loadOf is what the process used in a window.
func loadOf(u usage.Used, is, was Counters) *hubpb.Load {
	return &hubpb.Load{
		UserNs: int64(u.User), SystemNs: int64(u.System), VoluntarySwitches: u.Voluntary, InvoluntarySwitches: u.Involuntary,
		RunQueueNs: int64(u.RunQueue), GcNs: int64(u.GC), Gomaxprocs: uint32(min(runtime.GOMAXPROCS(0), math.MaxInt32)),
		Doorbells: grown(is.Doorbells, was.Doorbells), Parks: grown(is.Parks, was.Parks), SpinNs: int64(max(is.Spin-was.Spin, 0)),
	}
}

// grown is by how much a count has: those of connections that have ended are not in it any more.
func grown(is, was uint64) uint64 {
	if is < was {
		return 0
	}
	return is - was
}
