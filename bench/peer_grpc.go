package main

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile/bench/echopb"
)

func grpcUnixPeer() peer {
	return peer{name: basePeer, network: "unix", serve: serveGRPC, dial: dialGRPC, streams: true}
}

func grpcTCPPeer() peer {
	return peer{name: "grpc-tcp", network: "tcp", serve: serveGRPC, dial: dialGRPC, streams: true}
}

// grpcEcho is the echo service for grpc-go and for all that registers like it.
type grpcEcho struct {
	echopb.UnimplementedEchoServer
}

func (grpcEcho) Unary(_ context.Context, m *echopb.Message) (*echopb.Message, error) {
	return m, nil
}

func (grpcEcho) Down(m *echopb.Message, s grpc.ServerStreamingServer[echopb.Message]) error {
	return sendAll(m, s)
}

func (grpcEcho) Chat(s grpc.BidiStreamingServer[echopb.Message, echopb.Message]) error {
	return answer(s)
}

func serveGRPC(lis net.Listener) (func() error, error) {
	srv := grpc.NewServer()
	echopb.RegisterEchoServer(srv, grpcEcho{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	return func() error { srv.Stop(); return <-done }, nil
}

// grpcTarget is the address in grpc-go's syntax.
func grpcTarget(addr net.Addr) string {
	if addr.Network() == "unix" {
		return "unix://" + addr.String()
	}
	return "passthrough:///" + addr.String()
}

func dialGRPC(addr net.Addr, _ int) (client, error) {
	cc, err := grpc.NewClient(grpcTarget(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("grpc: %w", err)
	}
	return grpcClient{cc, echopb.NewEchoClient(cc)}, nil
}

type grpcClient struct {
	cc   *grpc.ClientConn
	stub echopb.EchoClient
}

func (c grpcClient) echo(ctx context.Context, _ int, payload []byte) ([]byte, error) {
	reply, err := c.stub.Unary(ctx, &echopb.Message{Value: payload})
	return reply.GetValue(), err
}

func (c grpcClient) down(ctx context.Context, _ int, m *echopb.Message) (receiver, error) {
	return c.stub.Down(ctx, m)
}

func (c grpcClient) chat(ctx context.Context, _ int) (chatter, error) { return c.stub.Chat(ctx) }

func (c grpcClient) check() error { return nil }

func (c grpcClient) close() error { return c.cc.Close() }
