package agent

import (
	"math"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
)

// load tells what the process has used since it told last.
type load struct {
	was     usage
	threads map[string]time.Duration // run-queue wait, by thread
}

// usage is what the process has used since it began.
type usage struct {
	user, system           time.Duration
	voluntary, involuntary uint64
	gc                     time.Duration
	counters               Counters
}

func (l *load) begin(counters func() Counters) {
	l.was, l.threads = now(counters), runQueues()
}

func now(counters func() Counters) (u usage) {
	u.rusage()
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	if metrics.Read(sample); sample[0].Value.Kind() == metrics.KindFloat64 {
		u.gc = time.Duration(sample[0].Value.Float64() * float64(time.Second))
	}
	if counters != nil {
		u.counters = counters()
	}
	return u
}

func (l *load) since(counters func() Counters) *hubpb.Load {
	is, was := now(counters), l.was
	threads := runQueues()
	waited := time.Duration(0)
	for id, d := range threads {
		waited += d - l.threads[id] // what a thread that has ended waited last is not known
	}
	l.was, l.threads = is, threads
	return &hubpb.Load{
		UserNs: int64(is.user - was.user), SystemNs: int64(is.system - was.system), VoluntarySwitches: grown(is.voluntary, was.voluntary), InvoluntarySwitches: grown(is.involuntary, was.involuntary),
		RunQueueNs: int64(max(waited, 0)), GcNs: int64(is.gc - was.gc), Gomaxprocs: uint32(min(runtime.GOMAXPROCS(0), math.MaxInt32)),
		Doorbells: grown(is.counters.Doorbells, was.counters.Doorbells), Parks: grown(is.counters.Parks, was.counters.Parks), SpinNs: int64(max(is.counters.Spin-was.counters.Spin, 0)),
	}
}

// grown is by how much a count has: those of connections that have ended are not in it any more.
func grown(is, was uint64) uint64 {
	if is < was {
		return 0
	}
	return is - was
}
