package redo

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// Config says how a Log is made.
type Config struct {
	Dir string // of its own; made if it is not there
	// Checkpoint makes safe elsewhere what was appended before it is called. It is called by Open and then whenever a
	// segment is full, one at a time.
	Checkpoint func() error

	// Again tells, after the checkpoint of Open, what of the records is to be in the log all the same; nil: nothing.
	Again func() []Record

	SegmentSize int64         // bytes; 0: 16 MiB
	Segments    int           // of the ring; 0: 4
	Within      time.Duration // for how long what nobody waits for may not be on disk; 0: 100 ms

	open func(path string, size int64) (file, error) // of tests
}

const (
	defaultSegmentSize = 16 << 20
	defaultSegments    = 4
	defaultWithin      = 100 * time.Millisecond
	// maxLater is how many bytes may wait that nobody waits for.
	maxLater = 1 << 20
	// maxSpare bounds the buffer that is kept for the next group.
	maxSpare = 1 << 20
)

// Log is a redo log. It is safe for concurrent use by one process.
type Log struct {
	cfg  Config
	ring []*segment

	lead chan struct{} // held by who writes

	mu      sync.Mutex
	pending []*group // in order, none of them empty
	soon    *time.Timer
	oldest  time.Time // since when something that nobody waits for is not on disk; zero: nothing
	spare   []byte    // of a group that is written
	err     error     // why nothing is appended any more

	// Of who leads.
	current *segment
	end     int64  // of the last group in current
	number  uint64 // of the last group

	check check
}

// check is the checkpoints of a Log.
type check struct {
	sync.WaitGroup // of the goroutine, if there is one

	mu    sync.Mutex
	going bool
	want  uint64        // the serial up to which segments are full
	free  uint64        // up to which they may be overwritten
	moved chan struct{} // closed when free has moved, or nothing goes on any more
}

// group is what is written together.
type group struct {
	buf   []byte    // with room for the head
	led   bool      // somebody who waits for it will write it
	later time.Time // of the first record that nobody waits for; zero: none
	done  chan struct{}
	err   error // once done is closed
}

// ErrClosed is what Append returns after Close.
var ErrClosed = errors.New("redo: the log is closed")

// ErrTooLarge is what Append returns for what no segment can hold.
var ErrTooLarge = errors.New("redo: more than a segment holds")

// Open opens the log in a folder, which no other process uses, or makes one. It calls tell for each record in the order in which they were
// appended: those of which it is not known that they are safe elsewhere, and some more; none that an Open before has told. Their bytes are tell's to keep. Then
// it makes a checkpoint.
func Open(cfg Config, tell func(Record) error) (*Log, error) {
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = defaultSegmentSize
	}
	if cfg.Segments == 0 {
		cfg.Segments = defaultSegments
	}
	if cfg.Within == 0 {
		cfg.Within = defaultWithin
	}
	if cfg.open == nil {
		cfg.open = openSegment
	}
	if cfg.Segments < 2 || cfg.SegmentSize < 4*page || cfg.SegmentSize%page != 0 || cfg.SegmentSize > 1<<31 {
		return nil, fmt.Errorf("redo: %d segments of %d bytes: there must be 2 or more, of 4 pages to 2 GiB", cfg.Segments, cfg.SegmentSize)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("redo: %w", err)
	}
	l := &Log{cfg: cfg, lead: make(chan struct{}, 1)}
	if err := l.start(tell); err != nil {
		l.closeFiles()
		return nil, err
	}
	return l, nil
}

func (l *Log) start(tell func(Record) error) error {
	if extra := segmentPath(l.cfg.Dir, l.cfg.Segments); exists(extra) {
		return fmt.Errorf("redo: %s: there are more segments than %d", extra, l.cfg.Segments)
	}
	for i := range l.cfg.Segments {
		path := segmentPath(l.cfg.Dir, i)
		f, err := l.cfg.open(path, l.cfg.SegmentSize)
		if err != nil {
			return fmt.Errorf("redo: %w", err)
		}
		s := &segment{file: f, path: path, size: l.cfg.SegmentSize}
		l.ring = append(l.ring, s)
		if err := s.readHeader(); err != nil {
			return err
		}
	}
	if err := syncDir(l.cfg.Dir); err != nil {
		return fmt.Errorf("redo: %w", err)
	}
	serial, number, err := l.recover(tell)
	if err != nil {
		return err
	}
	if err := l.cfg.Checkpoint(); err != nil {
		return fmt.Errorf("redo: checkpoint: %w", err)
	}
	l.number, l.check.free, l.check.want = number, serial, serial
	old := l.used()
	if err := l.begin(serial + 1); err != nil {
		return err
	}
	if l.cfg.Again != nil {
		if err := l.Append(l.cfg.Again()...); err != nil {
			return err
		}
	}
	return l.retire(old)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// retire empties segments, the oldest first: what they hold is safe elsewhere, and would be told again.
func (l *Log) retire(old []*segment) error {
	for _, s := range old {
		if s == l.current {
			continue
		}
		if _, err := s.WriteAt(make([]byte, page), 0); err != nil {
			return fmt.Errorf("redo: %w", err)
		}
		if err := s.Sync(); err != nil {
			return fmt.Errorf("redo: %s: %w", s.path, err)
		}
	}
	return nil
}

// begin begins a segment. Its header is on disk before its first group is written over those that the file has: they would
// look like damage under the header before.
func (l *Log) begin(serial uint64) error {
	s := l.ring[serial%uint64(len(l.ring))]
	var salt [8]byte
	rand.Read(salt[:])
	s.serial, s.salt = serial, binary.LittleEndian.Uint64(salt[:])
	if _, err := s.WriteAt(s.header(), 0); err != nil {
		return fmt.Errorf("redo: %w", err)
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("redo: %s: %w", s.path, err)
	}
	l.current, l.end = s, page
	return nil
}

// Append returns when the records are on disk, all together. It may be that they are when it returns an error: nothing can
// be appended then until the log is opened again, but after ErrTooLarge, which says that nothing has happened.
func (l *Log) Append(records ...Record) error {
	g, lead, err := l.add(records, false)
	if err != nil || g == nil {
		return err
	}
	if lead {
		l.lead <- struct{}{}
		runtime.Gosched() // who is about to append does so first
		l.write(g)
		<-l.lead
	}
	<-g.done
	return g.err
}

// AppendLater is Append that does not wait, unless too much is waiting already, or for longer than Config says: at no time is more at risk
// than what was appended within that time. An error of the disk is that of a later call.
func (l *Log) AppendLater(records ...Record) error {
	_, lead, err := l.add(records, true)
	if err != nil || !lead {
		return err
	}
	return l.flush()
}

// add puts records in a group that is pending. lead tells whether the caller is to write it: the first who waits for it is, and who does
// not, later, if too much is waiting.
func (l *Log) add(records []Record, later bool) (g *group, lead bool, err error) {
	size := 0
	for i := range records {
		size += records[i].size()
	}
	if size == 0 {
		return nil, false, nil
	}
	most := int(l.cfg.SegmentSize) - page - groupHead
	if size > most {
		return nil, false, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, most)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, false, l.err
	}
	if n := len(l.pending); n > 0 && len(l.pending[n-1].buf)-groupHead+size <= most {
		g = l.pending[n-1]
	} else {
		g = &group{buf: l.buffer(size), done: make(chan struct{})}
		l.pending = append(l.pending, g)
	}
	for i := range records {
		g.buf = records[i].append(g.buf)
	}
	if !later {
		lead, g.led = !g.led, true
		return g, lead, nil
	}
	now := time.Now()
	if g.later.IsZero() {
		g.later = now
	}
	if l.oldest.IsZero() {
		l.oldest = now
	}
	if l.soon == nil {
		l.soon = time.AfterFunc(l.cfg.Within/2, func() { _ = l.flush() }) // an error is kept
	}
	return g, len(g.buf) > maxLater || len(l.pending) > 1 || now.Sub(l.oldest) >= l.cfg.Within, nil
}

// buffer returns one with room for a group's head, and for some bytes more. It is for who has mu.
func (l *Log) buffer(size int) []byte {
	b := l.spare
	l.spare = nil
	if cap(b) < groupHead+size {
		b = make([]byte, 0, groupHead+max(size, 1024))
	}
	return b[:groupHead]
}

// flush writes what is pending.
func (l *Log) flush() error {
	l.lead <- struct{}{}
	defer func() { <-l.lead }()
	l.write(nil)
	return l.failed()
}

// write writes groups until g is done; nil: until none is pending. It is for who leads.
func (l *Log) write(g *group) {
	for {
		if g != nil {
			select {
			case <-g.done:
				return
			default:
			}
		}
		l.mu.Lock()
		if len(l.pending) == 0 {
			l.mu.Unlock()
			return
		}
		next, err := l.pending[0], l.err
		l.pending = l.pending[1:]
		if len(l.pending) == 0 && l.soon != nil {
			l.soon.Stop()
			l.soon = nil
		}
		l.mu.Unlock()
		if err == nil {
			if err = l.put(next); err != nil {
				l.fail(err)
			}
		}
		next.err = err
		close(next.done)
		l.mu.Lock()
		l.oldest = time.Time{}
		for _, p := range l.pending { // in order
			if l.oldest = p.later; !l.oldest.IsZero() {
				break
			}
		}
		if cap(next.buf) > cap(l.spare) && cap(next.buf) <= maxSpare {
			l.spare = next.buf
		}
		l.mu.Unlock()
	}
}

func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// put puts a group on disk.
func (l *Log) put(g *group) error {
	if l.end+aligned(int64(len(g.buf))) > l.current.size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	s := l.current
	s.seal(g.buf, l.number+1)
	if _, err := s.WriteAt(g.buf, l.end); err != nil {
		return fmt.Errorf("redo: %w", err)
	}
	if err := s.Sync(); err != nil {
		return fmt.Errorf("redo: %s: %w", s.path, err)
	}
	l.number++
	l.end += aligned(int64(len(g.buf)))
	return nil
}

// rotate begins the next segment and a checkpoint of those before it. It waits for the one that frees the file.
func (l *Log) rotate() error {
	full := l.current.serial
	l.checkpoint(full)
	for {
		l.check.mu.Lock()
		free, moved := l.check.free+uint64(len(l.ring)) > full, l.check.moved
		l.check.mu.Unlock()
		if free {
			return l.begin(full + 1)
		}
		if err := l.failed(); err != nil {
			return err
		}
		<-moved
	}
}

func (l *Log) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// checkpoint has what is in segments up to a serial made safe elsewhere.
func (l *Log) checkpoint(serial uint64) {
	c := &l.check
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = serial
	if !c.going {
		c.going, c.moved = true, make(chan struct{})
		c.Go(l.checkpoints)
	}
}

// checkpoints makes checkpoints for as long as there is something to do.
func (l *Log) checkpoints() {
	c := &l.check
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.free != c.want {
		want := c.want
		c.mu.Unlock()
		err := l.cfg.Checkpoint()
		if err != nil {
			l.fail(fmt.Errorf("redo: checkpoint: %w", err))
		}
		c.mu.Lock()
		if err != nil {
			break
		}
		c.free = want
		close(c.moved)
		c.moved = make(chan struct{})
	}
	c.going = false
	close(c.moved)
}

// Close writes what is pending and closes the files. Nobody else may be in a call of the log.
func (l *Log) Close() error {
	err := l.flush()
	if errors.Is(err, ErrClosed) {
		return nil
	}
	l.fail(ErrClosed)
	l.check.Wait()
	return errors.Join(err, l.closeFiles())
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range l.ring {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
