package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/routemap"
)

// page is a chunk with the keys that its routes have.
type page struct {
	number int64
	body   []byte // without its checksum
	keys   *keys
}

// fetch reads a window's chunks. One that is not as it was written is an error that is errDamaged.
func (s *Store) fetch(ctx context.Context, q querier, w Window) (all []page, err error) {
	rows, err := q.QueryContext(ctx, "SELECT chunk, data FROM chunks WHERE level = ? AND start = ? ORDER BY chunk", seconds(w.Long), w.Start.Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p page
		if err := rows.Scan(&p.number, &p.body); err != nil {
			return nil, err
		}
		if p.body, err = packed.Open(p.body); err != nil {
			return nil, errDamaged
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 || all[0].number != restChunk {
		return nil, errDamaged
	}
	for i := range all[1:] {
		p := &all[i+1]
		if p.keys, err = s.keysOf(ctx, q, p.number); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// decode merges a window's chunks into a map. Of one that is damaged some may be in the map.
func decode(all []page, m *routemap.Map) error {
	for _, p := range all {
		var err error
		if p.number == restChunk {
			err = m.Load(p.body)
		} else {
			err = readChunk(p.body, func(place int, data []byte) error {
				k := p.keys[place]
				if k == nil {
					return fmt.Errorf("no route has number %d", p.number*chunkRoutes+int64(place))
				}
				return m.LoadRoute(*k, data)
			})
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return nil
}

// load merges a window into a map; sql.ErrNoRows: it is not there. Of one that is damaged some may be in the map.
func (s *Store) load(ctx context.Context, q querier, w Window, m *routemap.Map) error {
	var bytes int64
	if err := q.QueryRowContext(ctx, "SELECT bytes FROM windows WHERE level = ? AND start = ?", seconds(w.Long), w.Start.Unix()).Scan(&bytes); err != nil {
		return err
	}
	all, err := s.fetch(ctx, q, w)
	if err != nil {
		return err
	}
	return decode(all, m)
}

// loadAll makes a map of windows, but for those that are damaged, which it returns.
func (s *Store) loadAll(ctx context.Context, q querier, all []Window) (m *routemap.Map, damaged []Window, err error) {
	m, damaged, spoilt, err := s.loadSome(ctx, q, all)
	if err == nil && spoilt { // with a checksum, and yet not to be read: some of them is in the map
		all = slices.DeleteFunc(slices.Clone(all), func(w Window) bool { return slices.Contains(damaged, w) })
		m, _, _, err = s.loadSome(ctx, q, all)
	}
	return m, damaged, err
}

// maxDecoding is how many windows of a map are decoded at once.
const maxDecoding = 4

type fetched struct {
	w     Window
	pages []page
}

// loading is a stretch of windows that is decoded, beside others.
type loading struct {
	feed chan fetched
	m    *routemap.Map
	bad  []Window
}

func (l *loading) run() {
	for f := range l.feed {
		if decode(f.pages, l.m) != nil {
			l.bad = append(l.bad, f.w)
		}
	}
}

// loadSome tells, besides, whether the map is spoilt by some of what is damaged.
func (s *Store) loadSome(ctx context.Context, q querier, all []Window) (m *routemap.Map, damaged []Window, spoilt bool, err error) {
	parts := make([]loading, max(min(runtime.GOMAXPROCS(0), maxDecoding, len(all)), 1))
	each := (len(all) + len(parts) - 1) / len(parts)
	var decoding sync.WaitGroup
	for i := range parts {
		parts[i] = loading{feed: make(chan fetched, 1), m: routemap.New()}
		decoding.Go(parts[i].run)
	}
	for j := 0; j < each*len(parts) && err == nil; j++ { // each part has windows that follow each other, and all have some to do
		part, at := &parts[j%len(parts)], j%len(parts)*each+j/len(parts)
		if at >= len(all) {
			continue
		}
		var pages []page
		switch pages, err = s.fetch(ctx, q, all[at]); {
		case err == nil:
			part.feed <- fetched{all[at], pages}
		case errors.Is(err, errDamaged):
			damaged, err = append(damaged, all[at]), nil
		default:
			err = fmt.Errorf("%s: %w", all[at], err)
		}
	}
	for i := range parts {
		close(parts[i].feed)
	}
	decoding.Wait()
	m = parts[0].m
	for i := range parts {
		damaged, spoilt = append(damaged, parts[i].bad...), spoilt || len(parts[i].bad) > 0
		if i > 0 {
			m.Absorb(parts[i].m)
		}
	}
	return m, damaged, spoilt, err
}
