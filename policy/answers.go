package policy

import (
	"context"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/telemetry"
)

// near answers from the cache, if there is a fresh answer. It is asked before there is a call, so
// that a hit costs little.
func (s *side) near(ctx context.Context, r *route, id uint64, req, reply any, opts []grpc.CallOption) bool {
	if ctx.Err() != nil {
		return false
	}
	room := keys.Get().(*[]byte)
	defer keys.Put(room)
	key, ok := r.key((*room)[:0], ctx, id, req, reply, opts)
	if !ok {
		return false
	}
	*room = key
	value, fresh, ok := r.cache.Get(key, s.p.now())
	if !ok || !fresh || take(value, reply) != nil {
		return false
	}
	if s.counts {
		r.tally.Count(telemetry.CacheHit)
	}
	for _, o := range opts {
		if f, ok := o.(grpc.OnFinishCallOption); ok {
			f.OnFinish(nil)
		}
	}
	return true
}

// answer makes the call unless one that is equal is under way, and falls back to an old answer.
func (k *call) answer() error {
	r := k.r
	if r.keyer == nil {
		return k.guarded()
	}
	room := keys.Get().(*[]byte)
	defer keys.Put(room)
	key, ok := r.key((*room)[:0], k.ctx, k.id, k.req, k.reply, k.opts)
	if !ok {
		return k.guarded()
	}
	*room = key
	err := k.shared(key)
	if err == nil || !r.fallback || ClassOf(status.Code(err)) != FallBack || k.ctx.Err() == context.Canceled {
		return err
	}
	value, _, ok := r.cache.Get(key, k.side.p.now())
	if !ok || take(value, k.reply) != nil {
		return err
	}
	k.count(telemetry.FallbackServed)
	k.tell(StaleServed, err, "")
	return nil
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
			k.begun = k.side.p.now()
		case err != nil && err == ctx.Err():
			err = contextStatus(err)
			k.late(err)
			return err
		case err != nil:
			k.count(telemetry.Coalesced)
			return err
		default:
			k.count(telemetry.Coalesced)
			return take(value.([]byte), k.reply)
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
	value, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m)
	if err != nil { // the answer is the caller's, and nobody else's
		return nil, nil
	}
	if c := k.r.Config.Stile.Cache; c != nil {
		k.r.cache.Put(key, value, k.side.p.now(), time.Duration(c.TTL), time.Duration(c.StaleIfError))
	}
	return value, nil
}

// take fills the reply with an answer.
func take(value []byte, reply any) error {
	return proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(value, reply.(proto.Message))
}

// keys is room for keys.
var keys = sync.Pool{New: func() any { return new(make([]byte, 0, 256)) }}

// key appends what an answer depends on: the connection, the metadata, for it may tell who asks,
// and the request. A call with credentials or an authority of its own has no key.
func (r *route) key(b []byte, ctx context.Context, id uint64, req, reply any, opts []grpc.CallOption) ([]byte, bool) {
	m, ok := req.(proto.Message)
	if _, isProto := reply.(proto.Message); !ok || !isProto {
		return nil, false
	}
	for _, o := range opts {
		if _, own := o.(grpc.PerRPCCredsCallOption); own || reflect.TypeOf(o).Name() == "AuthorityOverrideCallOption" { // from grpc-go 1.73 on
			return nil, false
		}
	}
	b = binary.BigEndian.AppendUint64(b, id)
	if md, any := metadata.FromOutgoingContext(ctx); any {
		b = appendMetadata(b, md)
	}
	b, err := r.keyer.Append(append(b, 0), m)
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

// tracing tells metadata by which calls are followed. Baggage is none: handlers read it.
func tracing(name string) bool {
	switch name {
	case "traceparent", "tracestate", "b3", "uber-trace-id", "x-request-id", "x-cloud-trace-context", "grpc-trace-bin", previousAttempts:
		return true
	}
	return strings.HasPrefix(name, "x-b3-") || strings.HasPrefix(name, "x-datadog-")
}
