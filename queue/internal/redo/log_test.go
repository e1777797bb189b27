package redo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func message(i int, size int) Record {
	return Record{Stream: "orders", Created: 7, Seq: uint64(i), Subject: fmt.Sprintf("orders.%d", i), Header: []byte("NATS/1.0\r\n\r\n"), Data: bytes.Repeat([]byte{byte(i)}, size)}
}

func nothing() error { return nil }

// reopened returns what a log tells.
func reopened(t testing.TB, cfg Config) (*Log, []Record) {
	t.Helper()
	var told []Record
	l, err := Open(cfg, func(r Record) error { told = append(told, r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return l, told
}

func closed(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestAppend(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "log"), Checkpoint: nothing, SegmentSize: 64 << 10}
	l, told := reopened(t, cfg)
	if len(told) != 0 {
		t.Errorf("a new log tells %v", told)
	}
	want := []Record{message(1, 10), message(2, 5000), {Stream: "s", Created: -1, Seq: 9, Deleted: true, Header: []byte{}, Data: []byte{}}}
	if err := l.Append(want...); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(); err != nil {
		t.Error(err)
	}
	if err := l.Append(message(3, 64<<10)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := l.AppendLater(message(4, 1)); err != nil {
		t.Error(err)
	}
	want = append(want, message(4, 1))
	closed(t, l)
	if err := l.Append(message(5, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	unsafe := cfg
	unsafe.Checkpoint = func() error { return errors.New("not yet") }
	told = nil
	if _, err := Open(unsafe, func(r Record) error { told = append(told, r); return nil }); err == nil || len(told) != len(want) {
		t.Errorf("%v; told %d", err, len(told))
	}
	l, told = reopened(t, cfg) // what was told and is not safe is told again
	if !reflect.DeepEqual(told, want) {
		t.Errorf("told %d, want %d", len(told), len(want))
	}
	closed(t, l)
	if _, told = reopenedOnce(t, cfg); len(told) != 0 {
		t.Errorf("%d that are safe are told again", len(told))
	}
	info, err := os.Stat(segmentPath(cfg.Dir, 0))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != cfg.SegmentSize {
		t.Errorf("%v, %v", info, err)
	}
	cfg.SegmentSize *= 2
	if _, err := Open(cfg, nil); err == nil {
		t.Error("segments of another size")
	}
	cfg.SegmentSize, cfg.Segments = cfg.SegmentSize/2, 2
	if _, err := Open(cfg, nil); err == nil {
		t.Error("fewer segments than there are")
	}
}

// TestTogether: who appends at the same time shares groups, and all is there in the order of each.
func TestTogether(t *testing.T) {
	const callers, each = 32, 200
	var checkpoints atomic.Int64
	cfg := Config{Dir: t.TempDir(), SegmentSize: 8 << 20, Segments: 3, Checkpoint: func() error { checkpoints.Add(1); return nil }}
	l, _ := reopened(t, cfg)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := l.Append(Record{Stream: fmt.Sprint(c), Seq: uint64(i)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if groups := l.number; groups > callers*each*3/4 {
		t.Errorf("%d groups for %d records", groups, callers*each)
	}
	closed(t, l)
	l, told := reopened(t, cfg)
	next := map[string]uint64{}
	for _, r := range told {
		if r.Seq != next[r.Stream] {
			t.Fatalf("stream %s: %d, want %d", r.Stream, r.Seq, next[r.Stream])
		}
		next[r.Stream]++
	}
	if len(told) != callers*each {
		t.Errorf("%d records of %d", len(told), callers*each)
	}
	closed(t, l)
}

// TestPowerCuts cuts the power again and again, in the middle of writes and syncs: what was appended is told after each, in order and once,
// unless a checkpoint has made it safe, and nothing else is told but what was being appended.
func TestPowerCuts(t *testing.T) {
	cuts := 3000
	if testing.Short() {
		cuts = 300
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	d := newDisk(rnd)
	var appended, safe atomic.Int64 // the last of each
	cfg := Config{Dir: t.TempDir(), SegmentSize: 6 * page, Segments: 3, open: d.open, Checkpoint: func() error { safe.Store(appended.Load()); return nil }}
	last := int64(0) // tried
	told := 0
	for cut := range cuts {
		was := safe.Load()
		want := was + 1
		l, err := Open(cfg, func(r Record) error {
			told++
			i := int64(r.Seq)
			if want == was+1 && i <= was { // what is safe may be told, too
				want = i
			}
			if i != want || i > last || !reflect.DeepEqual(r, message(int(i), sizeOf(i))) {
				return fmt.Errorf("told %d of %d, want %d", i, last, want)
			}
			want++
			return nil
		})
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		if want <= appended.Load() {
			t.Fatalf("cut %d: told up to %d, appended %d", cut, want-1, appended.Load())
		}
		appended.Store(max(want-1, was)) // the log's owner has them now
		last = appended.Load()
		safe.Store(last)
		d.mu.Lock()
		d.left = rnd.IntN(30)
		d.mu.Unlock()
		for {
			n := 1 + rnd.IntN(3)
			var group []Record
			for range n {
				last++
				group = append(group, message(int(last), sizeOf(last)))
			}
			if err := l.Append(group...); err != nil {
				break
			}
			appended.Store(last)
		}
		if err := l.Append(message(0, 0)); err == nil {
			t.Fatal("after an error of the disk")
		}
		_ = l.Close()
		d.restart()
	}
	if told < cuts {
		t.Errorf("only %d records told", told)
	}
}

func sizeOf(i int64) int { return int(i*7919) % 5000 }

// TestFalsePromise: the test above fails for a disk that says it has synced and has not.
func TestFalsePromise(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	d := newDisk(rnd)
	cfg := Config{Dir: t.TempDir(), SegmentSize: 64 * page, Segments: 3, Checkpoint: nothing, open: func(path string, size int64) (file, error) {
		f, err := d.open(path, size)
		return liar{f}, err
	}}
	lost := 0
	for range 20 {
		l, _ := reopened(t, cfg)
		if err := l.Append(message(1, 3000)); err != nil {
			t.Fatal(err)
		}
		closed(t, l)
		d.restart()
		var told int
		l, err := Open(cfg, func(Record) error { told++; return nil })
		if told == 0 || err != nil {
			lost++
		}
		if err == nil {
			closed(t, l)
		}
		d.files = map[string]*diskFile{}
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}

type liar struct{ file }

func (liar) Sync() error { return nil }

// TestDamage: what was on disk and is not any more is no power cut.
func TestDamage(t *testing.T) {
	for name, spoil := range map[string]func(l *Log){
		"a group":            func(l *Log) { spoilAt(t, l.ring[1], page+20) },
		"a segment's end":    func(l *Log) { spoilAt(t, l.ring[1], l.ring[1].size-2*page) },
		"a segment's header": func(l *Log) { spoilAt(t, l.ring[2], 9) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir(), SegmentSize: 8 * page, Segments: 4, Checkpoint: nothing}
			l, _ := reopened(t, cfg)
			for i := 1; l.current.serial < 3 || l.end < 4*page; i++ {
				if err := l.Append(message(i, 3000)); err != nil {
					t.Fatal(err)
				}
			}
			spoil(l)
			closed(t, l)
			if _, err := Open(cfg, func(Record) error { return nil }); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
		})
	}
}

func spoilAt(t *testing.T, s *segment, off int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := s.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := s.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// TestForgery: what a message holds cannot pass for a group, nor can what the file held before.
func TestForgery(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SegmentSize: 16 * page, Segments: 2, Checkpoint: nothing}
	l, _ := reopened(t, cfg)
	if err := l.Append(message(1, 3*page)); err != nil {
		t.Fatal(err)
	}
	old := make([]byte, 8*page)
	if _, err := l.current.ReadAt(old, page); err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	for range 2 { // the file is used again, with a message that holds the groups of before, page for page
		l, _ = reopened(t, cfg)
		r := message(2, 0)
		r.Data = append(make([]byte, page-groupHead-r.size()+40), old...)
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
		closed(t, l)
	}
	if _, told := reopenedOnce(t, cfg); len(told) != 1 || told[0].Seq != 2 {
		t.Errorf("%d records", len(told))
	}
}

func reopenedOnce(t *testing.T, cfg Config) (*Log, []Record) {
	l, told := reopened(t, cfg)
	closed(t, l)
	return l, told
}

// TestLater: what nobody waits for is on disk in time, and an error is that of a later call.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(3, 4)))
		cfg := Config{Dir: t.TempDir(), Checkpoint: nothing, open: d.open}
		l, _ := reopened(t, cfg)
		for i := range 100 {
			if err := l.AppendLater(message(i, 100)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if l.number != 1 {
			t.Errorf("%d groups", l.number)
		}
		d.restart()
		other, told := reopened(t, cfg)
		if len(told) != 100 {
			t.Errorf("%d records", len(told))
		}
		closed(t, other)
		for i := range 3 { // more than may wait
			if err := l.AppendLater(message(i, maxLater)); err != nil {
				t.Fatal(err)
			}
		}
		if l.number < 3 {
			t.Errorf("%d groups", l.number)
		}
		d.off = true
		if err := l.AppendLater(message(1, 1)); err != nil {
			t.Error(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if err := l.AppendLater(message(1, 1)); !errors.Is(err, errPower) {
			t.Errorf("%v", err)
		}
		_ = l.Close()
	})
}

// TestLaterWaits: while the disk is slow, no more is at risk than what was appended within the time allowed.
func TestLaterWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(7, 8)))
		var slow atomic.Bool
		cfg := Config{Dir: t.TempDir(), Checkpoint: nothing, open: func(path string, size int64) (file, error) {
			f, err := d.open(path, size)
			return slowFile{f, &slow}, err
		}}
		l, _ := reopened(t, cfg)
		slow.Store(true)
		begin := time.Now()
		n := 0
		for time.Since(begin) < 3*time.Second {
			before := time.Now()
			if err := l.AppendLater(message(n, 10)); err != nil {
				t.Fatal(err)
			}
			n++
			if at := before.Sub(begin); time.Since(before) == 0 && at%time.Second > 150*time.Millisecond && at < 2*time.Second {
				t.Fatalf("appended after %v, while the disk was at work for longer than allowed", at)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n < 15 || n > 60 {
			t.Errorf("%d appended in 3 s", n)
		}
		closed(t, l)
	})
}

// slowFile takes a second for a sync.
type slowFile struct {
	file
	slow *atomic.Bool
}

func (f slowFile) Sync() error {
	if f.slow.Load() {
		time.Sleep(time.Second)
	}
	return f.file.Sync()
}

// TestSlowCheckpoint: who appends waits when the ring has gone round, and no sooner; a checkpoint that fails is everybody's error.
func TestSlowCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(rand.New(rand.NewPCG(5, 6)))
		const takes = time.Second
		fails := errors.New("no space left on device")
		var opened, failing atomic.Bool
		cfg := Config{Dir: t.TempDir(), SegmentSize: 4 * page, Segments: 4, open: d.open, Checkpoint: func() error {
			if opened.Load() {
				time.Sleep(takes)
			}
			if failing.Load() {
				return fails
			}
			return nil
		}}
		l, _ := reopened(t, cfg)
		opened.Store(true)
		begin := time.Now()
		for i := range 12 { // four segments of three
			if err := l.Append(message(i, 100)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("waited %v with segments to spare", took)
		}
		if err := l.Append(message(12, 100)); err != nil || time.Since(begin) != takes {
			t.Errorf("the ring has gone round: %v after %v", err, time.Since(begin))
		}
		failing.Store(true)
		var err error
		for i := 0; err == nil && i < 100; i++ {
			err = l.Append(message(i, 100))
		}
		if !errors.Is(err, fails) {
			t.Errorf("%v", err)
		}
		if err := l.Close(); !errors.Is(err, fails) {
			t.Errorf("%v", err)
		}
	})
}

// FuzzOpen opens segments with anything in them.
func FuzzOpen(f *testing.F) {
	s := &segment{size: 4 * page, serial: 1, salt: 5}
	good := append(s.header(), make([]byte, 3*page)...)
	group := append(make([]byte, groupHead), new(Record).append(nil)...)
	s.seal(group, 1)
	copy(good[page:], group)
	f.Add(good, []byte(nil))
	f.Add(good, good)
	f.Add(good[:page], group)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		dir := t.TempDir()
		for i, content := range [][]byte{first, second} {
			full := make([]byte, s.size)
			copy(full, content)
			if err := os.WriteFile(segmentPath(dir, i), full, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(Config{Dir: dir, SegmentSize: s.size, Segments: 2, Checkpoint: nothing}, func(Record) error { return nil })
		if err == nil {
			closed(t, l)
		}
	})
}

// BenchmarkAppend is the log alone, with records of 256 bytes.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			l, _ := reopened(b, Config{Dir: b.TempDir(), Checkpoint: nothing})
			defer closed(b, l)
			r := message(1, 256)
			before := l.number
			b.ReportAllocs()
			b.SetParallelism((callers + 1) / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := l.Append(r); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/float64(l.number-before), "records/sync")
		})
	}
}
