package policy

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// answer makes the call unless an answer is near, or on its way for an equal call.
func (k *call) answer() error {
	r := k.r
	if r.keyer == nil {
		return k.guarded()
	}
	room := keys.Get().(*[]byte)
	defer keys.Put(room)
	key, ok := k.key((*room)[:0])
	if !ok {
		return k.guarded()
	}
	*room = key
	var stale []byte
	if r.cache != nil {
		value, fresh, ok := r.cache.Get(key, k.side.p.since(k.begun))
		if ok && fresh && k.take(value) == nil {
			return nil
		}
		if ok && r.Config.Stile.Fallback != nil && r.Config.Stile.Fallback.Cache {
			stale = value
		}
	}
	err := k.shared(key)
	if err != nil && stale != nil && ClassOf(status.Code(err)) == FallBack && k.ctx.Err() == nil && k.take(stale) == nil {
		k.tell(StaleServed, err, "")
		return nil
	}
	return err
}

// shared makes the call, or waits for an equal one under way.
func (k *call) shared(key []byte) error {
	r := k.r
	if r.coalesce == nil {
		_, err := k.fetch(key)
		return err
	}
	flight, lead := r.coalesce.Join(key)
	if !lead {
		ctx, cancel := context.WithDeadline(k.ctx, k.deadline)
		defer cancel()
		value, err, takeOver := flight.Wait(ctx)
		switch {
		case takeOver:
		case err != nil && err == ctx.Err():
			return contextStatus(err)
		case err != nil:
			return err
		default:
			return k.take(value.([]byte))
		}
	}
	var value []byte
	err := errPanicked
	defer func() {
		own := err == errPanicked || err != nil && (k.ctx.Err() != nil || time.Until(k.deadline) <= 0)
		flight.End(value, err, own)
	}()
	value, err = k.fetch(key)
	return err
}

// fetch makes the call and keeps its answer.
func (k *call) fetch(key []byte) ([]byte, error) {
	if err := k.guarded(); err != nil {
		return nil, err
	}
	m, ok := k.reply.(proto.Message)
	if !ok {
		return nil, nil
	}
	value, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	if c := k.r.Config.Stile.Cache; c != nil {
		k.r.cache.Put(key, value, k.side.p.now(), time.Duration(c.TTL), time.Duration(c.StaleIfError))
	}
	return value, nil
}

// take fills the reply with an answer.
func (k *call) take(value []byte) error {
	return proto.Unmarshal(value, k.reply.(proto.Message))
}

// keys is room for keys.
var keys = sync.Pool{New: func() any { return new(make([]byte, 0, 256)) }}

// key appends what an answer depends on: the connection, the metadata, for it may tell who asks,
// and the request. A call with credentials of its own has no key.
func (k *call) key(b []byte) ([]byte, bool) {
	req, ok := k.req.(proto.Message)
	if _, isProto := k.reply.(proto.Message); !ok || !isProto {
		return nil, false
	}
	for _, o := range k.opts {
		if _, own := o.(grpc.PerRPCCredsCallOption); own {
			return nil, false
		}
	}
	b = binary.BigEndian.AppendUint64(b, k.id)
	if md, any := metadata.FromOutgoingContext(k.ctx); any {
		b = appendMetadata(b, md)
	}
	b, err := k.r.keyer.Append(append(b, 0), req)
	return b, err == nil
}

// appendMetadata appends all but what differs from call to call and says nothing of the answer.
func appendMetadata(b []byte, md metadata.MD) []byte {
	names := make([]string, 0, len(md))
	for name := range md {
		if !tracing(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendString(append(b, 1), name)
		for _, v := range md[name] {
			b = appendString(append(b, 2), v)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// tracing tells metadata by which calls are followed.
func tracing(name string) bool {
	switch name {
	case "traceparent", "tracestate", "baggage", "b3", "uber-trace-id", "x-request-id", "x-cloud-trace-context", "grpc-trace-bin", "grpc-tags-bin", previousAttempts:
		return true
	}
	return strings.HasPrefix(name, "x-b3-") || strings.HasPrefix(name, "x-datadog-") || strings.HasPrefix(name, "uberctx-")
}
