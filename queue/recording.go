package queue

import (
	"sync"
	"time"

	"github.com/stile-ipc/stile/telemetry"
)

// byBroker is how maps name the way of messages.
const byBroker = "broker"

// counts are what counts a queue's messages, by topic. Its zero value counts for the process.
type counts struct {
	mu    sync.Mutex
	links map[countsOf]*telemetry.Link
}

type countsOf struct {
	side  telemetry.Side
	topic string
}

// route is what counts a topic's messages, of those who send them, or who handle them; nil: nothing does.
func (c *counts) route(side telemetry.Side, topic string) *telemetry.Route {
	what := "process "
	if side == telemetry.Client {
		what = "send "
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.links[countsOf{side, topic}]
	if l == nil {
		if c.links == nil {
			c.links = map[countsOf]*telemetry.Link{}
		}
		if l = telemetry.Process().Link(side, byBroker, telemetry.Peer{Topic: topic}); l == nil {
			return nil
		}
		c.links[countsOf{side, topic}] = l
	}
	return l.Route(telemetry.RouteName{Method: what + topic})
}

func (c *counts) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		l.Close()
	}
}

// sent counts messages that were published together; r is nil if nothing counts them.
func sent(r *telemetry.Route, began time.Time, err error, bytes ...int) {
	if r == nil {
		return
	}
	m := telemetry.Message{Duration: time.Since(began), Waited: -1, Code: codeOf(err)}
	for _, m.Bytes = range bytes {
		r.RecordMessage(0, &m)
	}
}

// handled counts a message that a handler had, for so long.
func (s *Subscription) handled(d *delivery, began time.Time, took time.Duration, err error) {
	if s.route == nil {
		return
	}
	s.route.RecordMessage(uint32(d.seq), &telemetry.Message{Duration: took, Waited: max(began.Sub(d.stored), 0), Bytes: len(d.Data), Code: codeOf(err)})
}

// codeOf is gRPC's UNKNOWN for those that failed.
func codeOf(err error) uint32 {
	if err != nil {
		return 2
	}
	return 0
}
