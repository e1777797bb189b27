package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// asker publishes to streams and hands out the answers: what jetstream.PublishMsgAsync does, for half of its cost. All answers come
// to one subscription.
type asker struct {
	nc     *nats.Conn
	inbox  string // what subjects of answers begin with
	timers sync.Pool

	mu      sync.Mutex
	last    uint64 // question
	waiting map[string]question
	free    []chan answer
}

// question is a message that waits for its answer.
type question struct {
	subject string
	answer  chan answer
}

// answer is what a stream says of a message.
type answer struct {
	Sequence  uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
	denied    error
}

func newAsker(nc *nats.Conn) (*asker, error) {
	a := &asker{nc: nc, inbox: nc.NewRespInbox() + ".", waiting: map[string]question{}}
	sub, err := nc.Subscribe(a.inbox+"*", a.heed)
	if err != nil {
		return nil, err
	}
	return a, sub.SetPendingLimits(-1, -1) // there are no more than questions
}

// ask publishes a message, whose Reply is the asker's, and waits for the answer.
func (a *asker) ask(ctx context.Context, msg *nats.Msg) (answer, error) {
	token, c := a.expect(msg.Subject)
	msg.Reply = a.inbox + token
	if err := a.nc.PublishMsg(msg); err != nil {
		a.forget(token)
		return answer{}, err
	}
	late := a.timer()
	defer a.putTimer(late)
	var err error
	select {
	case got := <-c:
		a.reuse(c)
		switch {
		case got.denied != nil:
			return answer{}, got.denied
		case got.Error != nil:
			return answer{}, got.Error
		}
		return got, nil
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", nats.ErrTimeout, ctx.Err())
	case <-late.C:
		err = nats.ErrTimeout
	}
	a.forget(token)
	return answer{}, err
}

// expect returns where the next answer will come.
func (a *asker) expect(subject string) (token string, c chan answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.free); n > 0 {
		c, a.free = a.free[n-1], a.free[:n-1]
	} else {
		c = make(chan answer, 1)
	}
	a.last++
	token = strconv.FormatUint(a.last, 36)
	a.waiting[token] = question{subject, c}
	return token, c
}

func (a *asker) reuse(c chan answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = append(a.free, c)
}

// forget ends a wait. The channel may just have been sent an answer, so it is not used again.
func (a *asker) forget(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, token)
}

// heed takes in an answer.
func (a *asker) heed(m *nats.Msg) {
	token := m.Subject[len(a.inbox):]
	a.mu.Lock()
	q, ok := a.waiting[token]
	delete(a.waiting, token)
	a.mu.Unlock()
	if ok {
		q.answer <- readAnswer(m) // has room: each token is answered once
	}
}

// denied answers the messages to a subject that the user may not publish to: the server says it to the connection alone. It
// reports whether there were any.
func (a *asker) denied(err error) (found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for token, q := range a.waiting {
		if strings.Contains(err.Error(), strconv.Quote(q.subject)) {
			delete(a.waiting, token)
			q.answer <- answer{denied: err}
			found = true
		}
	}
	return found
}

var (
	beginsWell = []byte(`{"stream":"`)
	seqIs      = []byte(`","seq":`)
)

// readAnswer reads what a server writes nearly always, {"stream":"NAME","seq":N}, and leaves the rest to package json.
func readAnswer(m *nats.Msg) (a answer) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return answer{Error: noResponders}
	}
	if rest, ok := bytes.CutPrefix(m.Data, beginsWell); ok {
		_, digits, _ := bytes.Cut(rest, seqIs)
		if digits, ok = bytes.CutSuffix(digits, []byte("}")); ok {
			seq, err := strconv.ParseUint(string(digits), 10, 64)
			if err == nil && seq != 0 {
				return answer{Sequence: seq}
			}
		}
	}
	if err := json.Unmarshal(m.Data, &a); err != nil || a.Error == nil && a.Sequence == 0 {
		a.Error = &jetstream.APIError{Description: fmt.Sprintf("an answer that is none: %.100q", m.Data)}
	}
	return a
}

// noResponders stands for nobody who listens to the subject: there is no such stream, or its server is away.
var noResponders = &jetstream.APIError{Code: 503, Description: "nobody has the topic now"}

func (a *asker) timer() *time.Timer {
	if t, ok := a.timers.Get().(*time.Timer); ok {
		t.Reset(answerWithin)
		return t
	}
	return time.NewTimer(answerWithin)
}

func (a *asker) putTimer(t *time.Timer) {
	t.Stop()
	a.timers.Put(t)
}
