package routemap

import "math"

// Open is how many calls of a route were open, as processes saw at moments that calls have no part in choosing: those of who calls, or of who is called if that one does not tell.
type Open struct {
	Looks uint64 `json:"looks"` // moments, of all processes; 0: it is not known
	Time  int64  `json:"time"`  // ns in which they lie, likewise
	Seen  uint64 `json:"seen"`  // calls that were open, of all moments
	Most  uint64 `json:"most"`  // in one process at once
}

func (o *Open) merge(other *Open) {
	o.Looks, o.Time, o.Seen, o.Most = o.Looks+other.Looks, plus(o.Time, other.Time), o.Seen+other.Seen, max(o.Most, other.Most)
}

// Total is how long calls were open, ns, the sum of all: about, as it is known of moments alone.
func (o *Open) Total() float64 {
	if o.Looks == 0 {
		return 0
	}
	return float64(o.Seen) * float64(o.Time) / float64(o.Looks)
}

// What makes a route inconsistent.
const (
	littleShare = 0.2
	littleSigma = 5
	littleSeen  = 50 // calls that were seen open, or should have been
)

// Inconsistent tells whether as many calls are open as should be, by Little's law: how many come in a second, times how long they take. If not, calls are open that do not end, or some that ended are not counted.
// It is not known of streams, which may live for longer than anybody looks.
func (r Route) Inconsistent() bool {
	if r.Mode != Sync || r.Open.Looks == 0 || r.Open.Time == 0 {
		return false
	}
	seen, should := float64(r.Open.Seen), r.Duration().Sum()*float64(r.Open.Looks)/float64(r.Open.Time)
	off, most := math.Abs(seen-should), max(seen, should)
	return most >= littleSeen && off > littleShare*most && off > littleSigma*math.Sqrt(most)
}
