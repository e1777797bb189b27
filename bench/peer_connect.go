package main

import (
	"context"
	"errors"
	"net"
	"net/http"

	"connectrpc.com/connect"

	"github.com/stile-ipc/stile/bench/echopb"
	"github.com/stile-ipc/stile/bench/echopb/echopbconnect"
)

// connectPeer speaks the Connect protocol over cleartext HTTP/2.
func connectPeer() peer {
	return peer{name: "connect", network: "unix", serve: serveConnect, dial: dialConnect}
}

type connectEcho struct {
	echopbconnect.UnimplementedEchoHandler
}

func (connectEcho) Unary(_ context.Context, r *connect.Request[echopb.Message]) (*connect.Response[echopb.Message], error) {
	return connect.NewResponse(r.Msg), nil
}

// h2c allows cleartext HTTP/2 and nothing else.
func h2c() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

func serveConnect(lis net.Listener) (func() error, error) {
	mux := http.NewServeMux()
	mux.Handle(echopbconnect.NewEchoHandler(connectEcho{}))
	srv := &http.Server{Handler: mux, Protocols: h2c()}
	return runHTTP(srv, lis), nil
}

// runHTTP serves until the function it returns is called, which waits.
func runHTTP(srv *http.Server, lis net.Listener) (stop func() error) {
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	return func() error {
		err := srv.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

func dialConnect(addr net.Addr, _ int) (client, error) {
	transport := &http.Transport{
		Protocols: h2c(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		},
	}
	stub := echopbconnect.NewEchoClient(&http.Client{Transport: transport}, "http://localhost")
	return connectClient{transport, stub}, nil
}

type connectClient struct {
	transport *http.Transport
	stub      echopbconnect.EchoClient
}

func (c connectClient) echo(ctx context.Context, _ int, payload []byte) ([]byte, error) {
	reply, err := c.stub.Unary(ctx, connect.NewRequest(&echopb.Message{Value: payload}))
	if err != nil {
		return nil, err
	}
	return reply.Msg.Value, nil
}

func (connectClient) check() error { return nil }

func (c connectClient) close() error {
	c.transport.CloseIdleConnections()
	return nil
}
