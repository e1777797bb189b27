//go:build stile

package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/bench/echopb"
)

func stilePeers() []peer {
	return []peer{
		{name: "stile-shm", network: "unix", serve: serveStile, dial: dialStile},
		{name: "stile-unix", network: "unix", env: []string{"STILE_TRANSPORT=unix"}, serve: serveStile, dial: dialStile},
	}
}

func serveStile(lis net.Listener) (func() error, error) {
	srv := stile.NewServer()
	echopb.RegisterEchoServer(srv, grpcEcho{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	return func() error { srv.Stop(); return <-done }, nil
}

func dialStile(addr net.Addr, _ int) (client, error) {
	cc, err := stile.NewClient(grpcTarget(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("stile: %w", err)
	}
	return stileClient{grpcClient{cc, echopb.NewEchoClient(cc)}}, nil
}

type stileClient struct {
	grpcClient
}
