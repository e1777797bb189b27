package compat

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
)

// Environment of a child process.
const (
	childDoor   = "COMPAT_CHILD_DOOR"
	childSocket = "COMPAT_CHILD_SOCKET"
	childPanics = "COMPAT_CHILD_PANICS"
)

// runChild is the process's other life: a server that may die. It reports
// whether the process was such a child.
func runChild() bool {
	name := os.Getenv(childDoor)
	if name == "" {
		return false
	}
	panics := os.Getenv(childPanics)
	die := func(method, text string) {
		switch {
		case text != "panic":
		case method == panics:
			panic("by the handler")
		case panics == "exit":
			os.Exit(7)
		}
	}
	svc := &service{
		unary: func(_ context.Context, in *msg) (*msg, error) {
			die(unaryMethod, in.GetValue())
			return in, nil
		},
		stream: func(ss grpc.ServerStream) error {
			in := new(msg)
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			die(bidiMethod, in.GetValue())
			return ss.SendMsg(in)
		},
	}
	for _, d := range doors() {
		if d.name == name {
			runChildServer(d, svc)
		}
	}
	return true
}

// runChildServer serves until standard input ends.
func runChildServer(d door, svc *service) {
	s := d.newServer()
	s.RegisterService(&testServiceDesc, svc)
	l, err := net.Listen("unix", os.Getenv(childSocket))
	if err != nil {
		panic(err)
	}
	lis := newCountingListener(l)
	go s.Serve(lis)
	<-lis.serving
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	s.Stop()
}
