package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// later puts back what is absent from a delay stream and neither handed over nor cancelled, and takes away what is. Sequences do not count: those that
// are put back, and those that are taken, have others than the log has.
func (r *restorer) later(ctx context.Context, stream jetstream.Stream, id identity, s *restored) error {
	if identityOf(stream.CachedInfo()) != id {
		return nil
	}
	for token, rec := range s.gone {
		last, err := lastOf(ctx, stream, rec.Subject)
		if err != nil {
			return err
		}
		if last == nil {
			continue
		}
		// What took its place may hide it only for as long as it is there itself.
		r.again = append(r.again, rec)
		if last.Header.Get(headerToken) != token {
			continue
		}
		if err := stream.DeleteMsg(ctx, last.Sequence); err != nil {
			return err
		}
	}
	n := 0
	for _, seq := range slices.Sorted(maps.Keys(s.messages)) {
		rec := s.messages[seq]
		h, err := nats.DecodeHeadersMsg(rec.Header)
		if err != nil {
			return fmt.Errorf("message %d: %w", seq, err)
		}
		if _, gone := s.gone[h.Get(headerToken)]; gone {
			continue
		}
		if last, err := lastOf(ctx, stream, rec.Subject); last != nil || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		h[headerExpected] = []string{"0"}
		_, err = r.q.store(ctx, &nats.Msg{Subject: rec.Subject, Header: h, Data: rec.Data}, false)
		if err != nil && !replaced(err) { // it was stored, and the answer lost
			return err
		}
		n++
	}
	if n > 0 {
		r.q.log.Info("queue: delayed messages that a power cut had taken are back", "stream", id.name, "messages", n)
	}
	return nil
}
