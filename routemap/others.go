package routemap

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/stile-ipc/stile/internal/packed"
)

// ContaminatedFrom is how many processors others have to use of a host, on average, for its window to be one that cannot be trusted.
const ContaminatedFrom = 0.1

// maxHosts is how many hosts a map tells apart.
const maxHosts = 1_000

// Others is what processes of a host that do not report used, and what its hypervisor took.
type Others struct {
	Host         string  `json:"host"`
	Windows      uint64  `json:"windows"`      // of which it is known
	Contaminated uint64  `json:"contaminated"` // of them, those in which it was more than [ContaminatedFrom]
	Time         int64   `json:"time"`         // ns that the windows are long
	Used         int64   `json:"used"`         // ns of processors, by others
	Most         float64 `json:"most"`         // processors, on average, in the window with the most
}

// String says how many windows cannot be trusted, and by how much.
func (o Others) String() string {
	return fmt.Sprintf("windows of %d on %s that are contaminated: others used more than %g processors (on average %.2g, at most %.2g)", o.Windows, o.Host, ContaminatedFrom, o.Mean(), o.Most)
}

// Mean is how many processors others used, on average.
func (o Others) Mean() float64 { return float64(o.Used) / float64(max(o.Time, 1)) }

func (o *Others) merge(more *Others) {
	o.Windows, o.Contaminated, o.Time, o.Used, o.Most = o.Windows+more.Windows, o.Contaminated+more.Contaminated, plus(o.Time, more.Time), plus(o.Used, more.Used), max(o.Most, more.Most)
}

// AddOthers adds a window of a host: how long it was, and what others used of its processors.
func (m *Map) AddOthers(host string, long, used time.Duration) {
	if long <= 0 {
		return
	}
	one := Others{Windows: 1, Time: int64(long), Used: int64(max(used, 0))}
	if one.Most = one.Mean(); one.Most > ContaminatedFrom {
		one.Contaminated = 1
	}
	m.host(host).merge(&one)
	m.fit(false)
}

func (m *Map) host(name string) *Others {
	o := made(m.hosts, name)
	o.Host = name
	return o
}

// others are the hosts, those with the most windows that are contaminated first.
func (m *Map) others() []Others {
	var all []Others
	for _, o := range m.hosts {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b Others) int {
		return cmp.Or(cmp.Compare(b.Contaminated, a.Contaminated), cmp.Compare(a.Host, b.Host))
	})
	return all
}

func appendHosts(b []byte, hosts map[string]*Others) []byte {
	b = appendUints(b, uint64(len(hosts)))
	for _, o := range hosts {
		b = appendTimes(appendUints(packed.AppendString(b, o.Host), o.Windows, o.Contaminated), o.Time, o.Used)
		b = packed.AppendFloat(b, o.Most)
	}
	return b
}

func readHosts(r *packed.Reader, hosts map[string]*Others) {
	for range readCount(r, 13, held(maxHosts, false)+1) {
		o := &Others{Host: r.String(), Windows: r.Uint(), Contaminated: r.Uint(), Time: readTime(r), Used: readTime(r), Most: r.Float()}
		if !(o.Most >= 0) || math.IsInf(o.Most, 0) {
			r.Fail()
			return
		}
		hosts[o.Host] = o
	}
}
