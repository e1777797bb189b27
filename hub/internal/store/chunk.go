package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/routemap"
)

const (
	// chunkRoutes is how many numbers of routes one chunk is of: the less, the faster is one route read; the more, a window.
	chunkRoutes = 64
	// restChunk is the one that has the rest of a map.
	restChunk = -1
	// chunkVersion is the first byte of a chunk.
	chunkVersion = 1
)

// entry is what is stored of a route, by its place in its chunk.
type entry struct {
	place int
	data  []byte
}

// encodeChunk writes a version, and of each route its place and its data. A checksum ends it.
func encodeChunk(b []byte, entries []entry) []byte {
	b = binary.AppendUvarint(append(b, chunkVersion), uint64(len(entries)))
	for _, e := range entries {
		b = binary.AppendUvarint(append(b, byte(e.place)), uint64(len(e.data)))
		b = append(b, e.data...)
	}
	return packed.Seal(b)
}

// readChunk calls found for each of the entries of a chunk without its checksum.
func readChunk(body []byte, found func(place int, data []byte) error) error {
	r := packed.NewReader(body)
	if r.Below(chunkVersion+1) != chunkVersion {
		return errDamaged
	}
	for range r.Count(2) {
		place := r.Below(chunkRoutes)
		data := r.Bytes(r.Count(1))
		if r.Err() != nil {
			break
		}
		if err := found(place, data); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if r.End() != nil {
		return errDamaged
	}
	return nil
}

// place is where a route is, by its number.
func place(number int64) (chunk int64, place int) {
	return number / chunkRoutes, int(number % chunkRoutes)
}

// put writes a window. The keys that it has numbered are noted when it is committed.
func (s *Store) put(ctx context.Context, tx *writing, w Window, m *routemap.Map) error {
	level, start := seconds(w.Long), w.Start.Unix()
	byChunk := map[int64][]entry{}
	var arena []byte
	rest, err := m.Store(func(k routemap.Key, data []byte) error {
		number, err := s.number(ctx, tx, k, w.End().Unix())
		if err != nil {
			return err
		}
		if len(arena)+len(data) > cap(arena) {
			arena = make([]byte, 0, max(1<<20, len(data)))
		}
		at := len(arena)
		arena = append(arena, data...)
		chunk, place := place(number)
		byChunk[chunk] = append(byChunk[chunk], entry{place, arena[at:len(arena):len(arena)]})
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM chunks WHERE level = ? AND start = ?", level, start); err != nil {
		return err
	}
	row, err := tx.PrepareContext(ctx, "INSERT INTO chunks (level, start, chunk, data) VALUES (?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer row.Close()
	size := 0
	write := func(chunk int64, data []byte) error {
		size += len(data)
		_, err := row.ExecContext(ctx, level, start, chunk, data)
		return err
	}
	if err := write(restChunk, packed.Seal(rest)); err != nil {
		return err
	}
	var data []byte
	for _, chunk := range sortedKeys(byChunk) {
		data = encodeChunk(data[:0], byChunk[chunk])
		if err := write(chunk, data); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "REPLACE INTO windows (level, start, bytes) VALUES (?, ?, ?)", level, start, size)
	return err
}

func sortedKeys(m map[int64][]entry) []int64 {
	all := make([]int64, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// drop takes away a window.
func drop(ctx context.Context, tx *sql.Tx, level, start int64) error {
	for _, table := range []string{"chunks", "windows"} {
		if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE level = ? AND start = ?", level, start); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO gone (level, until) VALUES (?1, ?2) ON CONFLICT (level) DO UPDATE SET until = max(until, ?2)", level, start+level)
	return err
}
