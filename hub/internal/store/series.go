package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/routemap"
)

// ErrNoRoute: the windows that were asked for have no such route.
var ErrNoRoute = errors.New("there is no such route in these windows")

// Series is a route over time.
type Series struct {
	Key     routemap.Key
	Points  []Point
	Damaged int // windows that could not be read, and are left out
}

// Point is what is known of a route in a stretch of time; nil: it had no calls.
type Point struct {
	From, To time.Time
	Stats    *routemap.Stats
}

// Series reads a route by its ID, over as many stretches of equal length as points has it, or fewer. They begin and end with windows, and together have what
// Read has of the route. [ErrNoRoute] is returned if that is nothing.
func (s *Store) Series(ctx context.Context, from, to time.Time, id string, points int) (*Series, error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	all, gone, err := windows(ctx, tx, from, to)
	if err != nil {
		return nil, err
	}
	level := levelFor(all, gone, from, stretch(from, to, points, Finest))
	all = slices.DeleteFunc(all, func(w Window) bool { return w.Long > level })
	out := &Series{Points: cut(from, to, points, level)}
	chosen := cover(all, gone, from, to)
	routes, err := routesOf(ctx, tx, id, chosen)
	if err != nil {
		return nil, err
	}
	if len(routes) == 0 {
		return nil, ErrNoRoute
	}
	row, err := tx.PrepareContext(ctx, "SELECT data FROM chunks WHERE level = ? AND start = ? AND chunk = ?")
	if err != nil {
		return nil, err
	}
	defer row.Close()
	out.Key = routes[0].key
	known := false
	for i := range out.Points {
		p := &out.Points[i]
		n := 0
		for n < len(chosen) && chosen[n].Start.Before(p.To) {
			n++
		}
		var bad int
		if p.Stats, bad, err = statsOf(ctx, row, routes, chosen[:n]); err != nil {
			return nil, err
		}
		chosen, out.Damaged, known = chosen[n:], out.Damaged+bad, known || p.Stats != nil
	}
	if !known {
		return nil, ErrNoRoute
	}
	return out, nil
}

// stretch is how long each of so many parts is, in whole units.
func stretch(from, to time.Time, points int, unit time.Duration) time.Duration {
	d := to.Sub(from) / time.Duration(points)
	return max((d + unit - 1).Truncate(unit), unit)
}

// cut makes the stretches of a series, in whole windows of a level. If there are several they are the same whenever one asks.
func cut(from, to time.Time, points int, level time.Duration) (all []Point) {
	long := stretch(from, to, points, level)
	first := from.Truncate(long)
	for ; points > 1 && first.Add(time.Duration(points)*long).Before(to); first = from.Truncate(long) {
		long += level
	}
	if points == 1 {
		first = from.Truncate(level)
		long = stretch(first, to, 1, level)
	}
	for at := first.UTC(); at.Before(to); at = at.Add(long) {
		all = append(all, Point{From: at, To: at.Add(long)})
	}
	return all
}

// levelFor is the longest level that is no longer than a stretch; or the next one that is complete, if some of its windows are not there any more.
func levelFor(all []Window, gone gone, from time.Time, long time.Duration) (level time.Duration) {
	for i, l := range Levels() {
		missing := func(w Window) bool { return w.Long > level && !gone.told(w, from, level) }
		if i == 0 || l.Window <= long || slices.ContainsFunc(all, missing) {
			level = l.Window
		}
	}
	return level
}

// stored is a route under the number that the file has for it.
type stored struct {
	number int64
	key    routemap.Key // as the map names it
}

// routesOf are what is stored of a route: under its own name, and of a service also under that which it has where only its callers tell of it.
func routesOf(ctx context.Context, q querier, id string, chosen []Window) ([]stored, error) {
	own, told, err := named(ctx, q, id)
	if err != nil || len(told) == 0 {
		return own, err
	}
	service := routemap.Node{Kind: routemap.Service, Name: told[0].key.To.Name}
	known, err := namesService(ctx, q, service, chosen)
	if known {
		for _, r := range told {
			r.key.To = service
			own = append(own, r)
		}
	}
	return own, err
}

// named are the routes that have an ID, and those that have it if who is called is a service.
func named(ctx context.Context, q querier, id string) (own, told []stored, err error) {
	rows, err := q.QueryContext(ctx, "SELECT id, key, name = ?1 FROM routes WHERE name = ?1 OR service = ?1", signed(id))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r stored
		var text []byte
		var same bool
		if err := rows.Scan(&r.number, &text, &same); err != nil {
			return nil, nil, err
		}
		switch {
		case json.Unmarshal(text, &r.key) != nil: // as its windows are damaged
		case same:
			own = append(own, r)
		default:
			told = append(told, r)
		}
	}
	return own, told, rows.Err()
}

// aliases are the IDs that a route may have in one window or another.
func aliases(ctx context.Context, q querier, id string) ([]string, error) {
	_, told, err := named(ctx, q, id)
	all := []string{id}
	for _, r := range told {
		all = append(all, r.key.ID())
	}
	return all, err
}

// namesService tells whether a map of windows knows a service.
func namesService(ctx context.Context, q querier, n routemap.Node, chosen []Window) (known bool, err error) {
	for _, w := range slices.Backward(chosen) {
		var data []byte
		err := q.QueryRowContext(ctx, "SELECT data FROM chunks WHERE level = ? AND start = ? AND chunk = ?", seconds(w.Long), w.Start.Unix(), restChunk).Scan(&data)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
		rest, err := packed.Open(data)
		if err != nil {
			continue // it is left out of the map
		}
		if err := routemap.StoredNodes(rest, func(of routemap.Node) { known = known || of == n }); known && err == nil {
			return true, nil
		}
	}
	return false, nil
}

// statsOf merges what windows have of routes that are the same to the map, of which row reads the chunks.
func statsOf(ctx context.Context, row *sql.Stmt, routes []stored, chosen []Window) (_ *routemap.Stats, damaged int, err error) {
	m := routemap.New()
	for _, w := range chosen {
		for _, r := range routes {
			chunk, place := place(r.number)
			var data []byte
			err := row.QueryRowContext(ctx, seconds(w.Long), w.Start.Unix(), chunk).Scan(&data)
			switch {
			case errors.Is(err, sql.ErrNoRows):
				continue
			case err != nil:
				return nil, 0, fmt.Errorf("%s: %w", w, err)
			}
			body, err := packed.Open(data)
			if err == nil {
				err = readChunk(body, func(at int, data []byte) error {
					if at != place {
						return nil
					}
					return m.LoadRoute(r.key, data)
				})
			}
			if err != nil {
				damaged++
			}
		}
	}
	return m.Stats(routes[0].key), damaged, nil
}
