package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// tracesKept is for how long whole traces are kept: as long as windows of minutes.
const tracesKept = 24 * time.Hour

// traceShare is which part of all bytes traces may have.
const traceShare = 4

// traceRow is about how many bytes a trace has beside its block.
const traceRow = 60

// Traces are those of a window that are kept, and of how many.
type Traces struct {
	Seen uint64
	Kept []Kept
}

// ErrNoTrace: the trace is not kept.
var ErrNoTrace = errors.New("the trace is not kept: of a window, a few hundred are")

// putTraces adds the traces of a window.
func putTraces(ctx context.Context, tx *sql.Tx, start time.Time, t *Traces) error {
	if t == nil || t.Seen == 0 {
		return nil
	}
	id, err := tx.PrepareContext(ctx, "REPLACE INTO traces (trace, start, block, place, spans) VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer id.Close()
	var block int64
	at, size := start.Unix(), 0
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(block) + 1, 0) FROM blocks WHERE start = ?", at).Scan(&block); err != nil {
		return err
	}
	for part := range slices.Chunk(t.Kept, blockTraces) {
		data := encodeBlock(part)
		size += len(data) + traceRow*len(part)
		if _, err := tx.ExecContext(ctx, "INSERT INTO blocks (start, block, data) VALUES (?, ?, ?)", at, block, data); err != nil {
			return err
		}
		for i, k := range part {
			if _, err := id.ExecContext(ctx, traceKey(k.ID), at, block, i, len(k.Spans)); err != nil {
				return err
			}
		}
		block++
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO samples (start, seen, kept, bytes) VALUES (?, ?, ?, ?) ON CONFLICT (start) DO UPDATE SET seen = seen + excluded.seen, kept = kept + excluded.kept, bytes = bytes + excluded.bytes",
		at, t.Seen, len(t.Kept), size)
	return err
}

// forgetTraces takes away those of windows that began before a time.
func forgetTraces(ctx context.Context, tx *sql.Tx, before int64) error {
	for _, table := range []string{"samples", "blocks", "traces"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE start < ?", before); err != nil {
			return err
		}
	}
	return nil
}

// fitTraces takes away the traces that are too old, and the oldest of those that are too much.
func (s *Store) fitTraces(ctx context.Context, now time.Time) error {
	return s.transact(ctx, func(tx *writing) error {
		before := now.Add(-tracesKept).Unix()
		var last int64
		err := tx.QueryRowContext(ctx, "SELECT start FROM (SELECT start, sum(bytes) OVER (ORDER BY start DESC) AS total FROM samples) WHERE total > ? ORDER BY start DESC LIMIT 1", s.most/traceShare).Scan(&last)
		switch {
		case err == nil:
			before = max(before, last+1)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		return forgetTraces(ctx, tx.Tx, before)
	})
}

// Filter says which traces are asked for.
type Filter struct {
	Route    string // ID of a route that they have; empty: any
	Min, Max time.Duration
	Limit    int
}

// Listed is what a list says of a trace: of its first span, and of all.
type Listed struct {
	ID, Service, Name string
	Start, Duration   int64 // ns
	Spans             int
	Failed            bool
	Why               Why
	Call              int64 // ns: the longest of its calls that are asked for, if a route is
}

// List is what there is of traces in a stretch of time.
type List struct {
	Traces     []Listed // the newest first
	Seen, Kept int64
	Damaged    int // blocks that could not be read
}

// late is how long after its end a trace may be complete, at most, to be looked for where it ended: it has to be quiet first, and what processes report comes in their windows.
const late = time.Minute

// List lists the traces of a stretch of time of which the duration, or that of any of their calls of a route, lies between Min and Max; of these 0 is none. They were complete in that time, or
// ended in it and were complete soon after: what processes count of their calls is of when they ended.
func (s *Store) List(ctx context.Context, from, to time.Time, f Filter) (*List, error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	first, last := from.Add(-Finest).Unix(), to.Add(time.Second-1).Unix() // not these
	out := &List{}
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(sum(seen), 0), coalesce(sum(kept), 0) FROM samples WHERE start > ? AND start < ?", first, last).Scan(&out.Seen, &out.Kept); err != nil {
		return nil, err
	}
	var routes []string
	if f.Route != "" {
		if routes, err = aliases(ctx, tx, f.Route); err != nil {
			return nil, err
		}
	}
	rows, err := tx.QueryContext(ctx, "SELECT start, data FROM blocks WHERE start > ? AND start < ? ORDER BY start DESC, block", first, to.Add(late).Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	done, window := 0, int64(0) // of a window that is not done, later blocks may have newer ones
	for rows.Next() {
		var start int64
		var data sql.RawBytes
		if err := rows.Scan(&start, &data); err != nil {
			return nil, err
		}
		if start != window {
			if done, window = len(out.Traces), start; done >= f.Limit {
				break
			}
		}
		asked := func(*Kept) bool { return true }
		if start >= last {
			began := time.Unix(start, 0)
			asked = func(t *Kept) bool {
				end := time.Unix(0, t.Start+t.Duration)
				return !end.Before(from) && end.Before(to) && began.Sub(end) <= late
			}
		}
		if f.read(data, routes, asked, out) != nil {
			out.Damaged++
		}
		slices.SortStableFunc(out.Traces[done:], func(a, b Listed) int { return cmp.Compare(b.Start, a.Start) })
		out.Traces = out.Traces[:min(len(out.Traces), f.Limit)]
	}
	return out, rows.Err()
}

// read adds those of a block that are asked for.
func (f *Filter) read(data []byte, routes []string, asked func(*Kept) bool, out *List) error {
	r, err := openBlock(data)
	if err != nil || f.Route != "" && !r.has(routes) {
		return err
	}
	for {
		t, err := r.next()
		if t == nil || err != nil {
			return err
		}
		if call, is := f.matches(t, routes); is && len(t.Spans) > 0 && asked(t) {
			out.Traces = append(out.Traces, Listed{t.ID, t.Spans[0].Service, t.Spans[0].Name, t.Start, t.Duration, len(t.Spans), t.Failed, t.Why, call})
		}
	}
}

// matches tells whether a trace is asked for, and how long the longest of its calls took that are.
func (f *Filter) matches(t *Kept, routes []string) (call int64, found bool) {
	between := func(ns int64) bool { return ns >= int64(f.Min) && (f.Max == 0 || ns <= int64(f.Max)) }
	if f.Route == "" {
		return 0, between(t.Duration)
	}
	t.Calls(func(route string, took int64) {
		if between(took) && slices.Contains(routes, route) {
			call, found = max(call, took), true
		}
	})
	return call, found
}

// Trace returns a trace that is kept, and its window. Of one that came in parts it is the one of most spans. [ErrNoTrace] is returned if it is not kept.
func (s *Store) Trace(ctx context.Context, id string) (*routemap.Timeline, Window, error) {
	var start int64
	var place int
	var data []byte
	err := s.view.QueryRowContext(ctx, "SELECT start, place, data FROM traces JOIN blocks USING (start, block) WHERE trace = ? ORDER BY spans DESC, start LIMIT 1", traceKey(id)).Scan(&start, &place, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, Window{}, ErrNoTrace
	}
	if err != nil {
		return nil, Window{}, err
	}
	w := Window{Start: time.Unix(start, 0).UTC(), Long: Finest}
	r, err := openBlock(data)
	for i := 0; err == nil; i++ {
		var t *Kept
		if t, err = r.next(); err == nil && t == nil {
			err = errDamaged
		}
		if err == nil && i == place {
			return t.Timeline, w, nil
		}
	}
	return nil, w, err
}
