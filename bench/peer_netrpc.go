package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"sync"
)

// netrpcPeer is the standard library's net/rpc with its gob codec.
func netrpcPeer() peer {
	return peer{name: "net-rpc", network: "unix", serve: serveNetRPC, dial: dialNetRPC}
}

// NetRPCMessage is echopb.Message as gob wants it. net/rpc asks for an exported name.
type NetRPCMessage struct {
	Value []byte
}

type netrpcEcho struct{}

// Unary has the signature that net/rpc asks for.
func (netrpcEcho) Unary(in *NetRPCMessage, out *NetRPCMessage) error {
	out.Value = in.Value
	return nil
}

func serveNetRPC(lis net.Listener) (func() error, error) {
	srv := rpc.NewServer()
	if err := srv.RegisterName("Echo", netrpcEcho{}); err != nil {
		return nil, fmt.Errorf("net-rpc: %w", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { srv.ServeConn(conn) })
		}
	})
	return func() error {
		err := lis.Close()
		serving.Wait() // the client has closed its connection by now
		return err
	}, nil
}

func dialNetRPC(addr net.Addr, _ int) (client, error) {
	c, err := rpc.Dial(addr.Network(), addr.String())
	if err != nil {
		return nil, fmt.Errorf("net-rpc: %w", err)
	}
	return netrpcClient{c}, nil
}

type netrpcClient struct {
	conn *rpc.Client
}

func (c netrpcClient) echo(_ context.Context, _ int, payload []byte) ([]byte, error) {
	var reply NetRPCMessage
	err := c.conn.Call("Echo.Unary", &NetRPCMessage{payload}, &reply)
	return reply.Value, err
}

func (netrpcClient) check() error { return nil }

func (c netrpcClient) close() error {
	if err := c.conn.Close(); !errors.Is(err, rpc.ErrShutdown) {
		return err
	}
	return nil
}
