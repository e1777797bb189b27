// Package rpc is how the shop's programs dial each other, serve, and stop.
package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
)

// Dial returns a connection to another service of the shop, whose calls obey the
// policy that cfg names. It connects when the first call is made.
func Dial(cfg *Config, target string) (*grpc.ClientConn, error) {
	return stile.NewClient(target, append(cfg.dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithPolicy(cfg.policy))...)
}

// Serve listens as cfg says, prints the ready line, and serves until ctx ends.
// Then it lets the calls in flight finish, for cfg.Drain at most. Health and
// reflection are served beside what register adds. The calls obey the policy that
// cfg names.
func Serve(ctx context.Context, cfg *Config, register func(grpc.ServiceRegistrar)) error {
	srv := stile.NewServer(append(cfg.serverOptions(), grpc.ChainUnaryInterceptor(logFailure, newFaults(cfg.Faults).inject), stile.Policy(cfg.policy))...)
	register(srv)
	state := health.NewServer()
	healthpb.RegisterHealthServer(srv, state)
	reflection.Register(srv)

	lis, err := Listen(cfg.Listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	if err := Ready(lis); err != nil {
		srv.Stop()
		<-served
		return err
	}

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	slog.Info("draining", "limit", cfg.Drain)
	state.Shutdown()
	limit := time.AfterFunc(cfg.Drain, srv.Stop)
	defer limit.Stop()
	srv.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	slog.Info("stopped")
	return nil
}

// logFailure reports the calls that failed through no fault of the caller.
func logFailure(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := handler(ctx, req)
	level := slog.LevelWarn
	switch status.Code(err) {
	case codes.OK:
		return resp, nil
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Canceled:
		level = slog.LevelDebug
	}
	slog.Log(ctx, level, "call failed", "method", info.FullMethod, "took", time.Since(start), "error", err)
	return resp, err
}
