package compat

import (
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/reflection"
)

// server is what grpc.Server, stile.Server and a grpc.Server given to
// stile.Serve have in common.
type server interface {
	reflection.GRPCServer // RegisterService and GetServiceInfo
	Serve(net.Listener) error
	Stop()
	GracefulStop()
}

// door is one way of making the two ends of a call.
type door struct {
	name string
	// transport is the value of STILE_TRANSPORT: "" for the library's choice.
	transport string
	// off is the value of STILE: "off" turns the library off.
	off string
	// local doors must carry calls past HTTP/2, by what carries names.
	local     bool
	carries   string
	newServer func(...grpc.ServerOption) server
	newClient func(string, ...grpc.DialOption) (*grpc.ClientConn, error)
}

// plainDoor is grpc-go on both sides.
func plainDoor(name string) door {
	return door{
		name:      name,
		newServer: func(o ...grpc.ServerOption) server { return grpc.NewServer(o...) },
		newClient: grpc.NewClient,
	}
}

// carrier names what carries the calls of a peer, "" if that is HTTP/2.
var carrier = func(credentials.AuthInfo) string { return "" }

// doors lists the reference first, then the reference again (a control: a case
// whose transcript is not stable would be caught there), then what is tested.
func doors() []door {
	return append([]door{plainDoor("grpc-go"), plainDoor("grpc-go-again")}, stileDoors...)
}

// countingListener counts the HTTP/2 connections a server accepted.
type countingListener struct {
	net.Listener
	accepted atomic.Int32
	once     sync.Once
	serving  chan struct{} // closed at the first Accept: the server is up
	end      sync.Once
	closed   chan struct{} // closed by Close: no new connection is taken
}

func newCountingListener(l net.Listener) *countingListener {
	return &countingListener{Listener: l, serving: make(chan struct{}), closed: make(chan struct{})}
}

func (l *countingListener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.serving) })
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

func (l *countingListener) Close() error {
	l.end.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
