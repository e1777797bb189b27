package hub

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Queues is what GET /api/v1/queues answers.
type Queues struct {
	Window  routemap.Window `json:"window"`
	Queues  []Queue         `json:"queues"`  // those with the most messages left first
	All     int             `json:"all"`     // how many there are, of which 1,000 are told
	Points  []QueuePoint    `json:"points"`  // of the one that was asked for, in order
	Damaged int             `json:"damaged"` // windows that could not be read, and are left out
}

// Queue is a group of a topic, or a topic without groups. What is of a moment is of the last one, the rest of the whole time.
type Queue struct {
	ID      string    `json:"id"`
	Topic   string    `json:"topic"`
	Group   string    `json:"group"`   // empty: nobody has subscribed
	Created time.Time `json:"created"` // of the topic, of which there may be another of its name
	routemap.QueueStats
	Seen      time.Time     `json:"seen"` // of what is of a moment
	In        float64       `json:"in"`   // messages a second
	Out       float64       `json:"out"`
	UntilFull time.Duration `json:"untilFull"`    // ns; 0: it does not grow, or that is not known
	At        int64         `json:"at,omitempty"` // 0
}

// QueuePoint is a stretch of time.
type QueuePoint struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	routemap.QueueStats
	In  float64 `json:"in"`
	Out float64 `json:"out"`
}

// maxQueuesTold is how many queues one answer has.
const maxQueuesTold = 1000

// inAll is what windows say together.
func inAll(windows []store.QueueWindow) store.Queues {
	all := store.Queues{}
	for _, w := range windows {
		all.Then(w.Queues)
	}
	return all
}

// queuesOf reads from, to, queue, the ID of one, and points.
func (h *Hub) queuesOf(r *http.Request) (any, error) {
	from, to, err := h.between(r, "queue", "points")
	if err != nil {
		return nil, err
	}
	points, err := number(r, "points", DefaultPoints, MaxPoints)
	if err != nil {
		return nil, err
	}
	windows, damaged, err := h.store.Queues(r.Context(), from, to)
	if err != nil {
		return nil, err
	}
	out := Queues{Window: routemap.Window{From: from, To: to}, Queues: []Queue{}, Points: []QueuePoint{}, Damaged: damaged}
	id := r.URL.Query().Get("queue")
	var asked routemap.QueueKey
	for k, s := range inAll(windows) {
		if id == "" || k.ID() == id {
			asked = k
			out.Queues = append(out.Queues, queueOf(k, s))
		}
	}
	if id != "" && len(out.Queues) == 0 {
		return nil, notThere{fmt.Errorf("no queue of the ID %.64q was told of in this time", id)}
	}
	if id != "" {
		out.Points = queuePoints(windows, asked, from, to, points)
	}
	slices.SortFunc(out.Queues, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(b.Lag+b.InFlight, a.Lag+a.InFlight), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Group, b.Group), a.Created.Compare(b.Created))
	})
	out.All = len(out.Queues)
	out.Queues = out.Queues[:min(len(out.Queues), maxQueuesTold)]
	return out, nil
}

func queueOf(k routemap.QueueKey, s *routemap.QueueStats) Queue {
	q := Queue{ID: k.ID(), Topic: k.Topic, Group: k.Group, Created: time.Unix(0, k.Created).UTC(), QueueStats: *s, Seen: time.Unix(0, s.At).UTC(), UntilFull: s.UntilFull()}
	q.In, q.Out = rates(s)
	return q
}

func rates(s *routemap.QueueStats) (in, out float64) {
	if s.Measured == 0 {
		return 0, 0
	}
	return s.Per(s.Published), s.Per(s.Handled)
}

// queuePoints are up to so many stretches of time of a queue, each of whole windows.
func queuePoints(windows []store.QueueWindow, k routemap.QueueKey, from, to time.Time, most int) []QueuePoint {
	all := []QueuePoint{}
	longest := store.Finest
	for _, w := range windows {
		longest = max(longest, w.Long)
	}
	step := (to.Sub(from)/time.Duration(most) + longest).Truncate(longest)
	for _, w := range windows {
		s := w.Queues[k]
		if s == nil {
			continue
		}
		n := len(all)
		if n == 0 || w.End().Sub(all[n-1].From) > step {
			all = append(all, QueuePoint{From: w.Start, To: w.End()})
			n++
		}
		p := &all[n-1]
		p.To = w.End()
		p.Then(s)
		p.In, p.Out = rates(&p.QueueStats)
	}
	return all
}
