package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/queue"
	"github.com/stile-ipc/stile/routemap"
)

// DeadLetters is what GET /api/v1/queues/dead answers: the oldest dead letters of a group.
type DeadLetters struct {
	Queue   string       `json:"queue"`
	Letters []DeadLetter `json:"letters"`
	Dead    uint64       `json:"dead"` // how many the group has
	Last    uint64       `json:"last"` // no letter of these has a higher sequence, and all that die later have: for QueueAct.UpTo
}

// DeadLetter is one of them, and the beginning of what it says.
type DeadLetter struct {
	queue.DeadLetter
	Size int    `json:"size"` // bytes of the message
	Data []byte `json:"data"` // of them, 2,048 at most
}

// QueueAct is what is asked of the hub by POST to /api/v1/queues/redrive and /api/v1/queues/discard.
type QueueAct struct {
	Queue     string   `json:"queue"`     // ID
	Sequences []uint64 `json:"sequences"` // of dead letters
	All       bool     `json:"all"`       // instead of these
	UpTo      uint64   `json:"upTo"`      // of all, those up to this sequence, as DeadLetters told Last; 0: those that are there, which discard refuses
	Limit     int      `json:"limit"`     // how many at most, the oldest; 0: 10,000
}

// QueueActed is what was done.
type QueueActed struct {
	Done  int    `json:"done"`
	Left  uint64 `json:"left"` // dead letters of the group
	Error string `json:"error,omitempty"`
}

// Bounds of what is done for one request.
const (
	DefaultLetters = 20
	MaxLetters     = 100
	maxLetterData  = 2048
	maxActed       = 10_000
	maxActBytes    = 1 << 20
	actWithin      = time.Minute
	actPatience    = 30 * time.Second
	reachWithin    = 2 * time.Second // for each server to say which topic it has: it may be away
)

func (h *Hub) deadLetters(r *http.Request) (any, error) {
	q := r.URL.Query()
	if err := onlyKnown(q, "queue", "limit"); err != nil {
		return nil, err
	}
	limit, err := number(r, "limit", DefaultLetters, MaxLetters)
	if err != nil {
		return nil, err
	}
	out := DeadLetters{Queue: q.Get("queue"), Letters: []DeadLetter{}}
	err = h.withQueue(r.Context(), out.Queue, func(ctx context.Context, k routemap.QueueKey, q *queue.Queue) error {
		dead, err := q.DeadLetters(ctx, k.Topic, k.Group)
		if err != nil {
			return err
		}
		if out.Dead, out.Last, err = dead.Count(ctx); err != nil {
			return err
		}
		all, err := dead.List(ctx, limit, func(l *queue.DeadLetter) bool { return l.Sequence <= out.Last })
		for _, l := range all {
			l.Reason, l.Error = strings.ToValidUTF8(l.Reason, "?"), strings.ToValidUTF8(l.Error, "?")
			out.Letters = append(out.Letters, DeadLetter{l, len(l.Data), l.Data[:min(len(l.Data), maxLetterData)]})
		}
		return err
	})
	return out, err
}

// deed is what can be done with dead letters.
type deed struct {
	begun, done string // kinds of the events that tell of it
	forever     bool
	do          func(*queue.DeadLetters, context.Context, func(*queue.DeadLetter) bool) (int, error)
}

var (
	redrives = deed{begun: "redrive begun", done: "dead letters redriven", do: (*queue.DeadLetters).Redrive}
	discards = deed{begun: "discard begun", done: "dead letters discarded", forever: true, do: (*queue.DeadLetters).Discard}
)

// acting answers a request to act. Who wants what done is on disk before it is begun, and what came of it before it is answered.
func (h *Hub) acting(d deed) http.Handler {
	return asked(func(r *http.Request) (any, error) {
		act, err := readAct(r, d.forever)
		if err != nil {
			return nil, badQuestion{err}
		}
		who, _ := r.Context().Value(byWhom{}).(string)
		var acted QueueActed
		err = h.withQueue(r.Context(), act.Queue, func(ctx context.Context, k routemap.QueueKey, q *queue.Queue) error {
			dead, err := q.DeadLetters(ctx, k.Topic, k.Group)
			if err != nil {
				return err
			}
			if err := act.seen(ctx, dead); err != nil {
				return err
			}
			if err := h.store.PutEvents(ctx, []store.Event{h.event(d.begun, k, act.meant()+" by "+who, false)}); err != nil {
				return fmt.Errorf("nothing was done, as it cannot be noted who does it: %w", err)
			}
			acted.Done, err = act.on(ctx, dead, d.do)
			if err = errors.Join(err, h.acted(ctx, d.done, who, k, acted.Done, err)); err != nil {
				acted.Error = err.Error()
			}
			if st, err := q.GroupStats(ctx, k.Topic, k.Group); err == nil {
				acted.Left = st.Dead
			}
			return nil
		})
		return acted, err
	})
}

// readAct reads what is asked for, of letters that are known to who asks if it is forever.
func readAct(r *http.Request, forever bool) (act QueueAct, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != typeJSON {
		return act, fmt.Errorf("the body is to be %s", typeJSON)
	}
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxActBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(&act); err != nil {
		return act, fmt.Errorf("the body is none that can be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return act, errors.New("the body has more than one value")
	}
	switch {
	case act.All == (len(act.Sequences) > 0):
		return act, errors.New("say which dead letters: their sequences, or all")
	case !act.All && act.UpTo > 0:
		return act, errors.New("upTo is for all: sequences say themselves which they are")
	case act.All && act.UpTo == 0 && forever:
		return act, errors.New("say up to which dead letter, so that none is discarded that nobody has seen: upTo, as /api/v1/queues/dead tells it as last")
	case act.Limit < 0 || act.Limit > maxActed || len(act.Sequences) > maxActed:
		return act, fmt.Errorf("%d at most at once", maxActed)
	}
	if act.Limit == 0 {
		act.Limit = maxActed
	}
	return act, nil
}

// seen refuses an upTo that nobody can have been told yet.
func (a *QueueAct) seen(ctx context.Context, dead *queue.DeadLetters) error {
	if a.UpTo == 0 {
		return nil
	}
	_, last, err := dead.Count(ctx)
	if err == nil && a.UpTo > last {
		err = badQuestion{fmt.Errorf("upTo is %d, and the last dead letter has had the sequence %d: ask for them again", a.UpTo, last)}
	}
	return err
}

// meant says which dead letters are.
func (a *QueueAct) meant() string {
	if !a.All {
		return fmt.Sprintf("%d named", len(a.Sequences))
	}
	text := "all"
	if a.Limit < maxActed {
		text = fmt.Sprintf("%d at most of all", a.Limit)
	}
	if a.UpTo > 0 {
		text += fmt.Sprintf(" up to sequence %d", a.UpTo)
	}
	return text
}

// on does something with the dead letters that are meant, and tells with how many it has.
func (a *QueueAct) on(ctx context.Context, dead *queue.DeadLetters, do func(*queue.DeadLetters, context.Context, func(*queue.DeadLetter) bool) (int, error)) (int, error) {
	most := a.Limit
	meant := make(map[uint64]bool, len(a.Sequences))
	for _, seq := range a.Sequences {
		meant[seq] = true
	}
	if !a.All {
		most = min(most, len(meant))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	met, over := 0, false
	n, err := do(dead, ctx, func(l *queue.DeadLetter) bool {
		if over = met == most || a.UpTo > 0 && l.Sequence > a.UpTo; over {
			cancel() // the rest is not looked at
			return false
		}
		if !a.All && !meant[l.Sequence] {
			return false
		}
		met++
		return true
	})
	if over {
		err = nil
	}
	return n, err
}

// acted has it remembered who did what. If that cannot be kept now, it is held in memory until it can.
func (h *Hub) acted(ctx context.Context, what, who string, k routemap.QueueKey, n int, failed error) error {
	detail := fmt.Sprintf("%d by %s", n, who)
	if failed != nil {
		detail += ": " + failed.Error()
	}
	h.log.Info("hub: "+what, "topic", k.Topic, "group", k.Group, "letters", n, "by", who, "error", failed)
	e := h.event(what, k, detail, failed != nil)
	if err := h.store.PutEvents(context.WithoutCancel(ctx), []store.Event{e}); err != nil { // who asks may be gone
		h.agents.note(e)
		return fmt.Errorf("what was done is not noted on disk yet: %w", err)
	}
	return nil
}

// event is one of the hub's own, of now.
func (h *Hub) event(kind string, k routemap.QueueKey, detail string, failed bool) store.Event {
	now := h.cfg.clock().UTC()
	return store.Event{
		First: now, Last: now, Count: 1, Service: hubService, Host: h.self.GetHost(), PID: int64(os.Getpid()), Kind: kind, Subject: shortName(k.Topic + " " + k.Group), Detail: shortName(detail), Error: failed,
	}
}

// shortName is a text as events have it.
func shortName(s string) string {
	s = strings.ToValidUTF8(s, "?")
	for len(s) > maxReportName {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// withQueue has f act on the queue of an ID, one at a time.
func (h *Hub) withQueue(ctx context.Context, id string, f func(context.Context, routemap.QueueKey, *queue.Queue) error) error {
	k, known := h.agents.queues.find(id)
	if !known {
		return notThere{fmt.Errorf("no process has told of a queue of the ID %.64q in the last %s", id, processGoneAfter)}
	}
	if k.Group == "" {
		return badQuestion{fmt.Errorf("nobody has subscribed to the topic %q: it has no dead letters", k.Topic)}
	}
	if err := h.acts.take(ctx); err != nil {
		return err
	}
	defer h.acts.give()
	ctx, cancel := context.WithTimeout(ctx, actWithin)
	defer cancel()
	q, done, err := h.reach(ctx, k)
	if err != nil {
		return conflict{err}
	}
	err = f(ctx, k, q)
	return errors.Join(err, done())
}

// conflict is an error of what cannot be done here.
type conflict struct{ error }

// reach connects to the server that has a topic: one of the hub's own, or that in a folder of this host and user. What a process has said of where it is, is not believed: the
// topic that is there has to be the one that is meant.
func (h *Hub) reach(ctx context.Context, k routemap.QueueKey) (*queue.Queue, func() error, error) {
	silent := false
	for _, q := range h.nats.all() {
		err := is(ctx, q, k)
		if err == nil {
			return q, func() error { return nil }, nil
		}
		silent = silent || errors.Is(err, context.DeadlineExceeded)
	}
	at, _ := h.agents.queues.where(topicName{k.Topic, k.Created})
	dir, isFolder := strings.CutPrefix(at.where, "unix:")
	switch {
	case !isFolder && silent:
		return nil, nil, fmt.Errorf("the topic is on %q, and a NATS server that the hub looks at does not answer: try again, or use stile queue --url", at.where)
	case !isFolder:
		return nil, nil, fmt.Errorf("the topic is on %q, which the hub does not know: start it with --nats-url, or use stile queue --url", at.where)
	case at.boot != h.self.GetBoot():
		return nil, nil, fmt.Errorf("the topic is in the folder %q of another host: use stile queue --dir there", dir)
	case at.uid != int64(os.Getuid()):
		return nil, nil, fmt.Errorf("the folder %q is of the user %d, and the hub of %d: use stile queue --dir as that user", dir, at.uid, os.Getuid())
	}
	real, err := ownFolder(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("the folder %q is not entered: %w", dir, err)
	}
	q, err := queue.Open(ctx, queue.Config{URL: "unix:" + real, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	if err := is(ctx, q, k); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the folder %q: %w", dir, err), q.Close())
	}
	return q, q.Close, nil
}

// is tells whether a server has the topic that is meant, and not another one of its name.
func is(ctx context.Context, q *queue.Queue, k routemap.QueueKey) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	t, err := q.Topic(ctx, k.Topic)
	if err != nil {
		return err
	}
	if t.Created.UnixNano() != k.Created {
		return fmt.Errorf("it has a topic %q, and that is another one", k.Topic)
	}
	return nil
}
