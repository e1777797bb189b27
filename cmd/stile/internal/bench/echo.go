package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile"
)

// echoMethod answers with what it is sent.
const echoMethod = "/stile.bench.v1.Echo/Unary"

var echoService = grpc.ServiceDesc{
	ServiceName: "stile.bench.v1.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: echo}},
}

func echo(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	if intercept == nil {
		return in, nil
	}
	same := func(_ context.Context, in any) (any, error) { return in, nil }
	return intercept(ctx, in, &grpc.UnaryServerInfo{FullMethod: echoMethod}, same)
}

// Listening is what an echo server prints once it serves.
type Listening struct {
	Addresses []string `json:"listening"` // as a client dials them
}

// Serve answers echo calls at addresses, each host:port or unix:///path, until ctx
// ends. It calls ready when it listens at all of them. A plain server is grpc-go's.
func Serve(ctx context.Context, addresses []string, plain bool, opts []grpc.ServerOption, ready func(Listening) error) error {
	var server interface {
		grpc.ServiceRegistrar
		Serve(net.Listener) error
		Stop()
	}
	server = stile.NewServer(opts...)
	if plain {
		server = grpc.NewServer()
	}
	server.RegisterService(&echoService, nil)
	defer server.Stop()

	var said Listening
	ended := make(chan error, len(addresses))
	for _, address := range addresses {
		lis, err := listen(address)
		if err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		said.Addresses = append(said.Addresses, targetOf(lis.Addr()))
		go func() { ended <- server.Serve(lis) }()
	}
	err := ready(said)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
			return err
		}
	}
	server.Stop()
	for range addresses {
		err = errors.Join(err, <-ended)
	}
	return err
}

func listen(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, "unix-abstract:"); ok {
		return net.Listen("unix", "@"+name)
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", strings.TrimPrefix(path, "//"))
	}
	return net.Listen("tcp", address)
}

// targetOf is a listener's address as grpc.NewClient takes it.
func targetOf(a net.Addr) string {
	if name, ok := strings.CutPrefix(a.String(), "@"); ok {
		return "unix-abstract:" + name
	}
	if a.Network() == "unix" {
		return "unix://" + a.String()
	}
	return a.String()
}

// echoServer is a process that answers echo calls.
type echoServer struct {
	targets []string
	cmd     *exec.Cmd
	stdin   io.Closer
	log     *strings.Builder
}

// readyLimit is how long an echo server may take to listen, stopLimit how long to
// end.
const (
	readyLimit = 30 * time.Second
	stopLimit  = 5 * time.Second
)

// startEcho runs "stile bench serve" at addresses. It ends when this process does:
// its standard input ends then.
func startEcho(ctx context.Context, self []string, dir string, addresses []string, plain bool) (*echoServer, error) {
	args := append(append([]string(nil), self[1:]...), "bench", "serve", "--json", "--until-eof")
	if plain {
		args = append(args, "--plain")
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	s := &echoServer{cmd: exec.Command(self[0], append(args, addresses...)...), log: new(strings.Builder)}
	s.cmd.Env = append(withoutStile(os.Environ()), "STILE_DIR="+dir)
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = childAttr()
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the echo server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })
	var said Listening
	err = json.NewDecoder(bufio.NewReader(stdout)).Decode(&said)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil || len(said.Addresses) != len(addresses) {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		return nil, fmt.Errorf("the echo server did not start: %w%s", err, s.said())
	}
	s.targets = said.Addresses
	return s, nil
}

// said is what the process complained of, to follow a message.
func (s *echoServer) said() string {
	if text := strings.TrimSpace(s.log.String()); text != "" {
		return "; it said: " + text
	}
	return ""
}

// stop ends the process and waits for it.
func (s *echoServer) stop() error {
	kill := time.AfterFunc(stopLimit, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.stdin.Close() // it may have ended
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the echo server: %w%s", err, s.said())
	}
	return nil
}

// withoutStile is an environment without what decides how Stile calls.
func withoutStile(env []string) []string {
	var left []string
	for _, entry := range env {
		switch name, _, _ := strings.Cut(entry, "="); name {
		case "STILE", "STILE_DIR", "STILE_TRANSPORT":
		default:
			left = append(left, entry)
		}
	}
	return left
}
