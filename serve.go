package stile

import (
	"bytes"
	"net"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Serve is s.Serve(lis) with a local door beside lis, for a *grpc.Server that
// someone else built. All services must be registered before. s.Stop and
// s.GracefulStop mean the same for local calls as for all others: the first ends
// them, the second waits for them. HTTP/2 clients are told to go away once the
// local calls have ended.
func Serve(s *grpc.Server, lis net.Listener) error {
	if off() {
		return s.Serve(lis)
	}
	set := readServer(s)
	table, err := readServices(s)
	if err != nil && !set.layoutUnknown {
		set.shut = append(set.shut, err.Error())
	}
	d := newDoor(s, set, table, ownServerOptions{})
	defer listening.add(lis)()
	closeDoor := d.open(lis)
	tied := &tiedListener{Listener: lis, door: d}
	err = s.Serve(tied)
	if !tied.stopped() { // the listener failed, or someone else closed it: calls go on until s stops
		closeDoor()
		if quit := quitting(s); quit != nil && len(d.connections()) > 0 {
			go func() {
				<-quit
				d.stop()
			}()
		}
	}
	d.workers.close()
	return err
}

// tiedListener ties the door to a server that does not know of it. Both Stop and
// GracefulStop of a grpc.Server first close its listeners and then wait until
// their Accept has returned: as long as it does not, they wait for the door too.
type tiedListener struct {
	net.Listener
	door *door

	mu   sync.Mutex
	stop stopKind
}

type stopKind int

const (
	notStopped stopKind = iota
	stopNow
	stopGracefully
)

func (l *tiedListener) stopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stop != notStopped
}

// Close begins what the server is about to do. Who calls it tells Stop from
// GracefulStop; anyone else only closes the listener.
func (l *tiedListener) Close() error {
	l.mu.Lock()
	if l.stop == notStopped {
		l.stop = stopOf(callers())
	}
	l.mu.Unlock()
	return l.Listener.Close()
}

// Accept returns the listener's error only when the door has stopped.
func (l *tiedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	l.mu.Lock()
	stop := l.stop
	l.mu.Unlock()
	switch stop {
	case stopNow:
		l.door.stop()
	case stopGracefully:
		l.stopGracefully()
	}
	return nil, err
}

// stopSample is how often a graceful stop looks whether Stop cuts it short.
const stopSample = 100 * time.Millisecond

// stopGracefully waits for the door's calls. A Stop that is called meanwhile waits
// for Accept and tells nobody, so the stacks must.
func (l *tiedListener) stopGracefully() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.door.gracefulStop()
	}()
	t := time.NewTicker(stopSample)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			if stacksShow(stopFunc + "(") {
				l.door.stop()
			}
		}
	}
}

// stacksShow reports whether the text is in the stacks of all goroutines, of which
// it looks at 16 MiB.
func stacksShow(text string) bool {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= 16<<20 {
			return bytes.Contains(buf[:n], []byte(text))
		}
		buf = make([]byte, 4*len(buf))
	}
}

const (
	stopFunc     = "google.golang.org/grpc.(*Server).Stop"
	gracefulFunc = "google.golang.org/grpc.(*Server).GracefulStop"
)

// stopOf tells what the functions on a stack are doing to their server.
func stopOf(names []string) stopKind {
	for _, name := range names {
		switch name {
		case gracefulFunc:
			return stopGracefully
		case stopFunc:
			return stopNow
		}
	}
	return notStopped
}

// callers names the functions on the stack, innermost first.
func callers() []string {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var names []string
	for {
		f, more := frames.Next()
		names = append(names, f.Function)
		if !more {
			return names
		}
	}
}
