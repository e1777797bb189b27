package telemetry

// Open is how many calls of a route were open, at moments that calls have no part in choosing.
type Open struct {
	Looks uint64 // moments; 0: it is not known
	Sum   uint64 // of the calls that were open at each of them
	Most  uint64 // at once
}

func (o *Open) merge(other *Open) {
	o.Looks, o.Sum, o.Most = max(o.Looks, other.Looks), o.Sum+other.Sum, max(o.Most, other.Most)
}

// TellsOpen says that it is known which calls of the link are open: [Recorder.Look] is told of them.
func (l *Link) TellsOpen() {
	if l != nil {
		l.tellsOpen.Store(true)
	}
}

// Look counts which calls are open now, of all links that tell of it.
func (r *Recorder) Look(open map[*Route]int) {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.looks++
	for route, n := range open {
		route.open.Sum += uint64(n)
		route.open.Most = max(route.open.Most, uint64(n))
	}
}

// takeOpen empties what Look has counted since looks were looks.
func (r *Route) takeOpen(looks uint64) (was Open) {
	if !r.link.tellsOpen.Load() {
		return Open{}
	}
	was, r.open = r.open, Open{}
	was.Looks = looks
	return was
}
