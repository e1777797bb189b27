package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/mail"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
)

const maxLines = 50

type server struct {
	mailerv1.UnimplementedMailerServiceServer
	outbox string
	delay  time.Duration
}

func (s *server) SendOrderConfirmation(ctx context.Context, req *mailerv1.SendOrderConfirmationRequest) (*mailerv1.SendOrderConfirmationResponse, error) {
	local := messageID()
	if err := s.send(ctx, local, req); err != nil {
		return nil, err
	}
	return &mailerv1.SendOrderConfirmationResponse{MessageId: local + "@shop.example"}, nil
}

// send writes a message and delivers it.
func (s *server) send(ctx context.Context, local string, req *mailerv1.SendOrderConfirmationRequest) error {
	to, err := mail.ParseAddress(req.GetTo())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "to: %v", err)
	}
	if n := len(req.GetLines()); n == 0 || n > maxLines {
		return status.Errorf(codes.InvalidArgument, "%d lines, want 1 to %d", n, maxLines)
	}
	message, err := render(local+"@shop.example", to, req)
	if err != nil {
		return status.Errorf(codes.Internal, "render message: %v", err)
	}
	return s.deliver(ctx, local, message)
}

func (s *server) deliver(ctx context.Context, name string, message []byte) error {
	if s.delay > 0 {
		accepted := time.NewTimer(s.delay)
		defer accepted.Stop()
		select {
		case <-accepted.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if s.outbox == "" {
		return nil
	}
	if err := writeFile(s.path(name), message); err != nil {
		return status.Errorf(codes.Unavailable, "deliver message: %v", err)
	}
	return nil
}

func (s *server) path(name string) string { return filepath.Join(s.outbox, name+".eml") }

// writeFile writes all of a file or nothing.
func writeFile(path string, content []byte) error {
	if err := os.WriteFile(path+".part", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func messageID() string {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}
