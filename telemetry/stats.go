package telemetry

// codes is how many codes are counted apart: gRPC's 17, and all others.
const codes = 18

// Waits are sums of where calls waited, ns.
type Waits struct {
	Calls       uint64 // of which it is known
	ClientQueue int64
	Transport   int64
	ServerQueue int64
	Handler     int64
}

func (w *Waits) add(o *Waits) {
	w.Calls += o.Calls
	w.ClientQueue += o.ClientQueue
	w.Transport += o.Transport
	w.ServerQueue += o.ServerQueue
	w.Handler += o.Handler
}

// Stats is what was counted of a route.
type Stats struct {
	Arrivals  Arrivals      // of calls that have ended; what each call looks at of it is beside the next
	Codes     [codes]uint64 // calls by gRPC's status code; the last: all others
	Duration  Histogram     // ns
	Failures  Histogram     // ns, of calls that did not end with OK
	Gap       Histogram     // ns: at a client, what was neither in its queue nor at its server
	Queue     Histogram     // ns at the server until the handler began
	Request   Histogram     // bytes
	Response  Histogram
	Waits     Waits // at a server the last two
	Repeats   Repeats
	Use       Use       // of the connection, by the route's share of its calls
	Left      Histogram // ns until the deadline when calls arrived; at a server, of those that have one
	Decisions Decisions
	Open      Open
}

func (s *Stats) record(c *Call) {
	s.Codes[min(c.Code, codes-1)]++
	if c.Begun != 0 {
		s.Arrivals.record(c.Begun)
	}
	s.Duration.Record(int64(c.Duration))
	if c.Code != 0 {
		s.Failures.Record(int64(c.Duration))
	}
	if c.Request >= 0 {
		s.Request.Record(int64(c.Request))
	}
	if c.Response >= 0 {
		s.Response.Record(int64(c.Response))
	}
	if c.Left > 0 {
		s.Left.Record(int64(c.Left))
	}
	if !c.Far {
		return
	}
	// A server that says more than there was time for has that time.
	at := int64(c.Duration - c.Waited)
	queued := min(max(int64(c.Queued), 0), at)
	handled := min(max(int64(c.Handled), 0), at-queued)
	s.Queue.Record(queued)
	if gap := at - queued - handled; gap > 0 || c.Waited > 0 {
		s.Gap.Record(gap)
	}
	s.Waits.Calls++
	s.Waits.ClientQueue += int64(c.Waited)
	s.Waits.Transport += at - queued - handled
	s.Waits.ServerQueue += queued
	s.Waits.Handler += handled
}

// Calls is how many there were.
func (s *Stats) Calls() (n uint64) {
	for _, of := range s.Codes {
		n += of
	}
	return n
}

// Merge adds what another has counted.
func (s *Stats) Merge(o *Stats) {
	for i, n := range o.Codes {
		s.Codes[i] += n
	}
	from := o.histograms()
	for i, h := range s.histograms() {
		h.Merge(from[i])
	}
	s.Waits.add(&o.Waits)
	s.Repeats.add(&o.Repeats)
	s.Use.add(o.Use)
	s.Decisions.add(&o.Decisions)
	s.Arrivals.merge(&o.Arrivals)
	s.Open.merge(&o.Open)
}

// roomOf makes room for values like those of another.
func (s *Stats) roomOf(o *Stats) {
	from := o.histograms()
	for i, h := range s.histograms() {
		h.roomOf(from[i])
	}
}

func (s *Stats) histograms() [7]*Histogram {
	return [7]*Histogram{&s.Duration, &s.Failures, &s.Gap, &s.Queue, &s.Request, &s.Response, &s.Left}
}
