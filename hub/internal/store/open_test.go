package store

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEarlier: a file of an earlier version is moved to where it is not in the way, whole, and the hub begins anew; a second one is not put in its place.
func TestEarlier(t *testing.T) {
	for has := 1; has < version; has++ {
		t.Run(fmt.Sprint(has), func(t *testing.T) { testEarlier(t, has) })
	}
}

func testEarlier(t *testing.T, has int) {
	moved := fmt.Sprint(".v", has)
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	earlier := func() {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("PRAGMA journal_mode = WAL; CREATE TABLE windows (level INTEGER, start INTEGER, rest BLOB, bytes INTEGER); INSERT INTO windows VALUES (10, 0, 'x', 1); PRAGMA user_version = " + fmt.Sprint(has)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	earlier()
	s, err := Open(t.Context(), dir, 1<<30)
	if err != nil || s.Moved != path+moved {
		t.Fatalf("moved to %q, %v", s.Moved, err)
	}
	putAt(t, s, 0, calls(1, "catalog"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path+moved)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM windows").Scan(&n); err != nil || n != 1 {
		t.Errorf("what was moved has %d windows, %v", n, err)
	}
	again := open(t, dir, 1<<30)
	if counts, _ := read(t, again, begin, begin.Add(time.Minute)); counts["catalog"] != 1 || again.Moved != "" {
		t.Errorf("opened again: %v, moved to %q", counts, again.Moved)
	}
	other := t.TempDir()
	path = filepath.Join(other, fileName)
	earlier()
	if err := os.WriteFile(path+moved, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), other, 1<<30); err == nil || !strings.Contains(err.Error(), fmt.Sprint("version ", has)) || !strings.Contains(err.Error(), path+moved) {
		t.Errorf("with one that was moved before: %v", err)
	}
	if text, err := os.ReadFile(path + moved); err != nil || string(text) != "mine" {
		t.Errorf("it was written: %q, %v", text, err)
	}
}

// TestNumbers: routes keep their numbers, which are given once, also when routes go and a transaction is taken back.
func TestNumbers(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	putAt(t, s, 0, manyRoutes(150, 1))
	if _, err := s.db.Exec("CREATE TRIGGER full BEFORE INSERT ON windows BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), begin.Add(Finest), calls(1, "nowhere"), nil, nil); err == nil {
		t.Fatal("it was put")
	}
	if _, err := s.db.Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // two hours apart, so that it is noted again that they are there
		at := time.Duration(i) * 2 * time.Hour
		putAt(t, s, at, manyRoutes(150, 1))
		putAt(t, s, at+Finest, calls(1, fmt.Sprint("new", i)))
		counts, _ := read(t, s, begin.Add(at), begin.Add(at+time.Minute))
		if len(counts) != 16 || counts[fmt.Sprint("new", i)] != 1 {
			t.Errorf("after %s: %v", at, counts)
		}
	}
	var last, routes int
	if err := s.db.QueryRow("SELECT max(id), count(*) FROM routes").Scan(&last, &routes); err != nil || last != 155 || routes != 155 {
		t.Errorf("%d routes have numbers up to %d, %v", routes, last, err)
	}
	if _, err := s.Tidy(t.Context(), begin.Add(100*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	putAt(t, s, 101*24*time.Hour, calls(2, "catalog"))
	if counts, _ := read(t, s, begin, begin.Add(102*24*time.Hour)); len(counts) != 1 || counts["catalog"] != 2 {
		t.Errorf("after all others have gone: %v", counts)
	}
	if err := s.db.QueryRow("SELECT min(id), count(*) FROM routes").Scan(&last, &routes); err != nil || last <= 155 || routes != 1 {
		t.Errorf("%d routes have numbers from %d, %v", routes, last, err)
	}
}
