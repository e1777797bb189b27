package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// identity tells streams apart, also one from another that had its name before.
type identity struct {
	name    string
	created int64 // ns since 1970
}

func identityOf(info *jetstream.StreamInfo) identity {
	return identity{info.Config.Name, info.Created.UnixNano()}
}

// restorer puts back what streams had acknowledged and have no more.
type restorer struct {
	q       *Queue
	streams map[identity]*restored
	again   []redo.Record // of what was deleted now: the server does not have it on disk at once
}

// restored is what the log says of a stream.
type restored struct {
	messages map[uint64]redo.Record
	deleted  map[string]uint64      // sequences by ID: one can be another message's after a power cut
	gone     map[string]redo.Record // delayed messages, by token
}

// add takes in a record of the log.
func (r *restorer) add(rec redo.Record) error {
	id := identity{rec.Stream, rec.Created}
	s := r.streams[id]
	if s == nil {
		s = &restored{messages: map[uint64]redo.Record{}, deleted: map[string]uint64{}, gone: map[string]redo.Record{}}
		r.streams[id] = s
	}
	switch {
	case rec.Deleted && isLater(rec.Stream):
		s.gone[string(rec.Data)] = rec
	case rec.Deleted:
		s.deleted[string(rec.Data)] = rec.Seq
	default:
		s.messages[rec.Seq] = rec
	}
	return nil
}

// restore publishes again what is missing.
func (r *restorer) restore(ctx context.Context) error {
	for id, s := range r.streams {
		if err := r.stream(ctx, id, s); err != nil {
			return fmt.Errorf("restoring the stream %s: %w", id.name, err)
		}
	}
	return nil
}

func (r *restorer) stream(ctx context.Context, id identity, s *restored) error {
	stream, err := r.q.js.Stream(ctx, id.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // it was deleted: one that was made is on disk
	}
	if err != nil {
		return err
	}
	if isLater(id.name) {
		return r.later(ctx, stream, id, s)
	}
	info, err := stream.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return err
	}
	if identityOf(info) != id {
		return nil
	}
	for msgID, seq := range s.deleted {
		m, err := stream.GetMsg(ctx, seq)
		if err == nil && m.Header.Get(headerID) == msgID {
			r.again = append(r.again, id.deleted(seq, m.Subject, msgID))
			err = removeMsg(ctx, stream, seq)
		}
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
	}
	n := 0
	for _, seq := range slices.Sorted(maps.Keys(s.messages)) {
		if !missing(&info.State, seq) {
			continue
		}
		rec := s.messages[seq]
		h, err := nats.DecodeHeadersMsg(rec.Header)
		if err != nil {
			return fmt.Errorf("message %d: %w", seq, err)
		}
		if _, gone := s.deleted[h.Get(headerID)]; gone {
			continue
		}
		if _, err := r.q.store(ctx, &nats.Msg{Subject: rec.Subject, Header: h, Data: rec.Data}, false); err != nil {
			return err
		}
		n++
	}
	if n > 0 {
		r.q.log.Info("queue: messages that a power cut had taken are back", "stream", id.name, "messages", n)
	}
	return nil
}

// missing tells whether a message that was stored is not there, and did not age out.
func missing(s *jetstream.StreamState, seq uint64) bool {
	if seq > s.LastSeq {
		return true
	}
	_, gone := slices.BinarySearch(s.Deleted, seq)
	return gone && seq >= s.FirstSeq
}
