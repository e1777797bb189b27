package queue

import (
	"strings"
	"sync"
	"time"
)

// fullTopics is what senders of this process met in topics that were full.
type fullTopics struct {
	mu  sync.Mutex
	all map[string]*senders // by stream
}

// senders are those of a topic. The methods of nil do nothing.
type senders struct {
	topic string
	is    identity

	mu      sync.Mutex
	waiting int
	since   time.Time // until when blocked is counted
	blocked time.Duration
	refused uint64
}

// maxWatched is how many topics of a process are told of.
const maxWatched = 256

func (f *fullTopics) open(topic string, is identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.all[is.name]; s != nil && s.is == is || s == nil && len(f.all) >= maxWatched {
		return
	}
	if f.all == nil {
		f.all = map[string]*senders{}
	}
	f.all[is.name] = &senders{topic: topic, is: is}
}

// drop forgets the senders of a topic that is gone.
func (f *fullTopics) drop(s *senders) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[s.is.name] == s {
		delete(f.all, s.is.name)
	}
}

// of returns the senders of the topic that a subject is of; nil: nobody asks for them.
func (f *fullTopics) of(subject string) *senders {
	kind, rest, _ := strings.Cut(subject, ".")
	stream, _, _ := strings.Cut(rest, ".")
	if kind != "q" && kind != "later" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all[stream]
}

func (f *fullTopics) list() (all []*senders) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		all = append(all, s)
	}
	return all
}

func (s *senders) enter() { s.change(1) }
func (s *senders) leave() { s.change(-1) }

func (s *senders) change(by int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(time.Now())
	s.waiting += by
}

func (s *senders) countLocked(now time.Time) {
	if s.waiting > 0 {
		s.blocked += time.Duration(s.waiting) * now.Sub(s.since)
	}
	s.since = now
}

func (s *senders) refuse(messages int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused += uint64(messages)
}

// take returns what was met since it was called last.
func (s *senders) take() (blocked time.Duration, refused uint64) {
	if s == nil {
		return 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(time.Now())
	blocked, refused = s.blocked, s.refused
	s.blocked, s.refused = 0, 0
	return blocked, refused
}
