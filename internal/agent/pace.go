package agent

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/stile-ipc/stile/telemetry"
)

// How often a process looks at what it uses: at the first call that begins after a multiple of SampleEvery, by the clock; without calls at one of QuietEvery, or of
// SampleEvery while it uses a tenth of a processor.
const (
	SampleEvery = 200 * time.Millisecond
	QuietEvery  = time.Second
)

// Pace says when to look. To be woken by a timer costs an idle process more than the look does, so calls say that it is time: they find the process awake.
// Its methods are safe for concurrent use.
type Pace struct {
	due   atomic.Int64 // on telemetry's clock
	beats chan struct{}
}

const never = math.MaxInt64

// NewPace returns one of a process in which nobody looks.
func NewPace() *Pace {
	p := &Pace{beats: make(chan struct{}, 1)}
	p.due.Store(never)
	return p
}

// Beat says that a call begins.
func (p *Pace) Beat(now time.Duration) {
	if int64(now) >= p.due.Load() {
		p.beat()
	}
}

func (p *Pace) beat() {
	if p.due.Swap(never) == never { // another call was first
		return
	}
	select {
	case p.beats <- struct{}{}:
	default:
	}
}

// expect has calls beat once, from a time on.
func (p *Pace) expect(in time.Duration) { p.due.Store(int64(telemetry.Now() + in)) }

// rest has calls not beat.
func (p *Pace) rest() {
	p.due.Store(never)
	select {
	case <-p.beats:
	default:
	}
}
