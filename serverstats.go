package stile

import (
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// statsTimes is what the stats events of a call need to remember.
type statsTimes struct {
	begin time.Time
	begun bool
}

// The events below reach the server's stats handlers in the order and with the
// content that grpc-go gives them. Each costs nothing without a handler.

func (s *serverStream) handlers() []stats.Handler { return s.cc.conn.door.set.stats }

func (s *serverStream) tagStats() {
	if len(s.handlers()) == 0 {
		return
	}
	md, _ := metadata.FromIncomingContext(s.ctx)
	for _, sh := range s.handlers() {
		s.ctx = sh.TagRPC(s.ctx, &stats.RPCTagInfo{FullMethodName: s.cc.call.Method})
		sh.HandleRPC(s.ctx, &stats.InHeader{
			FullMethod: s.cc.call.Method, RemoteAddr: s.cc.conn.peer.Addr, LocalAddr: s.cc.conn.peer.LocalAddr,
			Compression: s.cc.call.Encoding, WireLength: headerListSize(s.cc.call.MD), Header: md,
		})
	}
}

func (s *serverStream) beginStats() {
	if len(s.handlers()) == 0 {
		return
	}
	s.stats = statsTimes{begin: time.Now(), begun: true}
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.Begin{
			BeginTime: s.stats.begin, IsClientStream: s.desc.ClientStreams, IsServerStream: s.desc.ServerStreams,
		})
	}
}

func (s *serverStream) outHeader() {
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.OutHeader{Header: s.header.Copy(), Compression: s.encoding})
	}
}

func (s *serverStream) outPayload(m any, p *packed) {
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.OutPayload{
			Payload: m, Length: p.size, CompressedLength: len(p.data),
			WireLength: len(p.data) + prefixLen, SentTime: time.Now(),
		})
	}
}

func (s *serverStream) inPayload(m any, size, wireLen int) {
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.InPayload{
			RecvTime: time.Now(), Payload: m, Length: size, CompressedLength: wireLen,
			WireLength: wireLen + prefixLen,
		})
	}
}

func (s *serverStream) outTrailer() {
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.OutTrailer{Trailer: s.trailer.Copy()})
	}
}

func (s *serverStream) endStats(err error) {
	if !s.stats.begun {
		return
	}
	for _, sh := range s.handlers() {
		sh.HandleRPC(s.ctx, &stats.End{BeginTime: s.stats.begin, EndTime: time.Now(), Error: err})
	}
}
