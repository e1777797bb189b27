package compat

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// scriptCases run random streams: both sides take turns by a script made from a
// seed, so that every door sees the same one.
var scriptCases = func() (out []diffCase) {
	for seed := range uint64(20) {
		out = append(out, diffCase{name: fmt.Sprintf("script/%d", seed), run: func(e *env) { runScripts(e, seed) }})
	}
	return out
}()

// Steps of a script. Only one side moves at a time.
const (
	clientSends = iota
	serverSends
	serverSetsHeader
	serverSendsHeader
	serverSetsTrailer
	clientReadsHeader // once the server has sent its header
	clientHalfCloses
	numSteps
	scriptEnds
)

type scriptStep struct {
	kind int
	text string
	end  codes.Code // of scriptEnds
}

// newScript is the steps of one stream and the status it ends with.
func newScript(r *rand.Rand) (steps []scriptStep, end codes.Code) {
	headerSent, halfClosed := false, false
	for range r.IntN(25) {
		s := scriptStep{kind: r.IntN(numSteps), text: strings.Repeat(string(rune('a'+r.IntN(26))), scriptSize(r))}
		switch s.kind {
		case clientSends:
			if halfClosed {
				continue
			}
		case serverSends, serverSendsHeader:
			headerSent = true
		case clientReadsHeader:
			if !headerSent {
				continue
			}
		case clientHalfCloses:
			halfClosed = true
		}
		steps = append(steps, s)
	}
	return steps, codes.Code(r.IntN(17))
}

// scriptSize favours the sizes at which something changes.
func scriptSize(r *rand.Rand) int {
	switch r.IntN(6) {
	case 0:
		return 0
	case 1:
		return r.IntN(1 << 18)
	case 2:
		return 1<<(r.IntN(17)) + r.IntN(3) - 1
	default:
		return r.IntN(200)
	}
}

func runScripts(e *env, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	turn, ready := make(chan scriptStep), make(chan struct{})
	e.serve(e.streams(func(s *sstream) error { return serveScript(e, s, turn, ready) }))
	cc := e.dial()
	for n := range 10 {
		steps, code := newScript(r)
		e.c("script %d of %d steps", n, len(steps))
		ctx := metadata.AppendToOutgoingContext(e.ctx, "script", fmt.Sprint(n))
		var opts []grpc.CallOption
		if r.IntN(3) == 0 {
			opts = append(opts, grpc.UseCompressor("gzip"))
		}
		cs := e.open(ctx, cc, bidiMethod, opts...)
		halfClosed := false
		for _, s := range steps {
			switch s.kind {
			case clientSends:
				cs.send(s.text)
			case clientHalfCloses:
				halfClosed = true
				cs.closeSend()
				continue
			case clientReadsHeader:
				cs.header()
				continue
			}
			turn <- s
			<-ready
			if s.kind == serverSends {
				cs.recv()
			}
		}
		turn <- scriptStep{kind: scriptEnds, end: code}
		cs.recv()
		cs.header()
		cs.trailer()
		if !halfClosed {
			cs.closeSend()
		}
	}
}

// serveScript takes the server's turns of one stream.
func serveScript(e *env, s *sstream, turn <-chan scriptStep, ready chan<- struct{}) error {
	for {
		var step scriptStep
		select {
		case step = <-turn:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		md := metadata.Pairs("k", fmt.Sprint(len(step.text)), "k-bin", step.text[:min(len(step.text), 50)])
		switch step.kind {
		case clientSends:
			s.recv()
		case serverSends:
			s.send(step.text)
		case serverSetsHeader:
			e.s("set header: %s", errText(s.SetHeader(md)))
		case serverSendsHeader:
			e.s("send header: %s", errText(s.SendHeader(md)))
		case serverSetsTrailer:
			s.SetTrailer(md)
		default:
			return status.Error(step.end, "end of script")
		}
		select {
		case ready <- struct{}{}:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}
