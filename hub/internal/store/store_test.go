package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/internal/packed"
	"github.com/stile-ipc/stile/routemap"
)

const runEnv = "STORE_TEST_RUN" // a folder: this process puts windows there until it is killed

func TestMain(m *testing.M) {
	if dir := os.Getenv(runEnv); dir != "" {
		putUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

var begin = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// calls is a map of n traces in which front calls to.
func calls(n int, to string) *routemap.Map {
	m := routemap.New()
	for i := range n {
		trace := fmt.Sprint(to, i)
		m.Add(routemap.NewTrace([]routemap.Span{
			{Trace: trace, ID: 1, Kind: routemap.Client, Service: "front", Name: "Get", Start: 1000, End: 5000, Request: -1, Response: -1},
			{Trace: trace, ID: 2, Parent: 1, Kind: routemap.Server, Service: to, Name: "Get", Start: 2000, End: 4000, Request: -1, Response: -1},
		}))
	}
	return m
}

func open(t *testing.T, dir string, most int64) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// read is how often each service was called, and how many windows say so.
func read(t *testing.T, s *Store, from, to time.Time) (counts map[string]uint64, chosen []Window) {
	t.Helper()
	m, chosen, _, err := s.Read(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	counts = map[string]uint64{}
	for _, r := range m.Report().Routes {
		counts[r.To.Name] = r.Calls
	}
	return counts, chosen
}

func putAt(t *testing.T, s *Store, at time.Duration, m *routemap.Map) {
	t.Helper()
	if err := s.Put(t.Context(), begin.Add(at), m, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestRollUp: windows become longer with age and say the same, whatever stretch is asked for; a hub that was away makes up for it.
func TestRollUp(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i := range 2 * 360 { // two hours
		putAt(t, s, time.Duration(i)*Finest, calls(1, []string{"even", "odd"}[i%2]))
	}
	putAt(t, s, 0, calls(2, "late"))
	check := func(what string, from, to time.Duration, even, odd uint64, windows int) {
		t.Helper()
		counts, chosen := read(t, s, begin.Add(from), begin.Add(to))
		if counts["even"] != even || counts["odd"] != odd || len(chosen) != windows {
			t.Errorf("%s: %v of %d windows, want %d, %d of %d", what, counts, len(chosen), even, odd, windows)
		}
	}
	check("all, not tidied", 0, 2*time.Hour, 360, 360, 720)
	now := begin.Add(2*time.Hour + 5*time.Second)
	for range 2 { // the second time there is nothing to do
		if _, err := s.Tidy(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		check("all", 0, 2*time.Hour, 360, 360, 2)
	}
	check("half an hour", 30*time.Minute, time.Hour, 90, 90, 30)
	check("of which the edges are not whole minutes", time.Hour+30*time.Minute+50*time.Second, 2*time.Hour-10*time.Second, 87, 87, 1+28+5)
	check("nothing", -time.Hour, 0, 0, 0, 0)
	check("the other way round", time.Hour, 0, 0, 0, 0)
	check("of whose finest the minute is left", 0, 50*time.Second, 3, 3, 1)
	if counts, _ := read(t, s, begin, begin.Add(time.Hour)); counts["late"] != 2 {
		t.Errorf("what was put late: %v", counts)
	}
	if _, err := s.Tidy(t.Context(), begin.Add(100*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Windows != 0 {
		t.Errorf("after a hundred days: %+v, %v", u, err)
	}
	var routes int
	if err := s.db.QueryRow("SELECT count(*) FROM routes").Scan(&routes); err != nil || routes != 0 {
		t.Errorf("%d routes that no window has: %v", routes, err)
	}
}

// TestFit: of too many bytes the oldest of the finest go first, and the file is no larger than it may be.
func TestFit(t *testing.T) {
	const most = 1 << 20
	dir := t.TempDir()
	s := open(t, dir, most)
	m := manyRoutes(200, 2)
	goneBy := 0
	for i := range 150 {
		putAt(t, s, time.Duration(i)*Finest, m)
		if i%6 != 5 {
			continue
		}
		if _, err := s.Tidy(t.Context(), begin.Add(time.Duration(i+1)*Finest)); err != nil {
			t.Fatal(err)
		}
		u, err := s.Usage(t.Context())
		if err != nil || u.Bytes > most {
			t.Fatalf("after %d windows: %+v, %v", i+1, u, err)
		}
		if u.Windows < int64(i) && goneBy == 0 {
			goneBy = i
		}
	}
	if goneBy < 6 || goneBy > 140 {
		t.Errorf("the first went after %d windows", goneBy)
	}
	if counts, chosen := read(t, s, begin, begin.Add(3*time.Hour)); len(counts) == 0 || chosen[len(chosen)-1].End() != begin.Add(1500*time.Second) {
		t.Errorf("the latest is not there: %v, %v", counts, chosen)
	}
	sameAsMap(t, s, begin, begin.Add(25*time.Minute), 150)
	sameAsMap(t, s, begin.Add(700*time.Second), begin.Add(1310*time.Second), 20)
	if _, err := s.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if u, _ := s.Usage(t.Context()); err != nil || info.Size() != u.Bytes || u.Bytes < most/2 {
		t.Errorf("the file has %d bytes, %+v, %v", info.Size(), u, err)
	}
}

// manyRoutes is a map of so many routes of a tenth as many services, each with so many calls.
func manyRoutes(routes, calls int) *routemap.Map {
	m := routemap.New()
	services := max(routes/10, 1)
	for i := range routes * calls {
		route := i % routes
		trace, took := fmt.Sprintf("%032x", i), int64(1e6+i*37%5e6)
		m.Add(routemap.NewTrace([]routemap.Span{
			{Trace: trace, ID: 1, Kind: routemap.Client, Service: fmt.Sprint("service ", route%services), Name: fmt.Sprint("Method", route/services), Start: 1, End: 1 + took, Request: -1, Response: -1},
			{Trace: trace, ID: 2, Parent: 1, Kind: routemap.Server, Service: fmt.Sprint("service ", (route+1)%services), Name: fmt.Sprint("Method", route/services), Start: 1000, End: took - 1000, Request: -1, Response: -1},
		}))
	}
	return m
}

// TestPutAgain: what could not be put, and is put again, counts once; also in longer windows that were made meanwhile.
func TestPutAgain(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	putAt(t, s, 0, calls(10, "catalog"))
	if _, err := s.db.Exec("CREATE TRIGGER full BEFORE INSERT ON windows BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
		t.Fatal(err)
	}
	m := calls(1, "catalog")
	for range 3 {
		if err := s.Put(t.Context(), begin, m, nil, nil); err == nil {
			t.Fatal("it was put")
		}
	}
	if _, err := s.db.Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	putAt(t, s, 0, m)
	check := func(what string, want uint64) {
		t.Helper()
		for _, long := range []time.Duration{Finest, time.Minute, time.Hour} {
			if counts, _ := read(t, s, begin, begin.Add(long)); counts["catalog"] != want {
				t.Errorf("%s: %d calls in %s, want %d", what, counts["catalog"], long, want)
			}
		}
	}
	check("put again", 11)
	if _, err := s.Tidy(t.Context(), begin.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	check("made longer", 11)
	putAt(t, s, 0, calls(5, "catalog"))
	check("put late", 16)
}

// TestCoarse: of a time of which only longer windows are left, those that reach beyond it are read.
func TestCoarse(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i := range 120 {
		putAt(t, s, time.Duration(i)*time.Minute, calls(1, "catalog"))
	}
	if _, err := s.Tidy(t.Context(), begin.Add(30*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to time.Duration
		want     uint64
	}{{10 * time.Minute, 59 * time.Minute, 60}, {-30 * time.Minute, 59 * time.Minute, 60}, {30 * time.Minute, 90 * time.Minute, 120}, {0, 2 * time.Hour, 120}, {-time.Hour, 0, 0}} {
		if counts, _ := read(t, s, begin.Add(c.from), begin.Add(c.to)); counts["catalog"] != c.want {
			t.Errorf("%s to %s: %d calls, want %d", c.from, c.to, counts["catalog"], c.want)
		}
	}
}

// TestDamaged: a window that cannot be read is left out and told, and holds up nothing.
func TestDamaged(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i := range 7 {
		putAt(t, s, time.Duration(i)*Finest, calls(1, "catalog"))
	}
	for i, what := range []string{"UPDATE chunks SET data = 'x' WHERE chunk = -1 AND start = ?", "UPDATE chunks SET data = substr(data, 2) WHERE chunk = 0 AND start = ?"} {
		if _, err := s.db.Exec(what, begin.Add(time.Duration(i)*Finest).Unix()); err != nil {
			t.Fatal(err)
		}
	}
	m, chosen, damaged, err := s.Read(t.Context(), begin, begin.Add(70*time.Second))
	if err != nil || damaged != 2 || len(chosen) != 5 || m.Report().Traces != 5 {
		t.Errorf("%d traces of %v, %d damaged, %v", m.Report().Traces, chosen, damaged, err)
	}
	if damaged, err := s.Tidy(t.Context(), begin.Add(time.Minute)); damaged != 2 || err != nil {
		t.Errorf("%d damaged, %v", damaged, err)
	}
	if counts, chosen := read(t, s, begin, begin.Add(time.Minute)); counts["catalog"] != 4 || len(chosen) != 1 {
		t.Errorf("the minute: %v of %v", counts, chosen)
	}
	putAt(t, s, 0, calls(1, "catalog")) // what is there cannot be merged with
	if counts, _ := read(t, s, begin, begin.Add(Finest)); counts["catalog"] != 1 {
		t.Errorf("put in its place: %v", counts)
	}
}

// TestSpoilt: what has a checksum and cannot be read all the same leaves nothing of its window in the map.
func TestSpoilt(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	for i := range 5 {
		putAt(t, s, time.Duration(i)*Finest, manyRoutes(200, 1))
	}
	for i, data := range [][]byte{packed.Seal([]byte{chunkVersion, 1, 5, 1, 99}), packed.Seal([]byte{99}), packed.Seal(nil)} {
		if _, err := s.db.Exec("UPDATE chunks SET data = ? WHERE chunk = 2 AND start = ?", data, begin.Add(time.Duration(i)*Finest).Unix()); err != nil {
			t.Fatal(err)
		}
	}
	m, chosen, damaged, err := s.Read(t.Context(), begin, begin.Add(time.Minute))
	if r := m.Report(); err != nil || damaged != 3 || len(chosen) != 2 || r.Traces != 400 || len(r.Routes) != 200 || r.Routes[0].Calls != 2 {
		t.Errorf("%d traces of %v, %d damaged, %v", m.Report().Traces, chosen, damaged, err)
	}
}

// TestOpen: a folder has one hub; what is not its file is not touched.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, 1<<20); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "hub.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, 1<<20); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("of another version: %v", err)
	}
	garbage := t.TempDir()
	path := filepath.Join(garbage, "hub.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), garbage, 1<<20); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("of garbage: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), "no database") {
		t.Errorf("it was written: %v", err)
	}
	if err := os.WriteFile(filepath.Join(garbage, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), filepath.Join(garbage, "file"), 1<<20); err == nil {
		t.Error("a file was opened as a folder")
	}
}

// putUntilKilled puts a window after the other, and writes of each that it was put.
func putUntilKilled(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, dir, 1<<30)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, have, _, err := s.Read(ctx, begin, begin.Add(24*time.Hour))
	for n := len(have); err == nil; n++ {
		m, kept := keptTraces(70, "catalog", begin)
		if err = s.Put(ctx, begin.Add(time.Duration(n)*Finest), m, kept, nil); err == nil {
			fmt.Println(n)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKilled: a window that was put is there after kill -9, whole and with its traces, and none is there twice.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	put := 0
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), runEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var n int
			if _, err := fmt.Fscanln(out, &n); err != nil {
				t.Fatal(err)
			}
			put = max(put, n+1)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
	s := open(t, dir, 1<<30)
	counts, chosen := read(t, s, begin, begin.Add(24*time.Hour))
	if len(chosen) < put || counts["catalog"] != uint64(70*len(chosen)) {
		t.Errorf("%d windows with %d calls, of %d that were put", len(chosen), counts["catalog"], put)
	}
	if l := list(t, s, 0, 24*time.Hour, Filter{Limit: 1 << 20}); len(l.Traces) != 70*len(chosen) || l.Kept != int64(len(l.Traces)) || l.Damaged != 0 {
		t.Errorf("%d windows with %d traces, %d are said to be kept", len(chosen), len(l.Traces), l.Kept)
	}
	var sound string
	if err := s.db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("%s, %v", sound, err)
	}
}

// BenchmarkRead reads maps of a quarter of an hour, up to now and not yet tidied for a minute, in which each route is called in each 10 s: 50 times, or 5.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ routes, calls int }{{1000, 50}, {10_000, 50}, {10_000, 5}} {
		b.Run(fmt.Sprintf("%d routes, %d calls", c.routes, c.calls), func(b *testing.B) { benchmarkRead(b, manyRoutes(c.routes, c.calls), c.routes) })
	}
}

func benchmarkRead(b *testing.B, m *routemap.Map, routes int) {
	dir := b.TempDir()
	s, err := Open(b.Context(), dir, 1<<40)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const windows = 16 * 6
	var put, tidied time.Duration
	for i := range windows {
		began := time.Now()
		if err := s.Put(b.Context(), begin.Add(time.Duration(i)*Finest), m, nil, nil); err != nil {
			b.Fatal(err)
		}
		put += time.Since(began)
		if i%6 == 5 && i < windows-6 {
			began = time.Now()
			if _, err := s.Tidy(b.Context(), begin.Add(time.Duration(i+1)*Finest)); err != nil {
				b.Fatal(err)
			}
			tidied += time.Since(began)
		}
	}
	from := begin.Add(30 * time.Second)
	var shown time.Duration
	b.ResetTimer()
	for range b.N {
		m, chosen, _, err := s.Read(b.Context(), from, from.Add(15*time.Minute))
		if err != nil || len(chosen) != 3+14+3 {
			b.Fatal(len(chosen), err)
		}
		began := time.Now()
		if r := m.Report(); len(r.Routes) != routes {
			b.Fatal(len(r.Routes))
		}
		shown += time.Since(began)
	}
	b.StopTimer()
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(put.Seconds()/windows, "s/put")
	b.ReportMetric(tidied.Seconds()/15, "s/minute-tidied")
	b.ReportMetric(shown.Seconds()/float64(b.N), "s/report")
	b.ReportMetric(float64(info.Size())/(windows+15)/(1<<20), "MiB/window")
}

// TestReported: which windows of processes are kept is known when the file is opened again, for a day, and of so many processes.
func TestReported(t *testing.T) {
	defer func(n int) { maxReported = n }(maxReported)
	maxReported = 3
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	put := func(at time.Duration, all Reported) {
		t.Helper()
		if err := s.Put(t.Context(), begin.Add(at), calls(1, "catalog"), nil, all); err != nil {
			t.Fatal(err)
		}
	}
	put(0, Reported{{1}: 5, {2}: 7})
	put(time.Hour, Reported{{2}: math.MaxUint64, {3}: 1})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 1<<30)
	check := func(at time.Duration, want Reported) {
		t.Helper()
		if got, err := s.Reported(t.Context(), begin.Add(at)); err != nil || !maps.Equal(got, want) {
			t.Errorf("after %s: %v, want %v, %v", at, got, want, err)
		}
	}
	check(time.Hour, Reported{{1}: 5, {2}: math.MaxUint64, {3}: 1})
	check(24*time.Hour+time.Minute, Reported{{2}: math.MaxUint64, {3}: 1})
	put(2*time.Hour, Reported{{4}: 1, {5}: 1, {6}: 1})
	for at, want := range map[time.Duration]int{2 * time.Hour: 3, 27 * time.Hour: 0} {
		if err := s.fitReported(t.Context(), begin.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Reported(t.Context(), begin.Add(at)); err != nil || len(got) != want {
			t.Errorf("after %s: %v, %v", at, got, err)
		}
	}
	var rows int
	if err := s.view.QueryRow("SELECT count(*) FROM reported").Scan(&rows); err != nil || rows != 3 {
		t.Errorf("%d rows, %v", rows, err)
	}
}
