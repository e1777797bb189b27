package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// Processes that use a server which another one has embedded, guests, ask that one, the host, for what it alone can do: to have
// messages that the server has acknowledged on disk.

const (
	hostSubject   = "stile.host"
	maxHostAtOnce = 1024 // requests; further ones wait
)

// What a guest asks for.
const (
	hostKeep    = "keep"    // messages, or that they were deleted, are in the log as a level has it
	hostSettle  = "settle"  // what was made is on disk
	hostOrdered = "ordered" // whether the host has a subscription of the group that is Ordered
)

type hostRequest struct {
	Do      string       `json:"do"`
	Level   Durability   `json:"level,omitempty"`
	Records []hostRecord `json:"records,omitempty"`
	Group   string       `json:"group,omitempty"`
}

// hostRecord names a message that is in a stream, or was.
type hostRecord struct {
	Stream   string `json:"stream"`
	Created  int64  `json:"created"` // ns since 1970
	Sequence uint64 `json:"sequence"`
	Deleted  bool   `json:"deleted,omitempty"`
	Subject  string `json:"subject,omitempty"` // of one that was deleted
	ID       string `json:"id,omitempty"`      // that tells it from others
}

type hostAnswer struct {
	Error   string `json:"error,omitempty"`
	Again   bool   `json:"again,omitempty"` // the host is ending: ask the next
	Ordered bool   `json:"ordered,omitempty"`
}

// host answers guests.
type host struct {
	q     *Queue
	turns chan struct{}
	all   sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	streams map[identity]jetstream.Stream
}

func newHost(q *Queue) (*host, error) {
	h := &host{q: q, turns: make(chan struct{}, maxHostAtOnce), streams: map[identity]jetstream.Stream{}}
	_, err := q.nc.Subscribe(hostSubject, func(m *nats.Msg) {
		h.turns <- struct{}{}
		if !h.enter() {
			<-h.turns
			return
		}
		go func() {
			defer h.all.Done()
			h.answer(m)
			<-h.turns
		}()
	})
	return h, err
}

func (h *host) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.all.Add(1)
	}
	return !h.ended
}

// end waits for what is being answered. A nil host has ended.
func (h *host) end() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.all.Wait()
}

func (h *host) answer(m *nats.Msg) {
	var req hostRequest
	var a hostAnswer
	err := json.Unmarshal(m.Data, &req)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), publishLimit)
		defer cancel()
		a.Ordered, err = h.do(ctx, req)
	}
	if err != nil {
		a.Error = err.Error()
		a.Again = errors.Is(err, redo.ErrClosed) || errors.Is(err, nats.ErrConnectionClosed)
	}
	text, err := json.Marshal(a)
	if err == nil {
		err = m.Respond(text)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		h.q.log.Warn("queue: another process was not answered", "error", err)
	}
}

func (h *host) do(ctx context.Context, req hostRequest) (ordered bool, err error) {
	switch req.Do {
	case hostKeep:
		return false, h.keep(ctx, req)
	case hostSettle:
		return false, h.q.server.Sync()
	case hostOrdered:
		h.q.mu.Lock()
		defer h.q.mu.Unlock()
		return h.q.groups[req.Group] < 0, nil
	}
	return false, fmt.Errorf("%q is not known here: the process that has the folder is of another version", req.Do)
}

// keep has the log take messages, which are read from the server: what a guest says of them is not believed.
func (h *host) keep(ctx context.Context, req hostRequest) error {
	if len(req.Records) > maxTogether {
		return fmt.Errorf("%d messages together, at most %d", len(req.Records), maxTogether)
	}
	records := make([]redo.Record, 0, len(req.Records))
	for _, r := range req.Records {
		id := identity{r.Stream, r.Created}
		s, err := h.stream(ctx, id)
		if err != nil {
			return err
		}
		if r.Deleted {
			records = append(records, id.deleted(r.Sequence, r.Subject, r.ID))
			continue
		}
		m, err := s.GetMsg(ctx, r.Sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) && wasThere(ctx, s, r.Sequence) {
			continue // somebody has taken it away meanwhile
		}
		if err != nil {
			return fmt.Errorf("message %d of stream %s: %w", r.Sequence, r.Stream, err)
		}
		records = append(records, id.record(r.Sequence, storedMsg(m)))
	}
	if len(records) == 0 {
		return nil
	}
	return h.q.redo.append(ctx, req.Level, records...)
}

// wasThere tells whether a stream has had a message.
func wasThere(ctx context.Context, s jetstream.Stream, seq uint64) bool {
	info, err := s.Info(ctx)
	return err == nil && seq > 0 && seq <= info.State.LastSeq
}

// stream returns a stream, which may have been made anew under its name.
func (h *host) stream(ctx context.Context, id identity) (jetstream.Stream, error) {
	h.mu.Lock()
	s, known := h.streams[id]
	h.mu.Unlock()
	if known {
		return s, nil
	}
	s, err := h.q.js.Stream(ctx, id.name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", id.name, err)
	}
	if identityOf(s.CachedInfo()) != id {
		return nil, fmt.Errorf("stream %s was deleted and made anew: open the topic again", id.name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[id] = s
	return s, nil
}
