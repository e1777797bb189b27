package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"sync"

	"github.com/stile-ipc/stile/routemap"
)

// keys are those of the routes of a chunk, by place. A number is never given to another route.
type keys [chunkRoutes]*routemap.Key

const (
	// numbersHeld is how many routes are known to the one that writes without a look into the file.
	numbersHeld = 100_000
	// keysHeld is for how many chunks their keys are known to those that read.
	keysHeld = 4_000
	// seenEvery is how exactly it is noted when a route was there last, in seconds.
	seenEvery = 3600
)

// known is what is known of routes without a look into the file. It is safe for concurrent use.
type known struct {
	mu      sync.Mutex
	numbers map[routemap.Key]numbered
	keys    map[int64]*keys
}

type numbered struct {
	number int64
	seen   int64 // the end of a window that had it, as the file has it
}

// writing is a transaction that writes, and what is to be known when it is committed.
type writing struct {
	*sql.Tx
	numbers map[routemap.Key]numbered
}

func (k *known) number(key routemap.Key) (numbered, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, has := k.numbers[key]
	return n, has
}

// note takes in what a transaction has written.
func (k *known) note(numbers map[routemap.Key]numbered) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.numbers == nil || len(k.numbers)+len(numbers) > numbersHeld {
		k.numbers = map[routemap.Key]numbered{}
	}
	for key, n := range numbers {
		k.numbers[key] = n
	}
}

// forget is for when routes were taken away.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.numbers = nil
}

// number is that of a route, which gets one if it has none, and is noted to be there until a window ends.
func (s *Store) number(ctx context.Context, tx *writing, k routemap.Key, until int64) (int64, error) {
	n, has := tx.numbers[k]
	if !has {
		n, has = s.known.number(k)
	}
	if has && until <= n.seen+seenEvery {
		return n.number, nil
	}
	text, err := json.Marshal(k)
	if err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, "UPDATE routes SET seen = max(seen, ?) WHERE key = ? RETURNING id, seen", until, string(text)).Scan(&n.number, &n.seen)
	if errors.Is(err, sql.ErrNoRows) { // INSERT with ON CONFLICT would use up a number each time
		err = tx.QueryRowContext(ctx, "INSERT INTO routes (key, name, service, seen) VALUES (?, ?, ?, ?) RETURNING id, seen",
			string(text), signed(k.ID()), signed(asService(k).ID()), until).Scan(&n.number, &n.seen)
	}
	tx.numbers[k] = n
	return n.number, err
}

// asService is a route's key as it is if who is called turns out to be a service.
func asService(k routemap.Key) routemap.Key {
	if k.To.Kind == routemap.External {
		k.To.Kind = routemap.Service
	}
	return k
}

// signed is the number of an ID, as SQLite has it.
func signed(id string) int64 {
	n, _ := strconv.ParseUint(id, 16, 64)
	return int64(n)
}

// keysOf are the keys of a chunk's routes. They are remembered if none can be added any more, which a transaction that writes cannot know.
func (s *Store) keysOf(ctx context.Context, q querier, chunk int64) (*keys, error) {
	s.known.mu.Lock()
	of := s.known.keys[chunk]
	s.known.mu.Unlock()
	if of != nil {
		return of, nil
	}
	rows, err := q.QueryContext(ctx, "SELECT id, key FROM routes WHERE id >= ?1 AND id < ?1 + ?2", chunk*chunkRoutes, chunkRoutes)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	of = new(keys)
	for rows.Next() {
		var number int64
		var text []byte
		if err := rows.Scan(&number, &text); err != nil {
			return nil, err
		}
		k := new(routemap.Key)
		if json.Unmarshal(text, k) == nil { // else its windows are damaged
			of[number%chunkRoutes] = k
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if _, writes := q.(*writing); !writes {
		var last int64
		if err := q.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'routes'").Scan(&last); err != nil {
			return nil, err
		}
		if last >= (chunk+1)*chunkRoutes {
			s.known.remember(chunk, of)
		}
	}
	return of, nil
}

func (k *known) remember(chunk int64, of *keys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= keysHeld {
		k.keys = map[int64]*keys{}
	}
	k.keys[chunk] = of
}
