package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/bench/echopb"
)

func stilePeers() []peer {
	return []peer{
		stilePeer("shm"),
		stilePeer("unix", "STILE_TRANSPORT=unix"),
		inlinePeer(),
	}
}

// inlinePeer is Stile over shared memory with a method that is declared not to block.
func inlinePeer() peer {
	p := stilePeer("shm")
	p.name, p.aside = ownPrefix+"shm-inline", true
	p.serve = func(lis net.Listener) (func() error, error) {
		return serveStile(lis, stile.NonBlocking(echopb.Echo_Unary_FullMethodName))
	}
	return p
}

// stilePeer is Stile over one of its transports.
func stilePeer(transport string, env ...string) peer {
	return peer{
		name:    ownPrefix + transport,
		network: "unix",
		env:     env,
		streams: true,
		serve:   func(lis net.Listener) (func() error, error) { return serveStile(lis) },
		dial:    func(addr net.Addr, _ int) (client, error) { return dialStile(addr, transport) },
	}
}

func serveStile(lis net.Listener, opts ...grpc.ServerOption) (func() error, error) {
	srv := stile.NewServer(opts...)
	echopb.RegisterEchoServer(srv, grpcEcho{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	return func() error { srv.Stop(); return <-done }, nil
}

func dialStile(addr net.Addr, transport string) (client, error) {
	cc, err := stile.NewClient(grpcTarget(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("stile: %w", err)
	}
	return stileClient{grpcClient{cc, echopb.NewEchoClient(cc)}, transport}, nil
}

type stileClient struct {
	grpcClient
	transport string
}

// check makes one call and asks which way it went: a call that Stile leaves to
// grpc-go, or carries another way, would be measured under a false name.
func (c stileClient) check() error {
	var p grpcpeer.Peer
	if _, err := c.stub.Unary(context.Background(), &echopb.Message{}, grpc.Peer(&p)); err != nil {
		return err
	}
	info, ok := p.AuthInfo.(stile.AuthInfo)
	switch {
	case !ok:
		return fmt.Errorf("%w by grpc-go, not over %s", errOtherWay, c.transport)
	case info.Transport != c.transport:
		return fmt.Errorf("%w over %s, not %s", errOtherWay, info.Transport, c.transport)
	}
	return nil
}
