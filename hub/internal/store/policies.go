package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// PolicyID names a version of a policy by its text.
type PolicyID [16]byte

// String is 32 hex digits.
func (id PolicyID) String() string { return hex.EncodeToString(id[:]) }

// PolicySource is where versions of a policy come from. One without a name was made in a service's code.
type PolicySource struct{ Name, Service string }

// Policy is a version that is in force somewhere, with its text if that was told.
type Policy struct {
	Source  PolicySource
	ID      PolicyID
	Version string // as it calls itself
	Text    string
	Since   time.Time // it is in force there
}

// PolicyVersion is what is known of a version of a source.
type PolicyVersion struct {
	Policy
	First time.Time // that a process had it in force, by its clock
	Seen  time.Time // the last, to some minutes
	Kept  bool      // its text is
}

// What is kept of policies: of more, those go that were not seen for longest. Tests have it less.
var (
	maxPolicyTexts = 1000
	maxPolicyBytes = int64(16 << 20)
	maxPolicySeen  = 10_000 // versions of sources
)

const (
	policiesKept    = 90 * 24 * time.Hour // after they were seen last
	policySeenEvery = 5 * time.Minute
)

// policyTables are of version 3, too, and made where they are not.
const policyTables = `
CREATE TABLE IF NOT EXISTS policies (id BLOB PRIMARY KEY, text TEXT NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS policies_seen (source TEXT NOT NULL, service TEXT NOT NULL, id BLOB NOT NULL, version TEXT NOT NULL, first INTEGER NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (source, service, id)) WITHOUT ROWID;
`

// policyKey is a version of a source.
type policyKey struct {
	source PolicySource
	id     PolicyID
}

// PutPolicies keeps that versions are in force now, and their texts: all or none.
func (s *Store) PutPolicies(ctx context.Context, now time.Time, all []Policy) error {
	var fresh []Policy
	for _, p := range all {
		if at, known := s.policies[policyKey{p.Source, p.ID}]; !known || p.Text != "" || now.Sub(at) >= policySeenEvery || now.Before(at) {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of no effect after Commit
	run := func(query string, args ...any) {
		if err == nil {
			_, err = tx.ExecContext(ctx, query, args...)
		}
	}
	at := now.UnixNano()
	for _, p := range fresh {
		run("INSERT INTO policies_seen (source, service, id, version, first, seen) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET seen = excluded.seen, version = excluded.version, first = min(first, excluded.first)",
			p.Source.Name, p.Source.Service, p.ID[:], p.Version, min(p.Since.UnixNano(), at), at)
		if p.Text != "" {
			run("INSERT INTO policies (id, text, seen) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", p.ID[:], p.Text, at)
		}
		run("UPDATE policies SET seen = ? WHERE id = ?", at, p.ID[:])
	}
	before := now.Add(-policiesKept).UnixNano()
	run("DELETE FROM policies_seen WHERE seen < ?", before)
	run("DELETE FROM policies WHERE seen < ?", before)
	run("DELETE FROM policies_seen WHERE (source, service, id) IN (SELECT source, service, id FROM policies_seen ORDER BY seen DESC, first DESC LIMIT -1 OFFSET ?)", maxPolicySeen)
	run(`DELETE FROM policies WHERE id IN (SELECT id FROM (SELECT id, sum(length(CAST(text AS BLOB))) OVER newest AS bytes, row_number() OVER newest AS n FROM policies WINDOW newest AS (ORDER BY seen DESC, id ROWS UNBOUNDED PRECEDING))
		WHERE bytes > ? OR n > ?)`, min(maxPolicyBytes, s.most/8), maxPolicyTexts)
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return err
	}
	if s.policies == nil || len(s.policies) > 2*maxPolicySeen {
		s.policies = map[policyKey]time.Time{}
	}
	for _, p := range fresh {
		s.policies[policyKey{p.Source, p.ID}] = now
	}
	return nil
}

// Policies returns all versions that are known, without their texts.
func (s *Store) Policies(ctx context.Context) ([]PolicyVersion, error) {
	rows, err := s.view.QueryContext(ctx, "SELECT source, service, id, version, first, seen, EXISTS (SELECT 1 FROM policies WHERE id = p.id) FROM policies_seen AS p ORDER BY source, service, first, id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []PolicyVersion{}
	for rows.Next() {
		var v PolicyVersion
		var id []byte
		var first, seen int64
		if err := rows.Scan(&v.Source.Name, &v.Source.Service, &id, &v.Version, &first, &seen, &v.Kept); err != nil {
			return nil, err
		}
		copy(v.ID[:], id)
		v.First, v.Seen = time.Unix(0, first).UTC(), time.Unix(0, seen).UTC()
		all = append(all, v)
	}
	return all, rows.Err()
}

// ErrNoPolicy: there is no version whose ID begins so, or its text is not kept; ErrManyPolicies: there is more than one.
var (
	ErrNoPolicy     = errors.New("no version of which the text is kept")
	ErrManyPolicies = errors.New("more than one version")
)

// PolicyText returns the text of the version whose ID begins with some hex digits.
func (s *Store) PolicyText(ctx context.Context, prefix string) (id PolicyID, text string, err error) {
	rows, err := s.view.QueryContext(ctx, "SELECT id, text FROM policies WHERE substr(lower(hex(id)), 1, ?) = ? LIMIT 2", len(prefix), prefix)
	if err != nil {
		return id, "", err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var found []byte
		if err := rows.Scan(&found, &text); err != nil {
			return id, "", err
		}
		copy(id[:], found)
	}
	switch {
	case rows.Err() != nil:
		return id, "", rows.Err()
	case n == 0:
		return id, "", fmt.Errorf("%w begins with %q", ErrNoPolicy, prefix)
	case n > 1:
		return id, "", fmt.Errorf("%w begins with %q", ErrManyPolicies, prefix)
	}
	return id, text, nil
}
