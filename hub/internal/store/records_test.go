package store

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// TestRecords: records come back as they were put, in order, by when they began and whose they are; those that are old, or too much, go, and damaged ones are counted.
func TestRecords(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := func(n int) time.Time { return begin.Add(time.Duration(n) * 10 * time.Second) }
	var all []Record
	for n := range 20 {
		for _, id := range []string{"a", "b"} {
			all = append(all, Record{id, "s" + id, "node", int64(n), at(n), at(n + 1), []byte(fmt.Sprint("data ", n))})
		}
	}
	for range 2 { // which counts once
		if err := s.PutRecords(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	found := func(from, to int, id string, limit int) (got []Record) {
		t.Helper()
		damaged, err := s.Records(t.Context(), at(from), at(to), id, limit, func(r Record) error { got = append(got, r); return nil })
		if err != nil || damaged != 0 {
			t.Fatal(damaged, err)
		}
		return got
	}
	if got := found(0, 20, "", 100); !reflect.DeepEqual(got, all) {
		t.Errorf("%+v came back as %+v", all, got)
	}
	if got := found(3, 5, "b", 100); len(got) != 2 || got[0].PID != 3 {
		t.Errorf("%+v", got)
	}
	if got := found(0, 20, "", 7); len(got) != 7 {
		t.Errorf("%d of 7", len(got))
	}
	if _, err := s.Tidy(t.Context(), at(10).Add(recordsKept)); err != nil {
		t.Fatal(err)
	}
	if got := found(0, 20, "a", 100); len(got) != 10 || got[0].PID != 10 {
		t.Errorf("%d are kept of an hour", len(got))
	}
	s.most = recordShare * 5 * 2 * (recordRow + 17) // five windows
	if err := s.fitRecords(t.Context(), at(20)); err != nil {
		t.Fatal(err)
	}
	if got := found(0, 20, "a", 100); len(got) < 4 || len(got) > 5 || got[len(got)-1].PID != 19 {
		t.Errorf("%d fit", len(got))
	}
	if damaged, err := s.Records(t.Context(), at(0), at(20), "a", 100, func(Record) error { return errors.New("no sense") }); err != nil || damaged < 4 {
		t.Errorf("%d make no sense, %v", damaged, err)
	}
	if _, err := s.db.Exec("UPDATE records SET data = x'00'"); err != nil {
		t.Fatal(err)
	}
	if damaged, err := s.Records(t.Context(), at(0), at(20), "b", 100, func(Record) error { return nil }); err != nil || damaged < 4 {
		t.Errorf("%d are damaged, %v", damaged, err)
	}
}
