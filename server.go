package stile

import (
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc"
)

// Server is a gRPC server with a local door: it serves the same services on its
// listeners, to clients of any language, through grpc-go, and to Stile clients on
// the same host through shared memory. Its methods are those of [grpc.Server],
// with the same concurrency contract.
type Server struct {
	inner *grpc.Server
	own   ownServerOptions
	set   serverSettings

	mu      sync.Mutex
	table   serviceTable
	door    *door // made by the first Serve; nil when Stile is off
	ended   bool
	stopped chan struct{} // closed when a stop has done its work
	once    sync.Once     // closes stopped
}

var (
	_ grpc.ServiceRegistrar = (*Server)(nil)
	_ http.Handler          = (*Server)(nil)
)

// NewServer is [grpc.NewServer] for a server that Stile clients on this host reach
// through shared memory. It takes the same options. What an option asks for is
// honoured at the local door too; with an option that cannot be, such as
// transport credentials, the door stays shut, which is said once in the log.
//
// With STILE=off in the environment there is no local door.
func NewServer(opts ...grpc.ServerOption) *Server {
	plain, own, explicit, onlyTwins := splitServerOptions(opts)
	s := &Server{inner: grpc.NewServer(plain...), own: own, table: serviceTable{}, stopped: make(chan struct{})}
	s.set = settleServer(readServer(s.inner), explicit, onlyTwins)
	return s
}

// RegisterService implements [grpc.ServiceRegistrar]. It must be called before
// Serve.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.inner.RegisterService(desc, impl) // checks, and ends the process on a mistake
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.add(desc, impl)
}

// GetServiceInfo implements reflection.ServiceInfoProvider.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo { return s.inner.GetServiceInfo() }

// Serve accepts connections on lis, and at the local door beside lis's address,
// until Stop or GracefulStop, when it returns nil, or until lis fails. It may be
// called for several listeners, of any kind.
func (s *Server) Serve(lis net.Listener) error {
	d := s.opened()
	if d == nil {
		return s.inner.Serve(lis)
	}
	defer listening.add(lis)()
	closeDoor := d.open(lis)
	err := s.inner.Serve(lis)
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended { // whoever stops the server shuts the door too
		<-s.stopped
	} else {
		closeDoor()
	}
	return err
}

// opened returns the door, made on first use; nil when Stile is off or the
// server has been stopped.
func (s *Server) opened() *door {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off() || s.ended {
		return nil
	}
	if s.door == nil {
		s.door = newDoor(s.inner, s.set, s.table, s.own)
	}
	return s.door
}

// ServeHTTP implements [http.Handler] as grpc-go does; such calls are not local.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.inner.ServeHTTP(w, r) }

// Stop ends all connections and calls at once, as [grpc.Server.Stop] does.
func (s *Server) Stop() { s.end((*grpc.Server).Stop, (*door).stop) }

// GracefulStop takes no new calls and returns when those under way have ended.
func (s *Server) GracefulStop() { s.end((*grpc.Server).GracefulStop, (*door).gracefulStop) }

// end stops the listeners' side and the door's side by side.
func (s *Server) end(stopInner func(*grpc.Server), stopDoor func(*door)) {
	s.mu.Lock()
	s.ended = true
	d := s.door
	s.mu.Unlock()
	defer s.once.Do(func() { close(s.stopped) })
	if d == nil {
		stopInner(s.inner)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		stopDoor(d)
	}()
	stopInner(s.inner)
	<-done
}
