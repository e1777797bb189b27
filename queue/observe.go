package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/telemetry"
)

// Bounds of what one look at a server costs.
const (
	maxLooked  = 4 * maxWatched // streams: a topic has up to four
	maxGroups  = 256            // of all topics
	lookWithin = 2 * time.Second
)

// Observe tells how all topics of the server are doing, 256 at most with 256 groups in all.
func (q *Queue) Observe(ctx context.Context) ([]telemetry.Queue, error) {
	all, err := q.lookAtAll(ctx, nil)
	return all, explained(err)
}

// tell tells a hub of the topics: of all that an embedded server has, in the process that has it; of those that this process has opened on servers elsewhere. A guest
// tells what its senders met alone.
func (q *Queue) tell(ctx context.Context) []telemetry.Queue {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	mine := q.full.list()
	var all []telemetry.Queue
	var err error
	switch _, visits := q.redo.(guest); {
	case q.server != nil:
		all, err = q.lookAtAll(ctx, mine)
	case !visits && q.nc.IsConnected():
		all, err = q.lookAt(ctx, mine)
	}
	if err != nil {
		q.log.Debug("queue: the hub is not told of all topics", "error", err)
	}
	return q.withSenders(all, mine)
}

// withSenders adds what senders of this process met.
func (q *Queue) withSenders(all []telemetry.Queue, mine []*senders) []telemetry.Queue {
	for _, s := range mine {
		blocked, refused := s.take()
		i := slices.IndexFunc(all, func(o telemetry.Queue) bool { return o.Topic == s.topic && o.Created.UnixNano() == s.is.created })
		if i < 0 {
			if blocked == 0 && refused == 0 {
				continue
			}
			i = len(all)
			all = append(all, telemetry.Queue{Topic: s.topic, Created: time.Unix(0, s.is.created), Where: q.where, At: time.Now()})
		}
		all[i].Blocked, all[i].Refused = blocked, refused
	}
	return all
}

// lookAtAll looks at each topic that the server has, and forgets those of mine whose topic it has not.
func (q *Queue) lookAtAll(ctx context.Context, mine []*senders) ([]telemetry.Queue, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the list
	streams := map[string]*jetstream.StreamInfo{}
	list := q.js.ListStreams(ctx)
	for info := range list.Info() {
		if streams[info.Config.Name] = info; len(streams) >= maxLooked {
			break
		}
	}
	if err := list.Err(); err != nil && len(streams) < maxLooked {
		return nil, err
	}
	for _, s := range mine {
		if streams[s.is.name] != nil || len(streams) >= maxLooked {
			continue
		}
		if _, err := q.js.Stream(ctx, s.is.name); errors.Is(err, jetstream.ErrStreamNotFound) {
			q.full.drop(s)
		}
	}
	seen := looks{groups: maxGroups}
	for name, info := range streams {
		if info.Config.Metadata[schemaKey] == "" || len(seen.all) >= maxWatched {
			continue
		}
		if err := seen.add(q.look(ctx, info, streams[name+laterStreamEnd], streams[name+deadStreamEnd], seen.groups)); err != nil {
			return seen.all, err
		}
	}
	return seen.all, nil
}

// looks are topics that were looked at.
type looks struct {
	all    []telemetry.Queue
	groups int // for which there is room
}

// add adds one, unless it was deleted meanwhile.
func (l *looks) add(one telemetry.Queue, err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err == nil {
		l.groups -= len(one.Groups)
		l.all = append(l.all, one)
	}
	return err
}

// lookAt looks at the topics that this process has opened, and forgets those that are gone.
func (q *Queue) lookAt(ctx context.Context, mine []*senders) ([]telemetry.Queue, error) {
	seen := looks{groups: maxGroups}
	for _, s := range mine {
		info, err := q.streamsOf(ctx, s.is.name)
		if err != nil {
			return seen.all, err
		}
		if info[""] == nil {
			q.full.drop(s)
			continue
		}
		if err := seen.add(q.look(ctx, info[""], info[laterStreamEnd], info[deadStreamEnd], seen.groups)); err != nil {
			return seen.all, err
		}
	}
	return seen.all, nil
}

// streamsOf is what is known of a topic's streams, by their ends; none if there is no such topic.
func (q *Queue) streamsOf(ctx context.Context, topic string) (map[string]*jetstream.StreamInfo, error) {
	info := map[string]*jetstream.StreamInfo{}
	for _, end := range []string{"", laterStreamEnd, deadStreamEnd} {
		stream, err := q.js.Stream(ctx, topic+end)
		switch {
		case err == nil:
			info[end] = stream.CachedInfo()
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, err
		case end == "":
			return nil, nil
		}
	}
	return info, nil
}

// look tells of a topic of which some is known, and of up to so many groups. Those of its streams that are not there are nil.
func (q *Queue) look(ctx context.Context, info, later, dead *jetstream.StreamInfo, groups int) (telemetry.Queue, error) {
	s := &info.State
	one := telemetry.Queue{
		Topic: strings.ReplaceAll(info.Config.Name, "~", "."), Created: info.Created, Where: q.where, At: time.Now(), Asked: true,
		Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: info.Config.MaxBytes, Last: s.LastSeq,
	}
	if info.Cluster != nil {
		one.Leader = info.Cluster.Leader
	}
	if later != nil {
		one.Delayed = later.State.Msgs
	}
	stream, err := q.js.Stream(ctx, info.Config.Name)
	if err != nil {
		return one, err
	}
	known, err := q.lookAtGroups(ctx, stream, groups)
	if err != nil {
		return one, err
	}
	if dead != nil && dead.State.Msgs > 0 {
		if err := q.addDead(ctx, info.Config.Name, known); err != nil {
			return one, err
		}
	}
	for _, g := range known {
		one.Groups = append(one.Groups, *g)
	}
	slices.SortFunc(one.Groups, func(a, b telemetry.QueueGroup) int { return strings.Compare(a.Name, b.Name) })
	return one, nil
}

// lookAtGroups looks at the consumers of a topic, of which a group has one or one for each partition.
func (q *Queue) lookAtGroups(ctx context.Context, stream jetstream.Stream, most int) (map[string]*telemetry.QueueGroup, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	known := map[string]*telemetry.QueueGroup{}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		name, _, _ := strings.Cut(info.Name, "=")
		if info.Config.Durable == "" || !groupName.MatchString(name) {
			continue // it is somebody else's
		}
		g := known[name]
		if g == nil {
			if len(known) >= most {
				return known, nil
			}
			g = &telemetry.QueueGroup{Name: name}
			known[name] = g
		}
		oldest, err := q.oldest.age(ctx, stream, info)
		if err != nil {
			return nil, err
		}
		g.Lag += info.NumPending
		g.InFlight += uint64(info.NumAckPending)
		g.Retrying += uint64(info.NumRedelivered)
		g.Oldest = max(g.Oldest, oldest)
	}
	return known, list.Err()
}

// addDead adds how many dead letters each group has.
func (q *Queue) addDead(ctx context.Context, stream string, groups map[string]*telemetry.QueueGroup) error {
	s, err := q.js.Stream(ctx, stream+deadStreamEnd)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(deadSubject(stream, "*")))
	if err != nil {
		return err
	}
	for subject, n := range info.State.Subjects {
		if g := groups[strings.TrimPrefix(subject, deadSubject(stream, ""))]; g != nil {
			g.Dead = n
		}
	}
	return nil
}
