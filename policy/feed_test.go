package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const shelfName = "test://shelf/policies/shop"

// shelf is a Feed in memory.
type shelf struct {
	mu      sync.Mutex
	text    []byte
	version int // of text; 0: there was none yet
	told    int // version that Next returned last; -1: an error
	err     error
	asked   []time.Time
	moved   chan struct{} // closed when there is something new
}

func newShelf() *shelf { return &shelf{moved: make(chan struct{})} }

func (s *shelf) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.moved)
	s.moved = make(chan struct{})
}

// put puts a version there; nil: what was there is deleted.
func (s *shelf) put(text []byte) { s.change(func() { s.text, s.version = text, s.version+1 }) }

// fail makes each call of Next fail until fail(nil).
func (s *shelf) fail(err error) { s.change(func() { s.err = err }) }

func (s *shelf) Name() string { return shelfName }

func (s *shelf) Next(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	for {
		if s.err != nil {
			s.told = -1
			return nil, s.err
		}
		if s.version != 0 && s.told != s.version {
			s.told = s.version
			return s.text, nil
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-moved:
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// times returns when Next was called, and forgets it.
func (s *shelf) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// followFeed follows with 5 s for the start.
func followFeed(t *testing.T, dir string, feed Feed, opts ...Option) (*follower, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	f := &follower{t: t, copies: dir, rec: &tape{}}
	var err error
	all := []Option{WithLogger(slog.New(slog.DiscardHandler)), WithRecorder(f.rec), WithLastGoodDir(dir)}
	f.Policy, err = Follow(ctx, feed, append(all, opts...)...)
	return f, err
}

func mustFollowFeed(t *testing.T, dir string, feed Feed, opts ...Option) *follower {
	t.Helper()
	f, err := followFeed(t, dir, feed, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// kept sees what the copy is.
func (f *follower) kept(text string) {
	f.t.Helper()
	if data, err := f.following.copies.load(shelfName); err != nil || string(data) != text {
		f.t.Errorf("kept %q, %v", data, err)
	}
}

// told sees how many versions were put in force and how many faults were told.
func (f *follower) told(applied, refused uint64) {
	f.t.Helper()
	if a, r := f.Count(Applied), f.Count(Refused); a != applied || r != refused {
		f.t.Errorf("put in force %d times and refused %d times, want %d and %d", a, r, applied, refused)
	}
}

const badVersion = "x-stile: {version: bad, colour: blue}\nmethodConfig: [{timeout: 1}]\n"

func TestFeedAtStart(t *testing.T) {
	down := errors.New("the server is down")
	for _, c := range []struct {
		name   string
		begin  func(*shelf)
		faults []string // all told, if v1 is not in force
		waits  time.Duration
	}{
		{"a good version", func(s *shelf) { s.put([]byte(version("v1"))) }, nil, 0},
		{"a good version later", func(s *shelf) { time.AfterFunc(time.Second, func() { s.put([]byte(version("v1"))) }) }, nil, time.Second},
		{"a bad version", func(s *shelf) { s.put([]byte(badVersion)) }, []string{shelfName + ":1:25: x-stile.colour", "methodConfig[0].timeout"}, 0},
		{"too large a version", func(s *shelf) { s.put(bytes.Repeat([]byte("# more\n"), maxFileSize)) }, []string{"more than 1048576 bytes"}, 0},
		{"a deleted version", func(s *shelf) { s.put(nil) }, []string{shelfName + " is deleted"}, 0},
		{"an error", func(s *shelf) { s.fail(down) }, []string{shelfName + ": " + down.Error()}, 0},
		{"nothing", func(*shelf) {}, []string{context.DeadlineExceeded.Error()}, 5 * time.Second},
	} {
		for _, copied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a copy: %v", c.name, copied), func(t *testing.T) {
				dir := t.TempDir()
				if copied {
					if err := (copies{dir: dir}).save(shelfName, version("v0")); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Test(t, func(t *testing.T) {
					feed, begun := newShelf(), time.Now()
					c.begin(feed)
					f, err := followFeed(t, dir, feed)
					if d := time.Since(begun); d != c.waits {
						t.Errorf("started after %v", d)
					}
					if c.faults != nil && !copied {
						checkFaults(t, err, c.faults)
						if !errors.Is(err, errNoCopy) {
							t.Errorf("%v does not say that there is no copy", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if c.faults == nil {
						f.wants("v1", "")
						f.told(1, 0)
						f.kept(version("v1"))
					} else {
						f.wants("v0", c.faults[0])
						f.told(1, 1)
						f.kept(version("v0"))
						checkFaults(t, f.rec.of(Refused)[0].Err, c.faults)
					}
					if s := f.Status(); s.Path != shelfName || (s.Source == SourceLastGood) != (c.faults != nil) {
						t.Errorf("status %+v", s)
					}
					feed.fail(nil)
					feed.put([]byte(version("v2")))
					time.Sleep(time.Second)
					f.wants("v2", "")
					f.kept(version("v2"))
					if from := f.Status().Source; from != SourceFeed {
						t.Errorf("in force from %s", from)
					}
				})
			})
		}
	}
}

func checkFaults(t *testing.T, err error, faults []string) {
	t.Helper()
	for _, fault := range faults {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%v lacks %q", err, fault)
		}
	}
}

func TestFeedVersions(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := newShelf()
		feed.put([]byte(version("v1")))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		for n, step := range []struct {
			text, want, fault string
			applied, refused  uint64
		}{
			{version("v2"), "v2", "", 2, 0},
			{badVersion, "v2", "x-stile.colour", 2, 1},
			{badVersion, "v2", "x-stile.colour", 2, 1}, // put again
			{"methodConfig: 7", "v2", "methodConfig", 2, 2},
			{version("v2"), "v2", "", 3, 2}, // back to what is in force
			{"", "v2", "is deleted", 3, 3},
			{strings.Repeat("# more\n", maxFileSize), "v2", "more than 1048576 bytes", 3, 4},
			{version("v3"), "v3", "", 4, 4},
			{version("v3"), "v3", "", 4, 4},
		} {
			feed.put([]byte(step.text))
			time.Sleep(time.Second)
			f.wants(step.want, step.fault)
			f.told(step.applied, step.refused)
			f.kept(version(step.want))
			if t.Failed() {
				t.Fatalf("after step %d", n)
			}
		}
		var faults Problems
		if e := f.rec.of(Refused)[0]; !errors.As(e.Err, &faults) || len(faults) < 2 || e.Version != "v2" || !strings.HasSuffix(e.Detail, "from the feed") {
			t.Errorf("told %+v", e)
		}
		f.Apply(nil)
		f.wants("", "")
		feed.put([]byte(version("v4")))
		f.wants("v4", "")
	})
}

// TestFeedAtOnce: a version is in force without any wait.
func TestFeedAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := newShelf()
		feed.put([]byte(version("v0")))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		begun := time.Now()
		for n := range 20 {
			v := fmt.Sprint("w", n)
			feed.put([]byte(version(v)))
			f.wants(v, "")
			feed.put([]byte(badVersion))
			f.wants(v, "x-stile.colour")
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

func TestFeedFails(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := newShelf()
		feed.put([]byte(version("v1")))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		synctest.Wait()
		feed.times()
		down := errors.New("the server is down")
		feed.fail(down)
		time.Sleep(10 * time.Minute)
		f.wants("v1", shelfName+": the server is down")
		f.told(1, 1)
		if e := f.rec.of(Refused)[0]; !errors.Is(e.Err, down) {
			t.Errorf("told %+v", e)
		}
		checkBackoff(t, feed.times())
		feed.fail(errors.New("the server starts"))
		time.Sleep(time.Minute)
		feed.fail(down) // told already
		time.Sleep(time.Minute)
		f.wants("v1", "the server is down")
		f.told(1, 2)
		feed.fail(nil) // with the version that it had
		time.Sleep(10 * time.Second)
		f.wants("v1", "")
		f.told(1, 2)
		feed.fail(down) // another outage
		time.Sleep(time.Minute)
		f.told(1, 3)
		feed.put([]byte(version("v2")))
		feed.fail(nil)
		time.Sleep(10 * time.Second)
		f.wants("v2", "")
		f.told(2, 3)
		feed.put([]byte(badVersion))
		time.Sleep(time.Second)
		feed.times()
		feed.fail(down)
		time.Sleep(10 * time.Minute)
		f.wants("v2", "the server is down")
		checkBackoff(t, feed.times()) // from its beginning
		feed.fail(nil)                // the fault of the version shows again, and is not told again
		time.Sleep(10 * time.Second)
		f.wants("v2", "x-stile.colour")
		f.told(2, 5)
	})
}

// checkBackoff checks the calls of Next in ten minutes of failures, after the first.
func checkBackoff(t *testing.T, asked []time.Time) {
	t.Helper()
	if n := len(asked); n < 120 || n > 600 { // 240 are to be expected
		t.Errorf("asked %d times", n)
	}
	for n := 1; n < len(asked); n++ {
		if d, bound := asked[n].Sub(asked[n-1]), min(100*time.Millisecond<<min(n, 10), 5*time.Second); d > bound {
			t.Errorf("before call %d there was a wait of %v, more than %v", n, d, bound)
		}
	}
}

// TestFeedFailsEachTimeAnew: errors with a port or a time in them do not fill the log.
func TestFeedFailsEachTimeAnew(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := newShelf()
		feed.put([]byte(version("v1")))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		for n := range 50 {
			feed.fail(fmt.Errorf("port %d refuses", 40000+n))
			time.Sleep(10 * time.Second)
		}
		f.wants("v1", "port 40049 refuses")
		f.told(1, maxTold)
	})
}

// repeater is a Feed that cannot wait.
type repeater struct{ *shelf }

func (r repeater) Next(ctx context.Context) ([]byte, error) {
	r.mu.Lock()
	r.told = 0
	r.mu.Unlock()
	return r.shelf.Next(ctx)
}

func TestFeedThatCannotWait(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := repeater{newShelf()}
		feed.put([]byte(version("v1")))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		synctest.Wait()
		feed.times()
		time.Sleep(10 * time.Minute)
		f.told(1, 0)
		checkBackoff(t, feed.times())
		feed.put([]byte(version("v2")))
		time.Sleep(6 * time.Second)
		f.wants("v2", "")
	})
}

func TestFeedClose(t *testing.T) {
	for name, err := range map[string]error{"while Next waits": nil, "while Next is left alone": errors.New("down")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				feed := newShelf()
				feed.put([]byte(version("v1")))
				f := mustFollowFeed(t, dir, feed)
				feed.fail(err)
				time.Sleep(time.Hour)
				begun := time.Now()
				var closers sync.WaitGroup
				for range 4 {
					closers.Go(func() {
						if err := errors.Join(f.Close(), f.Close()); err != nil {
							t.Error(err)
						}
					})
				}
				closers.Wait()
				if d := time.Since(begun); d != 0 {
					t.Errorf("it took %v", d)
				}
				feed.times()
				feed.put([]byte(version("v2")))
				time.Sleep(time.Hour)
				if n := len(feed.times()); n > 0 || f.Config().Stile.Version != "v1" {
					t.Errorf("asked %d times after the end", n)
				}
			})
		})
	}
}

// stubborn is a Feed whose Next does not heed its context at once.
type stubborn struct{ *shelf }

func (s stubborn) Next(ctx context.Context) ([]byte, error) {
	text, err := s.shelf.Next(ctx)
	if ctx.Err() != nil {
		time.Sleep(time.Second)
		return []byte(version("late")), nil
	}
	return text, err
}

// TestFeedCloseWaitsForNext, and what it returns then is not put in force.
func TestFeedCloseWaitsForNext(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := stubborn{newShelf()}
		feed.put([]byte(version("v1")))
		f := mustFollowFeed(t, dir, feed)
		synctest.Wait()
		begun := time.Now()
		f.Close()
		if d := time.Since(begun); d != time.Second {
			t.Errorf("it took %v", d)
		}
		f.wants("v1", "")
	})
}

func TestFeedWithoutLastGood(t *testing.T) {
	dir := t.TempDir()
	if err := (copies{dir: dir}).save(shelfName, version("v0")); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if _, err := followFeed(t, dir, newShelf(), WithoutLastGood()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("followed with %v", err)
		}
	})
}

func TestCallsDuringVersionsOfFeed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		feed := newShelf()
		feed.put([]byte(reloadText(0)))
		f := mustFollowFeed(t, dir, feed)
		defer f.Close()
		callsDuringReloads(t, f, func(n int) {
			feed.put([]byte(reloadText(n)))
			time.Sleep(110 * time.Millisecond)
		})
	})
}

// TestCopyOfAnyName: feeds have names that no file could have.
func TestCopyOfAnyName(t *testing.T) {
	c := copies{dir: t.TempDir()}
	for _, name := range []string{"", "/", "..", "a:b?c*d|e", "päivää\x00\n", "http://x/y/?z=\"1\"", strings.Repeat("ß", 300)} {
		if err := c.save(name, version("v1")); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if data, err := c.load(name); err != nil || string(data) != version("v1") {
			t.Errorf("%q: kept %q, %v", name, data, err)
		}
	}
}

// hasty is a feed that has something new whenever it is asked.
type hasty struct{ n int }

func (h *hasty) Name() string { return "test://hasty" }

func (h *hasty) Next(context.Context) ([]byte, error) {
	h.n++
	return fmt.Appendf(nil, "# %d\n{}", h.n), nil
}

// TestFeedHasty: a feed that cannot stop is not asked without end.
func TestFeedHasty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := new(hasty)
		p, err := Follow(t.Context(), feed, WithoutLastGood(), WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := p.Close(); err != nil || feed.n > maxHasty+110 {
			t.Errorf("asked %d times, %v", feed.n, err)
		}
	})
}
