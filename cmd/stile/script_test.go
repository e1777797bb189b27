package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
)

// TestMain is also the main of stile and of the fake shop's programs in scripts.
func TestMain(m *testing.M) {
	if fakeshop.Called() {
		fakeshop.Main()
	}
	enterContainer()
	testscript.Main(leakless{m}, map[string]func(){"stile": main})
}

// leakless runs tests, and fails when they leave goroutines behind.
type leakless struct{ *testing.M }

func (m leakless) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   filepath.Join("testdata", "script"),
		Setup: setUp,
		Condition: func(name string) (bool, error) {
			return name == "shm" && runtime.GOOS == "linux", nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"absent": absent, "await": await, "hubaddress": hubAddress, "post": postFile, "reports": reports, "makequeue": makeQueue, "maybe": maybe},
	})
}

// setUp gives a script
//
//	$LOCAL       the target of a server of Stile's, with health and reflection
//	$PLAIN       the target of a server of grpc-go's, with health
//	$PROTOSET    a file with the descriptors of health
//	$REMOTE      the target of a server that has no local door
//	$SHOP        a folder with the fake shop
//	$STILE_DIR   where the server's local door is
func setUp(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "c") // short, for unix sockets
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	local, err := net.Listen("unix", filepath.Join(dir, "local"))
	if err != nil {
		return err
	}
	srv := stile.NewServer(stile.Dir(filepath.Join(dir, "doors")))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	reflection.Register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(local) }()
	env.Defer(func() {
		srv.Stop()
		<-served
	})
	if err := awaitDoor("unix://"+local.Addr().String(), filepath.Join(dir, "doors")); err != nil {
		return err
	}
	remote, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = remote.Close() })

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	plainServer := grpc.NewServer()
	healthpb.RegisterHealthServer(plainServer, health.NewServer())
	plainServed := make(chan error, 1)
	go func() { plainServed <- plainServer.Serve(plain) }()
	env.Defer(func() {
		plainServer.Stop()
		<-plainServed
	})

	protoset, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(healthpb.File_grpc_health_v1_health_proto),
	}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "protoset"), protoset, 0o600); err != nil {
		return err
	}

	shop := filepath.Join(dir, "shop")
	if err := os.Mkdir(shop, 0o700); err != nil {
		return err
	}
	if err := fakeshop.Install(shop); err != nil {
		return err
	}
	temp := filepath.Join(dir, "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"LOCAL": "unix://" + local.Addr().String(), "REMOTE": remote.Addr().String(), "PLAIN": plain.Addr().String(), "PROTOSET": filepath.Join(dir, "protoset"), "SHOP": shop,
		"STILE_DIR": filepath.Join(dir, "doors"), "TMPDIR": temp, "GORACE": "atexit_sleep_ms=0",
	} {
		env.Setenv(name, value)
	}
	return nil
}

// awaitDoor returns when target has a local door in dir.
func awaitDoor(target, dir string) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	watchdog := time.After(time.Minute)
	for {
		d, err := stile.Diagnose(context.Background(), target, grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithDir(dir))
		if err != nil || d.Way != "grpc" {
			return err
		}
		select {
		case <-poll.C:
		case <-watchdog:
			return errors.New(d.Reason)
		}
	}
}

// absent fails when a file matches its pattern.
func absent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: absent pattern")
	}
	found, err := filepath.Glob(args[0])
	ts.Check(err)
	if len(found) > 0 {
		ts.Fatalf("there is %s", strings.Join(found, " "))
	}
}

// await returns when a file matches its pattern.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await pattern")
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	watchdog := time.After(time.Minute)
	for {
		found, err := filepath.Glob(args[0])
		ts.Check(err)
		if len(found) > 0 {
			return
		}
		select {
		case <-poll.C:
		case <-watchdog:
			ts.Fatalf("there is no %s", args[0])
		}
	}
}

// maybe runs a program that may find something or not.
func maybe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: maybe program args...")
	}
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitFinding) {
		ts.Fatalf("%v", err)
	}
}

// TestMainIsShort keeps main.go to what it must hold.
func TestMainIsShort(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 20 {
		t.Errorf("main.go has %d lines, want fewer than 20", n)
	}
}
