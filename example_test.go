//go:build linux || darwin

package stile_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile"
)

// socket is a unix socket of its own, with a folder for the rendezvous, until
// remove is called. Programs need neither: the rendezvous has a default.
func socket() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "stile")
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv("STILE_DIR", filepath.Join(dir, "doors"))
	return filepath.Join(dir, "s"), func() {
		os.Unsetenv("STILE_DIR")
		os.RemoveAll(dir)
	}
}

// A server serves its listener through grpc-go, and clients on the same host
// through shared memory.
func ExampleNewServer() {
	path, remove := socket()
	defer remove()

	lis, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	s := stile.NewServer() // was grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(lis)
	defer s.Stop()

	fmt.Println(len(s.GetServiceInfo()), "service")
	// Output: 1 service
}

// A client takes the way that is there: here the server's local door.
func ExampleNewClient() {
	path, remove := socket()
	defer remove()
	defer serveHealth(path)()

	cc, err := stile.NewClient("unix://"+path, // was grpc.NewClient
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	r, err := healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Status)
	// Output: SERVING
}

// Serve is for a *grpc.Server that another library has built.
func ExampleServe() {
	path, remove := socket()
	defer remove()

	lis, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- stile.Serve(s, lis) }() // was s.Serve(lis)

	fmt.Println(check(path))
	s.GracefulStop() // waits for local calls too
	fmt.Println(<-done)
	// Output:
	// SERVING
	// <nil>
}

// DialOptions is for a library that makes the connection itself.
func ExampleDialOptions() {
	path, remove := socket()
	defer remove()
	defer serveHealth(path)()

	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	cc, err := grpc.NewClient("unix://"+path, stile.DialOptions(opts...)...)
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	r, err := healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Status)
	// Output: SERVING
}

// Diagnose tells why calls go the way they go.
func ExampleDiagnose() {
	path, remove := socket()
	defer remove()

	d, err := stile.Diagnose(context.Background(), "unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("calls go over", d.Way) // d.Reason says why
	for _, s := range d.Steps {
		fmt.Println(s.Name, s.OK)
	}
	// Output:
	// calls go over grpc
	// environment true
	// options true
	// resolve true
	// rendezvous false
}

// whoami is a service that looks at its caller.
type whoami struct {
	healthpb.UnimplementedHealthServer
}

func (whoami) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	p, _ := peer.FromContext(ctx)
	if a, ok := p.AuthInfo.(stile.AuthInfo); ok { // else the call came over HTTP/2
		fmt.Println("same process:", a.PID == os.Getpid())
		fmt.Println("same user:", a.UID == os.Getuid())
	}
	return &healthpb.HealthCheckResponse{}, nil
}

// A handler learns from the kernel which process called it.
func ExampleAuthInfo() {
	path, remove := socket()
	defer remove()

	lis, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	s := stile.NewServer()
	healthpb.RegisterHealthServer(s, whoami{})
	go s.Serve(lis)
	defer s.Stop()
	waitLocal(path)

	check(path)
	// Output:
	// same process: true
	// same user: true
}

// serveHealth serves at a unix socket, local door and all, until stop is called.
func serveHealth(path string) (stop func()) {
	lis, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	s := stile.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(lis)
	waitLocal(path)
	return s.Stop
}

// waitLocal waits until the server at path has opened its local door.
func waitLocal(path string) {
	for {
		d, err := stile.Diagnose(context.Background(), "unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		if d.Way != "grpc" {
			return
		}
	}
}

// check asks the server at path how it is.
func check(path string) healthpb.HealthCheckResponse_ServingStatus {
	cc, err := stile.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	r, err := healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	return r.Status
}

// An HTTP server and its client meet through shared memory; both take the socket
// where that cannot be had.
func ExampleListen() {
	path, remove := socket()
	defer remove()

	lis, err := stile.Listen(path) // was net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello ", r.URL.Path)
	})}
	go srv.Serve(lis)
	defer srv.Close()

	d := new(stile.Dialer)
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://app/world")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(string(body), err)
	// Output: hello /world <nil>
}

// A ttrpc server, a Redis client or anything else that takes a net.Conn gets one.
func ExampleDialer() {
	path, remove := socket()
	defer remove()

	lis, err := stile.Listen(path)
	if err != nil {
		log.Fatal(err)
	}
	defer lis.Close()
	go func() {
		c, err := lis.Accept()
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(c, c)
		c.Close()
	}()

	c, err := new(stile.Dialer).Dial("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(c, "there and back")
	c.(interface{ CloseWrite() error }).CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	c.Close()
	// Output: there and back <nil>
}
