package policy

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// defaultPoll is how often a file is looked at. What is new is in force after two looks.
const defaultPoll = time.Second

// WithPollInterval sets how often [Open] looks at its file; the default is a second. A change is in force
// once two looks have found the same, so that a file is not read while it is being written.
func WithPollInterval(d time.Duration) Option { return func(p *Policy) { p.following.poll = d } }

// Open puts the file at path in force and follows its changes until [Policy.Close]. A version with faults
// changes nothing: it is told, with all its faults, and shows in [Policy.Status].
//
// When Open finds a file with faults, or none, it puts the copy of the last version in force that was
// good, and tells that. Without a copy it returns the faults.
//
// The file is read again and again, not watched: editors rename, Kubernetes swaps links, network file systems tell
// nobody.
func Open(path string, opts ...Option) (*Policy, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	p := newPolicy(nil, opts)
	p.following.name, p.following.from = path, SourceFile
	w := &watch{p: p}
	fault := w.heed(w.look())
	w.unkept = fault == nil // until another look has found the same: it may be half of a file
	return p.follow(fault, w.run)
}

// watch follows a file.
type watch struct {
	p       *Policy
	handled look  // the last that was put in force or told
	pending *look // what the last look found, if it was new
	unkept  bool  // handled is in force, and there is no copy of it yet
}

// look is what was found at a path.
type look struct{ data, fault string }

func (w *watch) look() (look, error) {
	data, err := readRegular(w.p.following.name)
	if err != nil {
		return look{fault: err.Error()}, err
	}
	return look{data: string(data)}, nil
}

// readRegular reads no more than Parse takes and one byte. It opens nothing but files: opening a pipe
// waits for its writer, and Close would too.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// heed puts what was found in force, or returns why not.
func (w *watch) heed(found look, err error) error {
	w.handled = found
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return w.p.try(found.data)
}

func (w *watch) run(ctx context.Context) {
	every := w.p.following.poll
	if every <= 0 {
		every = defaultPoll
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.poll()
		}
	}
}

// poll looks once, and heeds what two looks have found.
func (w *watch) poll() {
	found, err := w.look()
	if found == w.handled {
		if w.pending = nil; w.unkept {
			w.unkept = false
			w.p.keep(found.data)
		}
		return
	}
	if w.pending == nil || *w.pending != found {
		w.pending = &found
		return
	}
	w.pending, w.unkept = nil, false
	if fault := w.heed(found, err); fault != nil {
		w.p.refuse(fault)
		return
	}
	w.p.keep(found.data)
}
