package stile

import (
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/stile-ipc/stile/transport/wire"
)

// The events below reach the connection's stats handlers in the order and with
// the content that grpc-go gives them. Each costs nothing without a handler.

func (s *clientStream) beginStats() {
	if len(s.stats) == 0 {
		return
	}
	s.begin = time.Now()
	for _, sh := range s.stats {
		s.ctx = sh.TagRPC(s.ctx, &stats.RPCTagInfo{FullMethodName: s.method, FailFast: s.info.failFast})
		sh.HandleRPC(s.ctx, &stats.Begin{
			Client: true, BeginTime: s.begin, FailFast: s.info.failFast,
			IsClientStream: s.desc.ClientStreams, IsServerStream: s.desc.ServerStreams,
		})
	}
}

func (s *clientStream) outHeader() {
	if len(s.stats) == 0 {
		return
	}
	c := &s.call
	md := make(metadata.MD, len(c.MD)+1)
	for k, v := range c.MD {
		md[k] = v
	}
	md["user-agent"] = []string{c.UserAgent}
	p := s.mux.peer
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.OutHeader{
			Client: true, FullMethod: s.method, RemoteAddr: p.Addr, LocalAddr: p.LocalAddr,
			Compression: c.Encoding, Header: md.Copy(),
		})
	}
}

func (s *clientStream) outPayload(m any, p *packed) {
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.OutPayload{
			Client: true, Payload: m, Length: p.size, CompressedLength: len(p.data),
			WireLength: len(p.data) + prefixLen, SentTime: time.Now(),
		})
	}
}

func (s *clientStream) inHeader(h *wire.Head) {
	if len(s.stats) == 0 || s.headerSeen.Swap(true) {
		return
	}
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.InHeader{
			Client: true, WireLength: s.in.headerSize, Compression: h.Encoding, Header: headerMD(h),
		})
	}
}

func (s *clientStream) inPayload(m any, size, wireLen int) {
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.InPayload{
			Client: true, Payload: m, Length: size, CompressedLength: wireLen,
			WireLength: wireLen + prefixLen, RecvTime: time.Now(),
		})
	}
}

func (s *clientStream) inTrailer(*wire.Trailer) {
	if len(s.stats) == 0 {
		return
	}
	md := s.Trailer()
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.InTrailer{Client: true, Trailer: md})
	}
}

func (s *clientStream) endStats(err error, trailer metadata.MD) {
	for _, sh := range s.stats {
		sh.HandleRPC(s.ctx, &stats.End{
			Client: true, BeginTime: s.begin, EndTime: time.Now(), Trailer: trailer, Error: err,
		})
	}
}
