package compat

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// interopCase is one of grpc-go's interop cases.
type interopCase struct {
	name string
	run  func(context.Context, *env, *grpc.ClientConn)
}

// onService makes a case of a function of the interop package.
func onService(name string, f func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption), opts ...grpc.CallOption) interopCase {
	return interopCase{name, func(ctx context.Context, _ *env, cc *grpc.ClientConn) {
		f(ctx, testgrpc.NewTestServiceClient(cc), opts...)
	}}
}

// soak makes many calls by several workers; with fresh, each on its own connection.
func soak(name string, fresh bool) interopCase {
	return interopCase{name, func(ctx context.Context, e *env, cc *grpc.ClientConn) {
		interop.DoSoakTest(ctx, interop.SoakTestConfig{
			RequestSize: 271828, ResponseSize: 314159,
			PerIterationMaxAcceptableLatency: patience, OverallTimeout: 2 * patience,
			ServerAddr: e.target(), NumWorkers: 2, Iterations: 10,
			ChannelForTest: func() (*grpc.ClientConn, func()) {
				if !fresh {
					return cc, func() {}
				}
				// A failed dial shows as a failed iteration.
				c, _ := e.door.newClient(e.target(), insecureOption())
				return c, func() { c.Close() }
			},
		})
	}}
}

var interopCases = []interopCase{
	onService("empty unary", interop.DoEmptyUnaryCall),
	onService("large unary", interop.DoLargeUnaryCall),
	onService("client streaming", interop.DoClientStreaming),
	onService("server streaming", interop.DoServerStreaming),
	onService("ping pong", interop.DoPingPong),
	onService("empty stream", interop.DoEmptyStream),
	onService("timeout on sleeping server", interop.DoTimeoutOnSleepingServer),
	onService("cancel after begin", interop.DoCancelAfterBegin),
	onService("cancel after first response", interop.DoCancelAfterFirstResponse),
	onService("status code and message", interop.DoStatusCodeAndMessage),
	onService("special status message", interop.DoSpecialStatusMessage),
	onService("custom metadata", interop.DoCustomMetadata),
	onService("large unary, gzip", interop.DoLargeUnaryCall, grpc.UseCompressor(gzip.Name)),
	onService("client streaming, gzip", interop.DoClientStreaming, grpc.UseCompressor(gzip.Name)),
	onService("server streaming, gzip", interop.DoServerStreaming, grpc.UseCompressor(gzip.Name)),
	onService("ping pong, gzip", interop.DoPingPong, grpc.UseCompressor(gzip.Name)),
	onService("empty unary, wait for ready", interop.DoEmptyUnaryCall, grpc.WaitForReady(true)),
	{"unimplemented service", func(ctx context.Context, _ *env, cc *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	}},
	{"unimplemented method", func(ctx context.Context, _ *env, cc *grpc.ClientConn) {
		interop.DoUnimplementedMethod(ctx, cc)
	}},
	soak("soak", false),
	soak("soak, a connection each", true),
}

// TestInterop runs grpc-go's interop client against its interop server.
func TestInterop(t *testing.T) {
	count("interop", func(c *tally) { c.cases = len(interopCases) })
	for _, d := range doors() {
		underDoor(t, "interop", d, func(t *testing.T) {
			e := newEnv(t, d)
			e.serveWith(nil, func(s server) {
				testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
			})
			cc := e.dial()
			for _, c := range interopCases {
				t.Run(c.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
					defer cancel()
					err := fatalAsError(func() { c.run(ctx, e, cc) })
					if err != nil {
						t.Error(err)
					}
					count("interop", func(c *tally) {
						c.runs++
						if err != nil {
							c.failed++
						}
					})
				})
			}
			e.close()
			e.checkLocal()
		})
	}
}

// fatal is what the interop functions panic with where they would end the
// process: they report through grpclog, whose logger here is quietLogger.
type fatal struct{ text string }

func fatalAsError(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fatal:
			err = fmt.Errorf("interop: %s", r.text)
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// quietLogger says nothing and turns Fatal into a panic.
type quietLogger struct{}

func (quietLogger) Info(...any)               {}
func (quietLogger) Infoln(...any)             {}
func (quietLogger) Infof(string, ...any)      {}
func (quietLogger) Warning(...any)            {}
func (quietLogger) Warningln(...any)          {}
func (quietLogger) Warningf(string, ...any)   {}
func (quietLogger) Error(...any)              {}
func (quietLogger) Errorln(...any)            {}
func (quietLogger) Errorf(string, ...any)     {}
func (quietLogger) Fatal(a ...any)            { panic(fatal{fmt.Sprint(a...)}) }
func (quietLogger) Fatalln(a ...any)          { panic(fatal{fmt.Sprint(a...)}) }
func (quietLogger) Fatalf(f string, a ...any) { panic(fatal{fmt.Sprintf(f, a...)}) }
func (quietLogger) V(int) bool                { return false }

func init() { grpclog.SetLoggerV2(quietLogger{}) }
