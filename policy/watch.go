package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// defaultPoll is how often a file is looked at. What is new is in force after two looks.
const defaultPoll = time.Second

// WithPollInterval sets how often [Open] looks at its file; the default is a second. A change is in force
// once two looks have found the same, so that a file is not read while it is being written.
func WithPollInterval(d time.Duration) Option { return func(p *Policy) { p.watch.every = d } }

// WithLastGoodDir sets the folder in which [Open] keeps a copy of what was last in force, with which
// a program starts when its file has a fault or is missing. The default is stile/policy
// in $XDG_STATE_HOME, or in ~/.local/state. A program without such a folder says so once, and goes
// on without a copy.
func WithLastGoodDir(dir string) Option { return func(p *Policy) { p.watch.copies = copies{dir: dir} } }

// WithoutLastGood makes [Open] keep no copy.
func WithoutLastGood() Option { return func(p *Policy) { p.watch.copies = copies{off: true} } }

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
	p := New(nil, opts...)
	w := &p.watch
	w.path, w.stop, w.done = path, make(chan struct{}), make(chan struct{})
	if err := w.start(p); err != nil {
		return nil, err
	}
	go w.run(p)
	return p, nil
}

// Status is what became of a file that is followed.
type Status struct {
	Path    string    `json:"path"`    // empty: none is followed
	Version string    `json:"version"` // in force
	Since   time.Time `json:"since"`   // it is in force
	Source  Source    `json:"source"`
	Error   string    `json:"error,omitempty"` // why the file as it is now is not in force
}

// Source is where what is in force comes from.
type Source string

// Where it can come from.
const (
	SourceFile     Source = "file"
	SourceLastGood Source = "last good copy"
	SourceAPI      Source = "api"
)

// Status returns what is in force and why.
func (p *Policy) Status() Status {
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	s := p.watch.status
	s.Path = p.watch.path
	return s
}

// Close stops following the file, and waits for that. What is in force stays.
func (p *Policy) Close() error {
	if p.watch.stop == nil {
		return nil
	}
	p.watch.once.Do(func() { close(p.watch.stop) })
	<-p.watch.done
	return nil
}

// watch follows a file.
type watch struct {
	path   string
	every  time.Duration
	copies copies
	stop   chan struct{} // nil: nothing is followed
	once   sync.Once     // closes stop
	done   chan struct{}

	handled look  // the last that was put in force or told; of the following goroutine
	pending *look // what the last look found, if it was new
	unkept  bool  // handled is in force, and there is no copy of it yet

	mu     sync.Mutex
	status Status
}

// look is what was found at a path.
type look struct{ data, fault string }

func (w *watch) look() (look, error) {
	data, err := readRegular(w.path)
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

// start puts the file or the copy in force.
func (w *watch) start(p *Policy) error {
	found, err := w.look()
	w.handled = found
	var c *Config
	if err == nil {
		c, err = Parse(w.path, []byte(found.data))
	} else {
		err = fmt.Errorf("policy: %w", err)
	}
	if err == nil {
		p.put(c, SourceFile)
		w.unkept = true // until another look has found the same: it may be half of a file
		return nil
	}
	copied, cerr := w.copies.load(w.path)
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	if c, cerr = Parse(w.path, copied); cerr != nil {
		return errors.Join(err, fmt.Errorf("policy: the last good copy: %w", cerr))
	}
	p.put(c, SourceLastGood)
	w.refuse(p, err)
	return nil
}

func (w *watch) run(p *Policy) {
	defer close(w.done)
	every := w.every
	if every <= 0 {
		every = defaultPoll
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			w.poll(p)
		}
	}
}

// poll looks once, and heeds what two looks have found.
func (w *watch) poll(p *Policy) {
	found, err := w.look()
	if found == w.handled {
		if w.pending = nil; w.unkept {
			w.unkept = false
			w.keep(p, found.data)
		}
		return
	}
	if w.pending == nil || *w.pending != found {
		w.pending = &found
		return
	}
	w.handled, w.pending, w.unkept = found, nil, false
	if err != nil {
		w.refuse(p, fmt.Errorf("policy: %w", err))
		return
	}
	c, err := Parse(w.path, []byte(found.data))
	if err != nil {
		w.refuse(p, err)
		return
	}
	p.put(c, SourceFile)
	w.keep(p, found.data)
}

// refuse tells of a file that is not put in force.
func (w *watch) refuse(p *Policy, err error) {
	w.mu.Lock()
	w.status.Error = err.Error()
	w.mu.Unlock()
	p.news.tell(context.Background(), &Event{Kind: Refused, Version: p.rules.Load().version, Detail: "what is in force stays, from the " + string(w.source()), Err: err})
}

func (w *watch) source() Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status.Source
}

// keep makes the copy.
func (w *watch) keep(p *Policy, data string) {
	if err := w.copies.save(w.path, data); err != nil {
		p.news.tell(context.Background(), &Event{Kind: Faulty, Version: p.rules.Load().version, Detail: "no copy is kept", Err: err})
	}
}
