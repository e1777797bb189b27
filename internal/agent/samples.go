package agent

import (
	"context"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/telemetry"
)

// What a sample looks at each time: of more, all is looked at each second time, or seldomer.
const (
	routesEach      = 256
	connectionsEach = 256
)

// maxSamples is how many a window has at most: of more the oldest are dropped, as when the host slept.
const maxSamples = 300

// sampler looks what the process uses, again and again.
type sampler struct {
	counted  func() (made, served uint64, routes int)
	inFlight func(each func(*telemetry.Route)) (made, served, connections int) // nil: nobody knows
	opened   func(map[*telemetry.Route]int)
	pace     *Pace
	isBusy   func(used usage.Used) bool

	mu        sync.Mutex
	meter     *usage.Meter
	samples   []sample
	dropped   usage.Used // what samples were of that are none any more
	made      uint64     // as counted said last
	served    uint64
	skipCalls int
	skipOpen  int
	open      [2]uint64
	busy      bool // in the last sample of some length
}

// sample is what was used in a stretch of time.
type sample struct {
	usage.Used
	made, served         uint64 // calls that ended
	openMade, openServed uint64 // calls that are open at its end
}

func newSampler(cfg *Config) *sampler {
	s := &sampler{counted: cfg.Recorder.Counted, inFlight: cfg.InFlight, opened: cfg.Recorder.Look, pace: cfg.Pace, isBusy: cfg.isBusy, meter: usage.NewMeter()}
	if s.pace == nil {
		s.pace = NewPace()
	}
	if s.isBusy == nil {
		s.isBusy = func(used usage.Used) bool { return used.User+used.System > used.Took/busy }
	}
	s.made, s.served, _ = s.counted()
	return s
}

// run takes samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	every := SampleEvery
	for {
		now := time.Now()
		until := func(every time.Duration) time.Duration { return now.Truncate(every).Add(every).Sub(now) }
		t.Reset(until(every))
		s.pace.expect(until(SampleEvery))
		byClock := false
		select {
		case <-t.C:
			byClock = true
		case <-s.pace.beats: // with a call that begins
		case <-ctx.Done():
			s.pace.rest()
			return
		}
		s.pace.rest()
		every = QuietEvery
		if s.take(byClock) {
			every = SampleEvery
		}
	}
}

// busy is which part of the time of a processor a process uses that looks by itself.
const busy = 10

// take takes a sample, by the clock or not, and reports whether the process is busy.
func (s *sampler) take(byClock bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used := s.takeLocked(byClock); used.Took >= shortest { // less is what is left behind the end of a window
		s.busy = s.isBusy(used)
	}
	return s.busy
}

// shortest is how long a sample is at least: of less there is none of its own.
const shortest = SampleEvery / 4

func (s *sampler) takeLocked(byClock bool) usage.Used {
	one := sample{Used: s.meter.Read()}
	if s.skipCalls--; s.skipCalls < 0 {
		made, served, routes := s.counted()
		one.made, one.served = grown(made, s.made), grown(served, s.served)
		s.made, s.served, s.skipCalls = made, served, routes/routesEach
	}
	if s.skipOpen--; s.skipOpen < 0 && s.inFlight != nil {
		var routes map[*telemetry.Route]int
		var each func(*telemetry.Route)
		if byClock { // else that which begins is seen each time
			routes = map[*telemetry.Route]int{}
			each = func(r *telemetry.Route) { routes[r]++ }
		}
		made, served, connections := s.inFlight(each)
		if byClock {
			s.opened(routes)
		}
		s.open, s.skipOpen = [2]uint64{uint64(made), uint64(served)}, connections/connectionsEach
	}
	one.openMade, one.openServed = s.open[0], s.open[1]
	if n := len(s.samples); n > 0 && min(one.Took, s.samples[n-1].Took) < shortest {
		s.samples[n-1].add(&one)
		return one.Used
	}
	if len(s.samples) >= maxSamples {
		s.dropped.Add(&s.samples[0].Used)
		s.samples = append(s.samples[:0], s.samples[1:]...)
	}
	s.samples = append(s.samples, one)
	return one.Used
}

func (s *sample) add(o *sample) {
	s.Used.Add(&o.Used)
	s.made, s.served, s.openMade, s.openServed = s.made+o.made, s.served+o.served, o.openMade, o.openServed
}

// host says whether to look at the host.
func (s *sampler) host(look bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.NoHost = !look
}

func (s *sampler) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.Close()
}

// window ends a window: it is what was used in it, and its samples.
func (s *sampler) window() (sum usage.Used, all []sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked(true)
	sum, s.dropped = s.dropped, usage.Used{}
	for i := range s.samples {
		sum.Add(&s.samples[i].Used)
	}
	all, s.samples = s.samples, make([]sample, 0, len(s.samples))
	return sum, all
}

// columns are samples as they are reported.
func columns(all []sample) []*hubpb.Sample {
	if len(all) == 0 {
		return nil
	}
	column := func(of func(s *sample) uint64) []uint64 {
		values, any := make([]uint64, len(all)), uint64(0)
		for i := range all {
			values[i] = of(&all[i])
			any |= values[i]
		}
		if any == 0 {
			return nil
		}
		return values
	}
	micro := func(of func(s *sample) time.Duration) []uint64 {
		return column(func(s *sample) uint64 { return uint64(max(of(s), 0)+time.Microsecond/2) / uint64(time.Microsecond) })
	}
	return []*hubpb.Sample{{
		FromUnixNano: all[0].From.UnixNano(), TookUs: micro(func(s *sample) time.Duration { return s.Took }),
		UserUs: micro(func(s *sample) time.Duration { return s.User }), SystemUs: micro(func(s *sample) time.Duration { return s.System }),
		GcUs: micro(func(s *sample) time.Duration { return s.GC }), RunQueueUs: micro(func(s *sample) time.Duration { return s.RunQueue }),
		VoluntarySwitches: column(func(s *sample) uint64 { return s.Voluntary }), InvoluntarySwitches: column(func(s *sample) uint64 { return s.Involuntary }),
		Made: column(func(s *sample) uint64 { return s.made }), Served: column(func(s *sample) uint64 { return s.served }),
		OpenMade: column(func(s *sample) uint64 { return s.openMade }), OpenServed: column(func(s *sample) uint64 { return s.openServed }),
		Gomaxprocs: uint32(min(runtime.GOMAXPROCS(0), math.MaxInt32)),
		HostUserUs: micro(func(s *sample) time.Duration { return s.Host.User }), HostSystemUs: micro(func(s *sample) time.Duration { return s.Host.System }),
		HostIdleUs: micro(func(s *sample) time.Duration { return s.Host.Idle }), HostStealUs: micro(func(s *sample) time.Duration { return s.Host.Steal }),
	}}
}
