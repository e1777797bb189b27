package stile

import (
	"net"
	"runtime"
	"sync"

	"google.golang.org/grpc"
)

// Serve is s.Serve(lis) with a local door beside lis, for a *grpc.Server that
// someone else built. All services must be registered before. s.Stop and
// s.GracefulStop mean the same for local calls as for all others: the first ends
// them, the second waits for them.
func Serve(s *grpc.Server, lis net.Listener) error {
	if off() {
		return s.Serve(lis)
	}
	set := readServer(s)
	table, err := readServices(s)
	if err != nil && !set.layoutUnknown {
		set.shut = append(set.shut, err.Error())
	}
	d := newDoor(set, table, ownServerOptions{})
	defer d.workers.close() // whatever ended Serve, calls may go on
	defer d.open(lis)()
	return s.Serve(&tiedListener{Listener: lis, door: d})
}

// tiedListener ties the door to a server that does not know of it. Both Stop and
// GracefulStop of a grpc.Server first close its listeners and then wait until
// their Accept has returned: as long as it does not, they wait for the door too.
type tiedListener struct {
	net.Listener
	door *door

	mu   sync.Mutex
	stop func(*door) // nil while the server runs
}

// Close begins what the server is about to do. Who calls it tells Stop from
// GracefulStop; anyone else only closes the listener.
func (l *tiedListener) Close() error {
	l.mu.Lock()
	if l.stop == nil {
		l.stop = stopOf(callers())
	}
	l.mu.Unlock()
	return l.Listener.Close()
}

// Accept returns the listener's error only when the door has stopped.
func (l *tiedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		l.mu.Lock()
		stop := l.stop
		l.mu.Unlock()
		if stop != nil {
			stop(l.door)
		}
	}
	return c, err
}

// stopOf chooses what a server that is stopped by one of these functions does to
// its door; nil: it is not stopped.
func stopOf(names []string) func(*door) {
	for _, name := range names {
		switch name {
		case "google.golang.org/grpc.(*Server).GracefulStop":
			return (*door).gracefulStop
		case "google.golang.org/grpc.(*Server).Stop":
			return (*door).stop
		}
	}
	return nil
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
