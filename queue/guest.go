package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// keeper makes receipts true.
type keeper interface {
	// append returns when records are kept as a level has it. It keeps nothing of what they point to.
	append(ctx context.Context, d Durability, records ...redo.Record) error
	close() error
}

// logKeeper is the log of this process's folder.
type logKeeper struct{ *redo.Log }

func (l logKeeper) append(_ context.Context, d Durability, records ...redo.Record) error {
	if d == Bounded {
		return l.AppendLater(records...)
	}
	return l.Append(records...)
}

func (l logKeeper) close() error { return l.Log.Close() }

// guest asks the process that has the folder.
type guest struct{ nc *nats.Conn }

// guestPatience is how long one answer is waited for; a host that lives answers or is asked again.
const guestPatience = 3 * time.Second

func (g guest) append(ctx context.Context, d Durability, records ...redo.Record) error {
	req := hostRequest{Do: hostKeep, Level: d}
	for _, r := range records {
		h := hostRecord{Stream: r.Stream, Created: r.Created, Sequence: r.Seq, Deleted: r.Deleted}
		if r.Deleted {
			h.Subject, h.ID = r.Subject, string(r.Data)
		}
		req.Records = append(req.Records, h)
	}
	_, err := g.ask(ctx, req)
	return err
}

func (g guest) close() error { return nil }

// ask asks until there is an answer: the host may be starting again.
func (g guest) ask(ctx context.Context, req hostRequest) (a hostAnswer, err error) {
	data, err := json.Marshal(req)
	if err != nil {
		return a, err
	}
	ctx, cancel := within(ctx, publishLimit)
	defer cancel()
	for {
		a, err = g.once(ctx, data)
		switch {
		case err == nil && a.Error == "":
			return a, nil
		case err == nil && !a.Again:
			return a, fmt.Errorf("the process that has the folder: %s", a.Error)
		case errors.Is(err, nats.ErrConnectionClosed):
			return a, ErrClosed
		}
		select {
		case <-time.After(againAfter):
		case <-ctx.Done():
			return a, fmt.Errorf("%w: the process that has the folder does not say that it is on disk: %w", ErrNoAnswer, ctx.Err())
		}
	}
}

func (g guest) once(ctx context.Context, data []byte) (a hostAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	m, err := g.nc.RequestWithContext(ctx, hostSubject, data)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(m.Data, &a)
}
