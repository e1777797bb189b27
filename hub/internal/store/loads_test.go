package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func someLoad(id string, second int) Load {
	l := Load{ID: id, Host: "h", Service: "s", Name: "node", PID: 7, From: time.Unix(int64(1e9+second), 5).UTC(), Took: []uint64{200_000, 200_001, 199_999}}
	l.Columns[0], l.Columns[4] = []uint64{1, 0, 1 << 40}, []uint64{0, 0, 3}
	return l
}

// TestLoads: what was used comes back as it was, by time and by whose it is; too old, or too much, it goes.
func TestLoads(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	at := func(second int) time.Time { return time.Unix(int64(1e9+second), 0) }
	var all []Load
	for i := range 20 {
		all = append(all, someLoad("a", 10*i), someLoad("b", 10*i))
	}
	for range 2 { // the second time they take the first's place
		if err := s.PutLoads(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	found := func(from, to time.Time, id string) (got []Load) {
		t.Helper()
		damaged, err := s.Loads(t.Context(), from, to, id, func(l Load) { got = append(got, l) })
		if err != nil || damaged != 0 {
			t.Fatal(damaged, err)
		}
		return got
	}
	if got := found(at(0), at(1000), ""); !reflect.DeepEqual(got, all) {
		t.Errorf("%+v came back as %+v", all, got)
	}
	for _, c := range []struct {
		from, to int
		id       string
		want     int
	}{{0, 1000, "a", 20}, {0, 10, "", 2}, {1, 11, "a", 1}, {0, 1, "b", 1}, {1000, 2000, "", 0}, {0, 1000, "c", 0}} {
		if got := found(at(c.from), at(c.to), c.id); len(got) != c.want {
			t.Errorf("%+v: %d", c, len(got))
		}
	}
	if _, err := s.Tidy(t.Context(), at(100).Add(loadsKept)); err != nil {
		t.Fatal(err)
	}
	if got := found(at(0), at(1000), "a"); len(got) != 10 {
		t.Errorf("%d are kept of an hour", len(got))
	}
	s.most = loadShare * 5 * 2 * 2 * 120 // five windows, counted twice
	if err := s.fitLoads(t.Context(), at(100)); err != nil {
		t.Fatal(err)
	}
	if got := found(at(0), at(1000), "a"); len(got) < 3 || len(got) > 6 || !got[len(got)-1].From.After(at(190)) {
		t.Errorf("%d fit", len(got))
	}
	if _, err := s.db.Exec("UPDATE loads SET data = x'00' WHERE id = 'a'"); err != nil {
		t.Fatal(err)
	}
	if damaged, err := s.Loads(t.Context(), at(0), at(1000), "", func(Load) {}); err != nil || damaged == 0 {
		t.Errorf("%d are damaged, %v", damaged, err)
	}
}

// TestLoadCheck: what contradicts itself is told, also when it is read.
func TestLoadCheck(t *testing.T) {
	long, many, uneven := someLoad("a", 0), someLoad("a", 0), someLoad("a", 0)
	long.Took = []uint64{1 << 63, 1 << 63, 1 << 63}
	many.Took, many.Columns = make([]uint64, maxStretches+1), [LoadColumns][]uint64{}
	uneven.Columns[3] = []uint64{1}
	for i, l := range []Load{long, many, uneven} {
		if l.Check() == nil {
			t.Errorf("%d is taken", i)
		}
	}
	one := someLoad("a", 0)
	b := one.appendPacked(nil)
	for i := range b {
		if new(Load).readPacked(b[:i]) == nil {
			t.Errorf("%d of %d bytes are taken", i, len(b))
		}
	}
	if got := fmt.Sprint(one.Until().Sub(one.From)); got != "600ms" {
		t.Error(got)
	}
}

// TestEarlierTables: a file of before loads were kept has them from then on.
func TestEarlierTables(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("DROP TABLE loads; DROP TABLE load_sizes; DROP TABLE records"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 1<<30)
	if err := s.PutLoads(t.Context(), []Load{someLoad("a", 0)}); err != nil {
		t.Error(err)
	}
}
