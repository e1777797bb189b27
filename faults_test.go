package stile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Environment of a child process: what it is, and where.
const (
	envChild  = "STILE_TEST_CHILD"
	envSocket = "STILE_TEST_SOCKET"
)

// rounds is how often the fault tests kill something: STILE_ROUNDS, or standard; a quarter of it with -short.
func rounds(t *testing.T, standard int) int {
	s := os.Getenv("STILE_ROUNDS")
	if s == "" {
		if testing.Short() {
			standard /= 4
		}
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("STILE_ROUNDS=%q: %v", s, err)
	}
	return n
}

// runChild is main of a child process.
func runChild(kind string) {
	var err error
	switch kind {
	case "server":
		err = serveAndDie()
	case "client":
		err = callForever()
	case "successor":
		err = succeed()
	default:
		err = fmt.Errorf("no child %q", kind)
	}
	fmt.Fprintln(os.Stderr, kind, err)
	os.Exit(1)
}

// mortal is a server that kills its own process at the step a call names.
type mortal struct {
	echo
	server *Server
}

func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}

func stepOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md["die"], "")
}

func (m *mortal) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	switch stepOf(ctx) {
	case "handler":
		die()
	case "header":
		_ = grpc.SendHeader(ctx, metadata.Pairs("k", "v"))
		die()
	case "reply":
		go func() {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			die()
		}()
	case "goaway":
		go m.server.GracefulStop()
		go func() {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			die()
		}()
	}
	return m.echo.UnaryCall(ctx, r)
}

func (m *mortal) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	for n := 0; ; n++ {
		r, err := s.Recv()
		if err != nil {
			return nil
		}
		if stepOf(s.Context()) == "stream" && n == 3 {
			die()
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

func serveAndDie() error {
	lis, err := net.Listen("unix", os.Getenv(envSocket))
	if err != nil {
		return err
	}
	m := &mortal{server: NewServer()}
	pb.RegisterTestServiceServer(m.server, m)
	errs := make(chan error, 1)
	go func() { errs <- m.server.Serve(lis) }()
	awaitOpen(m.server)
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
	return <-errs
}

// awaitOpen returns when the server's local door is open.
func awaitOpen(s *Server) {
	for d := s.opened(); ; time.Sleep(100 * time.Microsecond) {
		d.mu.Lock()
		n := len(d.listeners)
		d.mu.Unlock()
		if n > 0 {
			return
		}
	}
}

func callForever() error {
	cc, err := NewClient("unix://"+os.Getenv(envSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c := pb.NewTestServiceClient(cc)
	if _, err := c.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
		return err
	}
	fmt.Println("ready")
	for range 3 {
		go func() {
			for i := 0; ; i++ {
				_, _ = c.UnaryCall(context.Background(), &pb.SimpleRequest{Payload: payload(i % 100_000)})
			}
		}()
	}
	s, err := c.FullDuplexCall(context.Background())
	for err == nil {
		if err = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(1000)}); err == nil {
			_, err = s.Recv()
		}
	}
	return err
}

// child is a process of this test binary.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

// startChild starts a child and waits until it says that it is ready.
func startChild(t testing.TB, kind, socket string, env ...string) *child {
	t.Helper()
	c := launchChild(t, kind, socket, env...)
	if line, err := bufio.NewReader(c.stdout).ReadString('\n'); line != "ready\n" {
		c.kill()
		t.Fatalf("child %s said %q, %v", kind, line, err)
	}
	return c
}

// launchChild starts a child.
func launchChild(t testing.TB, kind, socket string, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, envChild+"="+kind, envSocket+"="+socket)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &child{cmd, in, out}
}

// kill ends the child with SIGKILL and waits for it.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.stdin.Close()
}

// holdings counts what a process could leak: open files, and mappings of shared
// memory.
func holdings(t *testing.T) (files, mappings int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds), strings.Count(string(maps), "/memfd:")
}

// checkHoldings waits until the process holds no more than before.
func checkHoldings(t *testing.T, files, mappings int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		f, m := holdings(t)
		if f <= files && m <= mappings {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d files and %d shared mappings, before %d and %d", f, m, files, mappings)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// deathSteps are the steps of a call at which the server kills itself; at the
// empty one the parent kills it after a random time.
var deathSteps = []string{"handler", "header", "reply", "stream", "goaway", "", "", ""}

// TestServerKilled kills a server at every step of calls that have no deadline:
// each must end, with the code that grpc-go has for it, and nothing may be left.
func TestServerKilled(t *testing.T) {
	for _, transport := range []string{"shm", "unix"} {
		t.Run(transport, func(t *testing.T) {
			t.Setenv("STILE_DIR", t.TempDir())
			t.Setenv("STILE_TRANSPORT", transport)
			dir := t.TempDir()
			files, mappings := holdings(t)
			for i := range rounds(t, 500) {
				killedRound(t, filepath.Join(dir, strconv.Itoa(i)), deathSteps[i%len(deathSteps)])
				if t.Failed() {
					return
				}
			}
			checkHoldings(t, files, mappings)
		})
	}
}

func killedRound(t *testing.T, socket, step string) {
	srv := startChild(t, "server", socket)
	cc, err := NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := pb.NewTestServiceClient(cc)
	if step != "" {
		defer srv.kill()
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "die", step)
	results := make(chan error, 4)
	calls := []func() error{
		func() error { return callUntilDeath(ctx, c, 10) },
		func() error { return callUntilDeath(ctx, c, 200_000) },
		func() error { return streamUntilDeath(ctx, c) },
	}
	for _, call := range calls {
		go func() { results <- call() }()
	}
	if step == "" {
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		srv.kill()
	}
	for range calls {
		select {
		case err := <-results:
			if code := status.Code(err); code != codes.Unavailable {
				t.Errorf("killed at %q: a call ended with %v", step, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("killed at %q: a call hangs", step)
		}
	}
}

// callUntilDeath calls until a call fails.
func callUntilDeath(ctx context.Context, c pb.TestServiceClient, size int) error {
	for {
		if _, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(size)}); err != nil {
			return err
		}
	}
}

func streamUntilDeath(ctx context.Context, c pb.TestServiceClient) error {
	for {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		for err == nil {
			if err = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(3000)}); err == nil {
				_, err = s.Recv()
			}
		}
		if err == io.EOF {
			_, err = s.Recv()
		}
		if err != io.EOF {
			return err
		}
	}
}

// TestClientKilled kills clients at random moments.
func TestClientKilled(t *testing.T) {
	for _, transport := range []string{"shm", "unix"} {
		t.Run(transport, func(t *testing.T) {
			clientsKilled(t, transport, func(socket string) {
				for range rounds(t, 50) {
					c := startChild(t, "client", socket)
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
					c.kill()
				}
			})
		})
	}
}

// clientsKilled runs kill beside a server: that serves on, its handlers end and
// nothing is left.
func clientsKilled(t *testing.T, transport string, kill func(socket string)) {
	t.Setenv("STILE_TRANSPORT", transport)
	target, s, _ := startServer(t, &echo{})
	files, mappings := holdings(t)
	kill(strings.TrimPrefix(target, "unix://"))
	checkHoldings(t, files, mappings)
	d := s.opened()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		n := len(d.conns)
		d.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", n)
		}
	}
	d.handlers.Wait()
	if _, err := dialTest(t, target).UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Errorf("after: %v", err)
	}
}
