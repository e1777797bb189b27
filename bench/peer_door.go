package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/bench/echopb"
)

// doorPeers are protocols that know nothing of Stile: HTTP/1.1, grpc-go and ttrpc over
// a unix socket and over stile.Listen and stile.Dialer.
func doorPeers() []peer {
	plain := peer{name: "http", network: "unix", serve: serveHTTP, dial: dialHTTP(dialNet), aside: true}
	httpDoor := plain
	httpDoor.name, httpDoor.listen, httpDoor.dial = "http-door", listenDoor, dialHTTP(dialDoor)
	grpcDoor := grpcUnixPeer()
	grpcDoor.name, grpcDoor.listen, grpcDoor.dial, grpcDoor.aside = "grpc-door", listenDoor, dialGRPCDoor, true
	ttrpcDoor := ttrpcPeer()
	ttrpcDoor.name, ttrpcDoor.listen, ttrpcDoor.dial, ttrpcDoor.aside = "ttrpc-door", listenDoor, dialTTRPCDoor, true
	return []peer{plain, httpDoor, grpcDoor, ttrpcDoor}
}

func listenDoor(_, address string) (net.Listener, error) { return stile.Listen(address) }

func dialNet(ctx context.Context, addr net.Addr) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
}

// dialDoor fails where there is no door, so that nothing is measured under a false name.
func dialDoor(ctx context.Context, addr net.Addr) (net.Conn, error) {
	c, err := new(stile.Dialer).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return nil, err
	}
	if _, plain := c.(*net.UnixConn); plain {
		return nil, errors.Join(fmt.Errorf("%w by a unix socket, not through the door", errOtherWay), c.Close())
	}
	return c, nil
}

func dialGRPCDoor(addr net.Addr, _ int) (client, error) {
	cc, err := grpc.NewClient(grpcTarget(addr), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialDoor(ctx, addr) }))
	if err != nil {
		return nil, fmt.Errorf("grpc: %w", err)
	}
	return grpcClient{cc, echopb.NewEchoClient(cc)}, nil
}

func dialTTRPCDoor(addr net.Addr, _ int) (client, error) {
	conn, err := dialDoor(context.Background(), addr)
	if err != nil {
		return nil, fmt.Errorf("ttrpc: %w", err)
	}
	c := ttrpc.NewClient(conn)
	return ttrpcClient{c, echopb.NewTTRPCEchoClient(c)}, nil
}

func serveHTTP(lis net.Listener) (func() error, error) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body)
	})}
	return runHTTP(srv, lis), nil
}

// dialHTTP keeps a connection for each caller.
func dialHTTP(dial func(context.Context, net.Addr) (net.Conn, error)) func(net.Addr, int) (client, error) {
	return func(addr net.Addr, callers int) (client, error) {
		tr := &http.Transport{
			MaxIdleConns: callers, MaxIdleConnsPerHost: callers, DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, addr) },
		}
		return httpClient{transport: tr, client: &http.Client{Transport: tr}}, nil
	}
}

type httpClient struct {
	transport *http.Transport
	client    *http.Client
}

func (c httpClient) echo(ctx context.Context, _ int, payload []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://echo/", bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("http: %s", resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func (c httpClient) check() error { return nil }

func (c httpClient) close() error {
	c.transport.CloseIdleConnections()
	return nil
}
