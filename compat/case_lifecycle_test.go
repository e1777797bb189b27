package compat

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// quickRetry lets a client find a restarted server soon.
func quickRetry() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond},
		MinConnectTimeout: time.Second,
	})
}

// untilCarried calls until what carries the calls is by, "" for HTTP/2.
func (e *env) untilCarried(cc *grpc.ClientConn, by string) {
	for e.ctx.Err() == nil {
		var p peer.Peer
		err := cc.Invoke(e.ctx, unaryMethod, str(""), new(msg), grpc.Peer(&p), grpc.WaitForReady(true))
		if err == nil && carrier(p.AuthInfo) == by {
			return
		}
	}
	e.t.Errorf("calls do not come to be carried by %q", by)
}

// stop ends the server the case runs now.
func (e *env) stop(graceful bool) {
	if graceful {
		e.srv.GracefulStop()
	} else {
		e.srv.Stop()
	}
	within(e, "Serve", e.served)
	e.served = nil
}

// load calls from several goroutines until the returned function is called,
// which says how many calls failed.
func (e *env) load(cc *grpc.ClientConn) (end func() (failed int32)) {
	stop := make(chan struct{})
	var failed atomic.Int32
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; !isClosed(stop); n++ {
				text, out := fmt.Sprint(i, n), new(msg)
				err := cc.Invoke(e.ctx, unaryMethod, str(text), out, grpc.WaitForReady(true))
				if err != nil || out.GetValue() != "re: "+text {
					failed.Add(1)
					e.add("failed calls", "%v %q", err, out.GetValue())
				}
			}
		})
	}
	return func() int32 { close(stop); wg.Wait(); return failed.Load() }
}

var lifecycleCases = []diffCase{
	{name: "lifecycle/graceful restarts under load", remote: true, run: func(e *env) {
		e.serve(nil)
		cc := e.dial(quickRetry())
		end := e.load(cc)
		for range 5 {
			e.untilCarried(cc, e.door.carries)
			e.stop(true)
			e.serve(nil)
		}
		e.unary(e.ctx, cc, "last", grpc.WaitForReady(true))
		e.c("failed %d", end())
	}},
	{name: "lifecycle/back at the door after a restart", remote: true, run: func(e *env) {
		e.serve(nil)
		cc := e.dial(quickRetry())
		e.untilCarried(cc, e.door.carries)
		e.stop(false)
		e.serve(nil)
		e.untilCarried(cc, e.door.carries)
	}},
	{name: "lifecycle/server gets Stile, loses it, gets it", remote: true, run: func(e *env) {
		mine := e.door
		cc := e.dial(quickRetry())
		for i := range 4 {
			e.door = plainDoor("")
			if i%2 == 1 {
				e.door = mine
			}
			e.serve(nil)
			e.untilCarried(cc, e.door.carries)
			e.stop(true)
		}
		e.door = mine
	}},
	{name: "lifecycle/stop ends every stream once", run: func(e *env) {
		entered := make(chan struct{}, 50)
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			entered <- struct{}{}
			<-ss.Context().Done()
			return ss.Context().Err()
		}})
		cc := e.dial()
		var wg sync.WaitGroup
		for range 50 {
			cs, err := cc.NewStream(e.ctx, clientDesc(bidiMethod), bidiMethod)
			if err != nil {
				e.c("open %s", errText(err))
				continue
			}
			wg.Go(func() { e.c("recv %s", codeText(cs.RecvMsg(new(msg)))) })
		}
		for range 50 {
			within(e, "the streams", entered)
		}
		e.srv.Stop()
		wg.Wait()
	}},
	{name: "lifecycle/conn closed with streams open", run: func(e *env) {
		ended := make(chan struct{}, 10)
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			ss.SendHeader(nil)
			<-ss.Context().Done()
			ended <- struct{}{}
			return nil
		}})
		cc := e.dial()
		var all []*cstream
		for range 10 {
			cs := e.open(e.ctx, cc, bidiMethod)
			cs.header()
			all = append(all, cs)
		}
		cc.Close()
		for _, cs := range all {
			cs.recv()
			within(e, "a handler", ended)
		}
	}},
	{name: "lifecycle/storm of cancelations", run: func(e *env) {
		e.serve(&service{
			unary: func(ctx context.Context, in *msg) (*msg, error) {
				if in.GetValue() == "wait" {
					<-ctx.Done()
				}
				return in, ctx.Err()
			},
			stream: func(ss grpc.ServerStream) error {
				for ss.RecvMsg(new(msg)) == nil && ss.SendMsg(str("x")) == nil {
				}
				return nil
			},
		})
		cc := e.warm(e.dial())
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i%20)*time.Millisecond)
				defer cancel()
				if i%2 == 0 {
					if c := status.Code(cc.Invoke(ctx, unaryMethod, str("wait"), new(msg))); c != codes.DeadlineExceeded {
						e.c("unary %v", c)
					}
					return
				}
				cs, err := cc.NewStream(ctx, clientDesc(bidiMethod), bidiMethod)
				for err == nil {
					_ = cs.SendMsg(str("x"))
					err = cs.RecvMsg(new(msg))
				}
				if c := status.Code(err); c != codes.DeadlineExceeded {
					e.c("stream %v", c)
				}
			})
		}
		wg.Wait()
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "lifecycle/connect early", remote: true, run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		cc.Connect()
		e.unary(e.ctx, cc, "a")
	}},
	{name: "lifecycle/idle timeout", run: func(e *env) {
		e.serve(nil)
		cc := e.dial(grpc.WithIdleTimeout(10 * time.Millisecond))
		e.unary(e.ctx, cc, "a")
		timer := time.NewTimer(50 * time.Millisecond)
		<-timer.C
		e.unary(e.ctx, cc, "b")
	}},
	{name: "lifecycle/a client per call", run: func(e *env) {
		e.serve(nil)
		for i := range 20 {
			cc, err := e.door.newClient(e.target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				e.c("%v", err)
				return
			}
			e.unary(e.ctx, cc, fmt.Sprint(i))
			cc.Close()
		}
	}},
	{name: "lifecycle/stale socket file", remote: true, run: func(e *env) {
		// A server that died leaves its socket: dialing it is refused.
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.path, Net: "unix"})
		if err != nil {
			e.t.Error(err)
			return
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		e.svc = &service{}
		e.c("%s", codeText(e.dial().Invoke(e.ctx, unaryMethod, str(""), new(msg))))
	}},
	{name: "codec/version 2", run: func(e *env) {
		e.serve(e.seesMD(), grpc.ForceServerCodecV2(v2Codec{}))
		e.unaryMD(e.ctx, e.dial(), "a", grpc.ForceCodecV2(v2Codec{}))
		e.unaryMD(e.ctx, e.dial(grpc.WithDefaultCallOptions(grpc.ForceCodecV2(v2Codec{}))), "b")
	}},
	{name: "metadata/from the stats of a proxy", run: func(e *env) {
		// A proxy forwards all it received, as metadata.FromIncomingContext gives it.
		e.serve(&service{unary: func(ctx context.Context, in *msg) (*msg, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			if in.GetValue() == "second" {
				e.s("%s", mdText(md))
				return in, nil
			}
			err := e.conns[0].Invoke(metadata.NewOutgoingContext(ctx, md.Copy()), unaryMethod, str("second"), in)
			return in, err
		}})
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "a", "1", "b-bin", "\x00"), e.dial(), "first")
	}},
}

// v2Codec is protobuf's codec by the newer interface.
type v2Codec struct{}

func (v2Codec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2("proto").Marshal(v)
}
func (v2Codec) Unmarshal(b mem.BufferSlice, v any) error {
	return encoding.GetCodecV2("proto").Unmarshal(b, v)
}
func (v2Codec) Name() string { return "compat-v2" }
