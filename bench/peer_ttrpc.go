package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containerd/ttrpc"

	"github.com/stile-ipc/stile/bench/echopb"
)

func ttrpcPeer() peer {
	return peer{name: "ttrpc", network: "unix", serve: serveTTRPC, dial: dialTTRPC, streams: true}
}

type ttrpcEcho struct{}

func (ttrpcEcho) Unary(_ context.Context, m *echopb.Message) (*echopb.Message, error) {
	return m, nil
}

func (ttrpcEcho) Down(_ context.Context, m *echopb.Message, s echopb.TTRPCEcho_DownServer) error {
	return sendAll(m, s)
}

func (ttrpcEcho) Chat(_ context.Context, s echopb.TTRPCEcho_ChatServer) error { return answer(s) }

func serveTTRPC(lis net.Listener) (func() error, error) {
	srv, err := ttrpc.NewServer()
	if err != nil {
		return nil, fmt.Errorf("ttrpc: %w", err)
	}
	echopb.RegisterTTRPCEchoService(srv, ttrpcEcho{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), lis) }()
	return func() error {
		err := srv.Close()
		if served := <-done; !errors.Is(served, ttrpc.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

func dialTTRPC(addr net.Addr, _ int) (client, error) {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		return nil, fmt.Errorf("ttrpc: %w", err)
	}
	c := ttrpc.NewClient(conn)
	return ttrpcClient{c, echopb.NewTTRPCEchoClient(c)}, nil
}

type ttrpcClient struct {
	conn *ttrpc.Client
	stub echopb.TTRPCEchoClient
}

func (c ttrpcClient) echo(ctx context.Context, _ int, payload []byte) ([]byte, error) {
	reply, err := c.stub.Unary(ctx, &echopb.Message{Value: payload})
	return reply.GetValue(), err
}

func (c ttrpcClient) down(ctx context.Context, _ int, m *echopb.Message) (receiver, error) {
	return c.stub.Down(ctx, m)
}

func (c ttrpcClient) chat(ctx context.Context, _ int) (chatter, error) { return c.stub.Chat(ctx) }

func (ttrpcClient) check() error { return nil }

func (c ttrpcClient) close() error { return c.conn.Close() }
