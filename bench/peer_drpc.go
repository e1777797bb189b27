package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"

	"github.com/stile-ipc/stile/bench/echopb"
)

// drpcPeer gives each caller a connection of its own, because a drpc connection
// carries one call at a time.
func drpcPeer() peer {
	return peer{name: "drpc", network: "unix", serve: serveDRPC, dial: dialDRPC, streams: true}
}

type drpcEcho struct{}

func (drpcEcho) Unary(_ context.Context, m *echopb.Message) (*echopb.Message, error) {
	return m, nil
}

func (drpcEcho) Down(m *echopb.Message, s echopb.DRPCEcho_DownStream) error { return sendAll(m, s) }

func (drpcEcho) Chat(s echopb.DRPCEcho_ChatStream) error { return answer(s) }

func serveDRPC(lis net.Listener) (func() error, error) {
	mux := drpcmux.New()
	if err := echopb.DRPCRegisterEcho(mux, drpcEcho{}); err != nil {
		return nil, fmt.Errorf("drpc: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- drpcserver.New(mux).Serve(ctx, lis) }()
	return func() error { cancel(); return <-done }, nil
}

func dialDRPC(addr net.Addr, callers int) (client, error) {
	c := make(drpcClient, 0, callers)
	for range callers {
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("drpc: %w", err), c.close())
		}
		dc := drpcconn.New(conn)
		c = append(c, drpcCaller{dc, echopb.NewDRPCEchoClient(dc)})
	}
	return c, nil
}

type drpcCaller struct {
	conn *drpcconn.Conn
	stub echopb.DRPCEchoClient
}

type drpcClient []drpcCaller

func (c drpcClient) echo(ctx context.Context, caller int, payload []byte) ([]byte, error) {
	reply, err := c[caller].stub.Unary(ctx, &echopb.Message{Value: payload})
	return reply.GetValue(), err
}

func (c drpcClient) down(ctx context.Context, caller int, m *echopb.Message) (receiver, error) {
	return c[caller].stub.Down(ctx, m)
}

func (c drpcClient) chat(ctx context.Context, caller int) (chatter, error) {
	return c[caller].stub.Chat(ctx)
}

func (drpcClient) check() error { return nil }

func (c drpcClient) close() error {
	var err error
	for _, caller := range c {
		err = errors.Join(err, caller.conn.Close())
	}
	return err
}
