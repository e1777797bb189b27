package store

import (
	"context"
	"database/sql"
	"time"
)

// Event is what a process has told of. Like ones of a window are one.
type Event struct {
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Count   uint64    `json:"count"`
	Service string    `json:"service"`
	Host    string    `json:"host"`
	PID     int64     `json:"pid"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
	Trace   string    `json:"trace,omitempty"`
	Error   bool      `json:"error"`
}

// OwnService is of the hub's own events, such as who did what. They are kept apart from those that processes tell.
const OwnService = "stile hub"

// How many are kept, of processes and of the hub's own: of more the oldest are not. Tests have it less.
var maxEvents, maxOwnEvents = 50_000, 5_000

const (
	eventShare = 8   // which part of all bytes events may have
	eventRow   = 100 // about how many bytes one has beside its texts
)

// fitEvents takes away the oldest of those that are too much, but for the hub's own.
func (s *Store) fitEvents(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM events WHERE id <= (SELECT max(id) FROM (SELECT id,
		sum(? + octet_length(service) + octet_length(host) + octet_length(kind) + octet_length(subject) + octet_length(detail) + octet_length(trace)) OVER (ORDER BY id DESC) AS total FROM events WHERE service != ?) WHERE total > ?) AND service != ?`,
		eventRow, OwnService, s.most/eventShare, OwnService)
	return err
}

// PutEvents keeps events, all or none.
func (s *Store) PutEvents(ctx context.Context, all []Event) error {
	if len(all) == 0 {
		return nil
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of no effect after Commit
	put, err := tx.PrepareContext(ctx, "INSERT INTO events (first, last, count, service, host, pid, kind, subject, detail, trace, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	own := false
	for i, e := range all {
		if own = own || e.Service == OwnService; i < len(all)-maxEvents && e.Service != OwnService {
			continue
		}
		if _, err := put.ExecContext(ctx, e.First.UnixNano(), e.Last.UnixNano(), int64(e.Count), e.Service, e.Host, e.PID, e.Kind, e.Subject, e.Detail, e.Trace, e.Error); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ? AND service != ?", maxEvents, OwnService); err != nil {
		return err
	}
	if own {
		if _, err := tx.ExecContext(ctx, "DELETE FROM events WHERE service = ? AND id <= (SELECT id FROM events WHERE service = ? ORDER BY id DESC LIMIT 1 OFFSET ?)", OwnService, OwnService, maxOwnEvents); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Events returns what happened in a stretch of time, the newest first, limit at most: of a service and of a kind, if they are not empty.
func (s *Store) Events(ctx context.Context, from, to time.Time, service, kind string, limit int) (all []Event, err error) {
	rows, err := s.view.QueryContext(ctx, `SELECT first, last, count, service, host, pid, kind, subject, detail, trace, error FROM events
		WHERE first < ? AND last >= ? AND (? = '' OR service = ?) AND (? = '' OR kind = ?) ORDER BY first DESC, id DESC LIMIT ?`,
		to.UnixNano(), from.UnixNano(), service, service, kind, kind, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all = []Event{}
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

func scanEvent(rows *sql.Rows) (e Event, err error) {
	var first, last, count int64
	err = rows.Scan(&first, &last, &count, &e.Service, &e.Host, &e.PID, &e.Kind, &e.Subject, &e.Detail, &e.Trace, &e.Error)
	e.First, e.Last, e.Count = time.Unix(0, first).UTC(), time.Unix(0, last).UTC(), uint64(count)
	return e, err
}
