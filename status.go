package stile

import (
	"context"
	"errors"
	"io"
	"maps"
	"unicode/utf8"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

const statusDetailsKey = "grpc-status-details-bin"

// rpcError maps an error of the call layer to a gRPC status, with grpc-go's codes.
func rpcError(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, context.Canceled.Error())
	case err == io.ErrUnexpectedEOF:
		return status.Error(codes.Internal, err.Error())
	case errors.Is(err, transport.ErrClosed), errors.Is(err, transport.ErrPeerGone), errors.Is(err, transport.ErrProtocol):
		return status.Error(codes.Unavailable, "stile: connection lost: "+err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}

// contextError says why ctx ended as a status.
func contextError(ctx context.Context) error { return rpcError(ctx.Err()) }

// trailerOf encodes a status and trailer for the wire. md is not changed.
func trailerOf(st *status.Status, md metadata.MD) wire.Trailer {
	t := wire.Trailer{Code: uint32(st.Code()), Message: st.Message(), MD: sendable(md)}
	if !utf8.ValidString(t.Message) {
		t.Message = string([]rune(t.Message)) // a replacement character for each bad byte
	}
	if st.Code() == codes.OK { // has no details
		return t
	}
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		b, err := proto.Marshal(p)
		if err == nil {
			if t.MD = maps.Clone(t.MD); t.MD == nil {
				t.MD = wire.MD{}
			}
			t.MD[statusDetailsKey] = []string{string(b)}
		}
	}
	return t
}

// statusOf decodes the status of a trailer. nil means OK.
func statusOf(t *wire.Trailer) error {
	if codes.Code(t.Code) == codes.OK {
		return nil
	}
	if details := t.MD[statusDetailsKey]; len(details) == 1 {
		var p spb.Status
		if err := proto.Unmarshal([]byte(details[0]), &p); err == nil && p.Code == int32(t.Code) {
			return status.FromProto(&p).Err()
		}
	}
	return status.Error(codes.Code(t.Code), t.Message)
}
