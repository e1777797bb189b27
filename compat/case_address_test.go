package compat

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/grpc/test/bufconn"
)

// onTCP is a case whose server listens on loopback TCP and whose client reaches
// it by a target made from the port.
func onTCP(name, network, addr string, target func(port string) string) diffCase {
	return diffCase{name: "address/" + name, run: func(e *env) {
		l, err := net.Listen(network, addr)
		if err != nil {
			e.t.Error(err)
			return
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		e.serveOn(l, e.echo(), nil)
		cc := e.dialTo(target(port))
		e.unary(e.ctx, cc, "a")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
	}}
}

// another starts a second server of the door's kind on a socket of its own and
// returns the socket's path.
func (e *env) another(name string, svc *service) string {
	path := filepath.Join(filepath.Dir(e.path), name)
	l, err := net.Listen("unix", path)
	if err != nil {
		e.t.Error(err)
		panic(stopCase{})
	}
	s := e.door.newServer()
	s.RegisterService(&testServiceDesc, svc)
	e.extra = append(e.extra, s)
	lis := newCountingListener(l)
	go s.Serve(lis)
	within(e, "the second server", lis.serving)
	return path
}

// counts is a service that counts its unary calls.
func counts(n *atomic.Int32) *service {
	return &service{unary: func(_ context.Context, in *msg) (*msg, error) { n.Add(1); return in, nil }}
}

// resolved is a dial option and a target that resolve to the sockets.
func resolved(paths ...string) (string, grpc.DialOption) {
	r := manual.NewBuilderWithScheme("compat")
	var addrs []resolver.Address
	for _, p := range paths {
		addrs = append(addrs, resolver.Address{Addr: "unix:" + p})
	}
	r.InitialState(resolver.State{Addresses: addrs})
	return "compat:///shop", grpc.WithResolvers(r)
}

// unixDialer dials addresses of the form unix:PATH, counting.
func unixDialer(n *atomic.Int32) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		n.Add(1)
		var d net.Dialer
		if len(addr) > 5 && addr[:5] == "unix:" {
			addr = addr[5:]
		}
		return d.DialContext(ctx, "unix", addr)
	})
}

var addressCases = []diffCase{
	onTCP("ip", "tcp", "127.0.0.1:0", func(p string) string { return "127.0.0.1:" + p }),
	onTCP("dns localhost", "tcp", "127.0.0.1:0", func(p string) string { return "dns:///localhost:" + p }),
	onTCP("passthrough", "tcp", "127.0.0.1:0", func(p string) string { return "passthrough:///127.0.0.1:" + p }),
	onTCP("any address", "tcp", ":0", func(p string) string { return "127.0.0.1:" + p }),
	{name: "address/two listeners", run: func(e *env) {
		e.serve(nil)
		path := filepath.Join(filepath.Dir(e.path), "second")
		l, err := net.Listen("unix", path)
		if err != nil {
			e.t.Error(err)
			return
		}
		second := newCountingListener(l)
		go e.srv.Serve(second)
		within(e, "the second listener", second.serving)
		e.unary(e.ctx, e.dial(), "first")
		e.unary(e.ctx, e.dialTo("unix://"+path), "second")
		if n := second.accepted.Load(); e.door.local && n != 0 {
			e.t.Errorf("not local: %d connection(s) on the second listener", n)
		}
	}},
	{name: "address/own dialer", remote: true, run: func(e *env) {
		var n atomic.Int32
		e.serve(nil)
		e.unary(e.ctx, e.dial(unixDialer(&n)), "a")
		e.c("dialer called %v", n.Load() > 0)
	}},
	{name: "address/bufconn", remote: true, run: func(e *env) {
		l := bufconn.Listen(1 << 16)
		e.serveOn(l, e.echo(), nil)
		cc := e.dialTo("passthrough:///bufnet", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return l.DialContext(ctx)
		}))
		e.unary(e.ctx, cc, "a")
	}},
	{name: "address/http handler", remote: true, run: func(e *env) {
		e.svc = &service{}
		s := e.door.newServer()
		s.RegisterService(&testServiceDesc, e.svc)
		e.srv = s
		l, err := net.Listen("unix", e.path)
		if err != nil {
			e.t.Error(err)
			return
		}
		h := &http.Server{Handler: s.(http.Handler), Protocols: new(http.Protocols)}
		h.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- h.Serve(l) }()
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		cc.Close()
		h.Close()
		within(e, "the http server", served)
	}},
	{name: "address/first of two", remote: true, run: func(e *env) {
		var a, b atomic.Int32
		e.serve(counts(&a))
		target, opt := resolved(e.path, e.another("second", counts(&b)))
		cc := e.dialTo(target, opt)
		for range 10 {
			e.unary(e.ctx, cc, "x")
		}
		e.c("first %d second %d", a.Load(), b.Load())
	}},
	{name: "address/second of two when the first is dead", remote: true, run: func(e *env) {
		var b atomic.Int32
		e.svc = &service{}
		target, opt := resolved(e.path, e.another("second", counts(&b)))
		e.srv = e.extra[0]
		cc := e.dialTo(target, opt)
		for range 10 {
			e.unary(e.ctx, cc, "x", grpc.WaitForReady(true))
		}
		e.c("second %d", b.Load())
	}},
	{name: "address/round robin over two", remote: true, run: func(e *env) {
		var a, b atomic.Int32
		e.serve(counts(&a))
		target, opt := resolved(e.path, e.another("second", counts(&b)))
		cc := e.dialTo(target, opt, grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
		for e.ctx.Err() == nil && (a.Load() == 0 || b.Load() == 0) {
			if err := cc.Invoke(e.ctx, unaryMethod, str(""), new(msg)); err != nil {
				e.c("%s", errText(err))
				break
			}
		}
		e.c("both called %v", a.Load() > 0 && b.Load() > 0)
		a.Store(0)
		b.Store(0)
		for range 20 {
			e.unary(e.ctx, cc, "")
		}
		e.c("then first %d second %d", a.Load(), b.Load())
	}},
	{name: "address/two targets, one server", run: func(e *env) {
		e.serve(nil)
		e.unary(e.ctx, e.dialTo("unix:"+e.path), "a")
		e.unary(e.ctx, e.dialTo("unix://"+e.path), "b")
	}},
	{name: "address/unknown scheme", run: func(e *env) {
		e.svc = &service{}
		_, err := e.tryDialTo("dns://bad authority//x")
		e.c("failed %v", err != nil)
		cc, err := e.tryDialTo("dns:///")
		e.c("failed %v", err != nil)
		if err == nil {
			ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
			defer cancel()
			e.c("%s", codeText(cc.Invoke(ctx, unaryMethod, str(""), new(msg))))
		}
	}},
	{name: "address/dial errors", run: func(e *env) {
		e.svc = &service{}
		_, err := e.door.newClient(e.target())
		e.c("no credentials: %s", errText(err))
		_, err = e.door.newClient(e.target(), insecureOption(), grpc.WithDefaultServiceConfig(`{"nonsense`))
		e.c("bad service config: failed %v", err != nil)
	}},
	{name: "secure/local credentials", remote: true, run: func(e *env) {
		e.serve(e.tells(), grpc.Creds(local.NewCredentials()))
		cc := e.dial(grpc.WithTransportCredentials(local.NewCredentials()))
		e.unary(e.ctx, cc, "a", grpc.PerRPCCredentials(perRPC{e: e, secure: true, md: map[string]string{"token": "t"}}))
	}},
	{name: "secure/TLS both ways", remote: true, run: func(e *env) {
		cert, pool := selfSigned(e)
		e.serve(e.tells(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})))
		cc := e.dial(grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "shop.example"})))
		e.unary(e.ctx, cc, "a", grpc.PerRPCCredentials(perRPC{e: e, secure: true, md: map[string]string{"token": "t"}}))
		// Who has no certificate gets in by no door.
		e.c("%s", codeText(e.dial().Invoke(e.ctx, unaryMethod, str("b"), new(msg))))
	}},
	{name: "secure/TLS client, plain server", remote: true, run: func(e *env) {
		_, pool := selfSigned(e)
		e.serve(e.tells())
		cc := e.dial(grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "shop.example"})))
		e.c("%s", codeText(cc.Invoke(e.ctx, unaryMethod, str("a"), new(msg))))
	}},
	{name: "secure/tap", remote: true, run: func(e *env) {
		e.serve(nil, grpc.InTapHandle(func(ctx context.Context, i *tap.Info) (context.Context, error) {
			if len(i.Header["token"]) == 0 {
				return nil, status.Error(codes.PermissionDenied, "tapped")
			}
			return ctx, nil
		}))
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "token", "t"), cc, "b")
	}},
}

// tells is a service that says how its peer is known.
func (e *env) tells() *service {
	return &service{unary: func(ctx context.Context, in *msg) (*msg, error) {
		p, _ := peer.FromContext(ctx)
		if p == nil || p.AuthInfo == nil {
			return nil, errors.New("unknown peer")
		}
		md, _ := metadata.FromIncomingContext(ctx)
		e.s("auth %s token %v", p.AuthInfo.AuthType(), md["token"])
		return in, nil
	}}
}

// selfSigned is a certificate for shop.example that both sides trust.
func selfSigned(e *env) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.t.Error(err)
		panic(stopCase{})
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "shop"},
		DNSNames:              []string{"shop.example"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		e.t.Error(err)
		panic(stopCase{})
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		e.t.Error(err)
		panic(stopCase{})
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
