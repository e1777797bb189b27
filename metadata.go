package stile

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport/wire"
)

// reserved tells the header names that gRPC writes itself; user metadata under
// them is dropped, as grpc-go drops it.
func reserved(key string) bool {
	if key != "" && key[0] == ':' {
		return true
	}
	switch key {
	case "content-type", "user-agent", "grpc-message-type", "grpc-encoding", "grpc-message",
		"grpc-status", "grpc-timeout", "te":
		return true
	}
	return false
}

// sendable returns md without reserved keys, sharing its values.
func sendable(md metadata.MD) wire.MD {
	if len(md) == 0 {
		return nil
	}
	out := wire.MD(md)
	cloned := false
	for k := range md {
		if !reserved(k) {
			continue
		}
		if !cloned {
			out, cloned = maps.Clone(out), true
		}
		delete(out, k)
	}
	return out
}

// outgoing returns the metadata a call carries, checked as grpc-go checks it:
// what the context holds, without reserved keys. The result may be shared.
func outgoing(ctx context.Context) (wire.MD, error) {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return nil, nil
	}
	if err := validateMD(md); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return sendable(md), nil
}

func validateMD(md metadata.MD) error {
	for k, vs := range md {
		if err := validatePair(k, vs); err != nil {
			return err
		}
	}
	return nil
}

// validatePair applies gRPC's rules for metadata keys and values.
func validatePair(key string, values []string) error {
	if key == "" {
		return fmt.Errorf("there is an empty key in the header")
	}
	if key[0] == ':' {
		return nil
	}
	if !validName(key) {
		return fmt.Errorf("header key %q contains illegal characters not in [0-9a-z-_.]", key)
	}
	if strings.HasSuffix(key, "-bin") {
		return nil
	}
	for _, v := range values {
		if !validValue(v) {
			return fmt.Errorf("header key %q contains value with non-printable ASCII characters", key)
		}
	}
	return nil
}

func validName(key string) bool {
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return key != ""
}

func validValue(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return false
		}
	}
	return true
}

// headerListSize is the size of md as HTTP/2 counts a header list (RFC 9113,
// section 6.5.2: name + value + 32 bytes each), so that gRPC's limits mean the same.
func headerListSize(md wire.MD) int {
	n := 0
	for k, vs := range md {
		for _, v := range vs {
			n += len(k) + len(v) + 32
		}
	}
	return n
}

// contentType is what grpc-go puts in metadata for a content-subtype.
func contentType(subtype string) string {
	if subtype == "" {
		return "application/grpc"
	}
	return "application/grpc+" + subtype
}
