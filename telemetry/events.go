package telemetry

import "time"

// Event is a decision, or what has happened to a connection: what an incident is put together of. Like ones are one event, with their number.
type Event struct {
	Kind    string // such as "breaker moved"
	Subject string // whom it concerns: a method, a topic, an address
	Detail  string
	Trace   string // ID of one of the traces in which it happened; empty: none is known
	Error   bool   // somebody should look

	First time.Time // when it happened
	Last  time.Time // when it happened last
	Count uint64
}

// maxEvents is how many different ones are held until they are taken.
const maxEvents = 1000

// eventKey is what makes events alike.
type eventKey struct {
	kind, subject, detail string
	error                 bool
}

// events holds what has happened since it was taken. The recorder's mu guards it.
type events struct {
	all  map[eventKey]*Event
	lost uint64
}

// Event counts an event that happens now; e needs no times and no number. It is for what is rare: it takes a lock.
func (r *Recorder) Event(e Event) {
	if !r.Enabled() {
		return
	}
	now := time.Now()
	k := eventKey{e.Kind, e.Subject, e.Detail, e.Error}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events.all == nil {
		r.events.all = map[eventKey]*Event{}
	}
	of := r.events.all[k]
	if of == nil {
		if len(r.events.all) >= maxEvents {
			r.events.lost++
			return
		}
		e.First, e.Count = now, 0
		of = &e
		r.events.all[k] = of
	}
	of.Last = now
	of.Count++
	if of.Trace == "" {
		of.Trace = e.Trace
	}
}

// TakeEvents returns what has happened since it was called last, in no order, and how many events there was no room for.
func (r *Recorder) TakeEvents() (all []Event, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events.all {
		all = append(all, *e)
	}
	lost = r.events.lost
	r.events = events{}
	return all, lost
}
