// Package usage tells what this process uses of processors, and what its host does.
package usage

import (
	"os"
	"runtime/metrics"
	"strings"
	"time"
)

// Used is what was used in a stretch of time.
type Used struct {
	From time.Time
	Took time.Duration

	User, System           time.Duration
	GC                     time.Duration // of processors, by the collector
	RunQueue               time.Duration // that threads were ready to run and did not
	Voluntary, Involuntary uint64        // context switches

	Host Host // nothing: it is not known
}

// Host is what all processes of a host used, and what was left of its processors.
type Host struct {
	User, System, Idle, Steal time.Duration
}

// Total is all time of its processors.
func (h Host) Total() time.Duration { return h.User + h.System + h.Idle + h.Steal }

// Add adds a stretch that follows.
func (u *Used) Add(o *Used) {
	if u.From.IsZero() {
		u.From = o.From
	}
	u.Took += o.Took
	u.User, u.System, u.GC, u.RunQueue = u.User+o.User, u.System+o.System, u.GC+o.GC, u.RunQueue+o.RunQueue
	u.Voluntary, u.Involuntary = u.Voluntary+o.Voluntary, u.Involuntary+o.Involuntary
	u.Host = Host{u.Host.User + o.Host.User, u.Host.System + o.Host.System, u.Host.Idle + o.Host.Idle, u.Host.Steal + o.Host.Steal}
}

// Meter tells what was used since it was asked last. It is not safe for concurrent use. Who is done with it closes it.
type Meter struct {
	// NoHost leaves out what the host does: somebody else looks.
	NoHost bool

	at      time.Time
	was     process
	threads threads
	host    hostMeter
	gc      []metrics.Sample
}

// process is what this process has used since it began.
type process struct {
	user, system, gc       time.Duration
	voluntary, involuntary uint64
}

// NewMeter returns one that begins now.
func NewMeter() *Meter {
	m := &Meter{gc: []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}}
	m.Read()
	return m
}

// Read returns what was used since it was called last. What costs much on a host with many threads or processors is not read each time, and then is of all the
// time since it was.
func (m *Meter) Read() Used {
	now := time.Now()
	is, was := m.now(), m.was
	u := Used{
		From: m.at, Took: max(now.Sub(m.at), 0), User: grown(is.user, was.user), System: grown(is.system, was.system), GC: grown(is.gc, was.gc),
		Voluntary: is.voluntary - was.voluntary, Involuntary: is.involuntary - was.involuntary, RunQueue: m.threads.read(),
	}
	if m.NoHost {
		m.host.close()
	} else {
		u.Host = m.host.read()
	}
	m.at, m.was = now, is
	return u
}

// Close lets go of what is open. A meter that is read again opens it anew.
func (m *Meter) Close() {
	m.threads.close()
	m.host.close()
}

func (m *Meter) now() (p process) {
	p.rusage()
	if metrics.Read(m.gc); m.gc[0].Value.Kind() == metrics.KindFloat64 {
		p.gc = time.Duration(m.gc[0].Value.Float64() * float64(time.Second))
	}
	return p
}

// grown is by how much a time has; estimates may shrink.
func grown(is, was time.Duration) time.Duration { return max(is-was, 0) }

// Boot names the host, since it was started; where nobody tells, by its name.
func Boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		host, _ := os.Hostname() // the next best
		return host
	}
	return strings.TrimSpace(string(id))
}
