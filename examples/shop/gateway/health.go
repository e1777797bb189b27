package main

import (
	"context"
	"net/http"
	"sync"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

type healthPage struct {
	Status   string            `json:"status"` // "ok" or "degraded"
	Services map[string]string `json:"services"`
}

// healthz asks every service that the gateway calls, all at once.
func (a *api) healthz(r *http.Request) (int, any, error) {
	var (
		mu   sync.Mutex
		wait sync.WaitGroup
		code = http.StatusOK
		page = healthPage{Status: "ok", Services: make(map[string]string, len(a.services))}
	)
	for name, conn := range a.services {
		wait.Go(func() {
			state := check(r.Context(), conn)
			mu.Lock()
			defer mu.Unlock()
			page.Services[name] = state
			if state != healthpb.HealthCheckResponse_SERVING.String() {
				page.Status, code = "degraded", http.StatusServiceUnavailable
			}
		})
	}
	wait.Wait()
	return code, page, nil
}

func check(ctx context.Context, conn *grpc.ClientConn) string {
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return status.Code(err).String()
	}
	return resp.GetStatus().String()
}
