package telemetry

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Event is a decision, or what has happened to a connection: what an incident is put together of. Those with the same Kind, Subject, Detail and Error are alike, and
// become one, with their number.
type Event struct {
	Kind    string // such as "breaker moved"
	Subject string // whom it concerns: a method, a topic, an address
	Detail  string // one of few
	Example string // what else is known of one of them, such as the text of its error
	Trace   string // ID of one of the traces in which it happened; empty: none is known
	Error   bool   // somebody should look
	Single  bool   // its place in time matters: it becomes one with like ones only when there are many

	First time.Time // when it happened
	Last  time.Time // when it happened last
	Count uint64
}

// Bounds of what is held until it is taken. A kind of which there is too much must not have others lost: it is counted together then.
const (
	maxEvents    = 1000
	maxOfKind    = 250
	maxSingle    = 32  // like ones that are told apart
	maxEventText = 256 // bytes of each text
)

// OtherSubject stands for those of a kind of event that were not told apart.
const OtherSubject = "other"

// eventKey is what makes events alike.
type eventKey struct {
	kind, subject, detail string
	error                 bool
	n                     int // of single ones
}

// events holds what has happened since it was taken. The recorder's mu guards it.
type events struct {
	all   map[eventKey]*Event
	kinds map[string]int // of all
	lost  uint64
}

// Event counts an event that happens now; e needs no times and no number. It is for what is rare: it takes a lock.
func (r *Recorder) Event(e Event) {
	if !r.Taken() {
		return
	}
	for _, text := range []*string{&e.Kind, &e.Subject, &e.Detail, &e.Example, &e.Trace} {
		*text = clipped(*text)
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.events.like(&e, now)
	if of == nil {
		r.events.lost++
		return
	}
	of.Last = now
	of.Count++
	if of.Trace == "" {
		of.Trace = e.Trace
	}
}

// like returns the event that one becomes a part of; nil: there is no room.
func (s *events) like(e *Event, now time.Time) *Event {
	if s.all == nil {
		s.all, s.kinds = map[eventKey]*Event{}, map[string]int{}
	}
	k := eventKey{e.Kind, e.Subject, e.Detail, e.Error, 0}
	for e.Single && s.all[k] != nil && k.n < maxSingle-1 {
		k.n++
	}
	if s.all[k] == nil && s.kinds[e.Kind] >= maxOfKind {
		k = eventKey{kind: e.Kind, subject: OtherSubject, error: e.Error}
		e.Subject, e.Detail, e.Example = OtherSubject, "", ""
	}
	if of := s.all[k]; of != nil {
		return of
	}
	if len(s.all) >= maxEvents {
		return nil
	}
	e.First, e.Count = now, 0
	s.all[k] = e
	s.kinds[e.Kind]++
	return e
}

// clipped is a text that is not too long, and keeps no longer one in memory.
func clipped(text string) string {
	if len(text) <= maxEventText {
		return text
	}
	n := maxEventText
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return strings.Clone(text[:n])
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
