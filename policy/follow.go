package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// WithLastGoodDir sets the folder in which [Open] and [Follow] keep a copy of what was last in force, with which
// a program starts when its file or feed has a fault or is missing. The default is stile/policy
// in $XDG_STATE_HOME, or in ~/.local/state. A program without such a folder says so once, and goes
// on without a copy.
func WithLastGoodDir(dir string) Option {
	return func(p *Policy) { p.following.copies = copies{dir: dir} }
}

// WithoutLastGood makes [Open] and [Follow] keep no copy, and use none.
func WithoutLastGood() Option { return func(p *Policy) { p.following.copies = copies{off: true} } }

// Status is what became of a file or feed that is followed.
type Status struct {
	Path    string    `json:"path"`    // of the file, or the feed's name; empty: none is followed
	Version string    `json:"version"` // in force
	Since   time.Time `json:"since"`   // it is in force
	Source  Source    `json:"source"`
	Error   string    `json:"error,omitempty"` // why what is there now is not in force
}

// Source is where what is in force comes from.
type Source string

// Where it can come from.
const (
	SourceFile     Source = "file"
	SourceFeed     Source = "feed"
	SourceLastGood Source = "last good copy"
	SourceAPI      Source = "api"
)

// Status returns what is in force and why.
func (p *Policy) Status() Status {
	p.following.mu.Lock()
	defer p.following.mu.Unlock()
	s := p.following.status
	s.Path = p.following.name
	return s
}

// Close stops following the file or feed, and waits for that. What is in force stays.
func (p *Policy) Close() error {
	if p.following.cancel == nil {
		return nil
	}
	p.following.cancel()
	<-p.following.done
	return nil
}

// following is what a Policy follows, and what became of it. All but status is set before anybody
// else has the Policy.
type following struct {
	name   string // the file's path or the feed's name
	from   Source // of its versions
	poll   time.Duration
	copies copies
	cancel context.CancelFunc // ends the following; nil: nothing is followed
	done   chan struct{}      // it has ended

	mu      sync.Mutex
	status  Status
	begun   bool // others have the Policy
	changed bool // what is in force took another version's place since
}

// follow runs run until Close. fault is why the first version is not in force: the last good copy takes
// its place, and without one nothing is followed.
func (p *Policy) follow(fault error, run func(context.Context)) (*Policy, error) {
	if fault != nil {
		if err := p.fallBack(fault); err != nil {
			return nil, err
		}
		p.refuse(fault)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.following.cancel, p.following.done = cancel, done
	go func() {
		defer close(done)
		run(ctx)
	}()
	return p.told(), nil
}

// try puts a version in force, unless it has faults.
func (p *Policy) try(data string) error {
	c, err := Parse(p.following.name, []byte(data))
	if err == nil {
		p.put(c, p.following.from)
	}
	return err
}

// fallBack puts the last good copy in force. Without one the error has the fault, too.
func (p *Policy) fallBack(fault error) error {
	data, err := p.following.copies.load(p.following.name)
	if err != nil {
		return errors.Join(fault, err)
	}
	c, err := Parse(p.following.name, data)
	if err != nil {
		return errors.Join(fault, fmt.Errorf("policy: the last good copy: %w", err))
	}
	p.put(c, SourceLastGood)
	return nil
}

// refuse tells why a version is not put in force.
func (p *Policy) refuse(fault error) {
	from := p.following.fail(fault)
	p.news.tell(context.Background(), &Event{Kind: Refused, Version: p.rules.Load().version, Detail: "what is in force stays, from the " + string(from), Err: fault})
}

// fail shows why what is there now is not in force, nil if it is, and returns where what is in force comes from.
func (f *following) fail(fault error) Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Error = ""
	if fault != nil {
		f.status.Error = fault.Error()
	}
	return f.status.Source
}

// keep makes the copy.
func (p *Policy) keep(data string) {
	if err := p.following.copies.save(p.following.name, data); err != nil {
		p.news.tell(context.Background(), &Event{Kind: Faulty, Version: p.rules.Load().version, Detail: "no copy is kept", Err: err})
	}
}
