package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"
	_ "modernc.org/sqlite"

	"github.com/stile-ipc/stile/queue"
)

func allPeers() []peer {
	all := []peer{
		{"stile Synced", "on disk", func(dir string) (instance, error) { return openStile(dir, queue.Synced) }},
		{"nats.go, sync always", "on disk", func(dir string) (instance, error) { return openRaw(dir, true) }},
		{"SQLite WAL, group commit", "on disk", openSQLite},
		{"stile Bounded", "on disk in 100 ms", func(dir string) (instance, error) { return openStile(dir, queue.Bounded) }},
		{"stile Buffered", "the server has it", func(dir string) (instance, error) { return openStile(dir, queue.Buffered) }},
		{"nats.go, lazy sync", "the server has it", func(dir string) (instance, error) { return openRaw(dir, false) }},
	}
	if hasRedis() {
		all = append(all, peer{"Redis stream, sync always", "on disk", openRedis})
	} else {
		fmt.Fprintln(os.Stderr, "redis-server is not here, and not compared with (Debian: redis-server)")
	}
	if hasRabbit() {
		all = append(all, peer{"RabbitMQ, quorum queue", "on disk", openRabbit})
	} else {
		fmt.Fprintln(os.Stderr, "rabbitmq-server is not here, and not compared with (Debian: rabbitmq-server)")
	}
	return all
}

// stile is ours.
type stile struct {
	q     *queue.Queue
	topic *queue.Topic[*wrapperspb.BytesValue]
}

func openStile(dir string, d queue.Durability) (instance, error) {
	q, err := queue.Open(context.Background(), queue.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	t, err := queue.NewTopic[*wrapperspb.BytesValue](q, "bench", queue.Durable(d), queue.Keep(time.Hour, 4<<30))
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return &stile{q, t}, nil
}

func (s *stile) publish(ctx context.Context, body []byte) error {
	_, err := s.topic.Publish(ctx, wrapperspb.Bytes(body))
	return err
}

func (s *stile) subscribe(ctx context.Context, handle func([]byte)) (func(), error) {
	sub, err := s.topic.Subscribe(ctx, "bench", func(_ context.Context, m *queue.Msg[*wrapperspb.BytesValue]) error {
		handle(m.Value.GetValue())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = sub.Drain(ctx) }, nil
}

func (s *stile) close() error { return s.q.Close() }

// raw is JetStream by nats.go, embedded as ours is.
type raw struct {
	s  *server.Server
	nc *nats.Conn
	js jetstream.JetStream
}

func openRaw(dir string, always bool) (instance, error) {
	s, err := server.NewServer(&server.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: 8 << 30, JetStreamMaxMemory: 64 << 20,
		DisableJetStreamBanner: true, SyncAlways: always,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return nil, err
	}
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench"}, Storage: jetstream.FileStorage, MaxBytes: 4 << 30, MaxAge: time.Hour})
	return &raw{s, nc, js}, err
}

func (r *raw) publish(ctx context.Context, body []byte) error {
	f, err := r.js.PublishAsync("bench", body)
	if err != nil {
		return err
	}
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *raw) subscribe(ctx context.Context, handle func([]byte)) (func(), error) {
	c, err := r.js.CreateOrUpdateConsumer(ctx, "bench", jetstream.ConsumerConfig{Durable: "bench", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
	if err != nil {
		return nil, err
	}
	cc, err := c.Consume(func(m jetstream.Msg) {
		handle(m.Data())
		_ = m.Ack()
	}, jetstream.PullMaxMessages(500))
	if err != nil {
		return nil, err
	}
	return func() { cc.Drain(); <-cc.Closed() }, nil
}

func (r *raw) close() error {
	r.nc.Close()
	r.s.Shutdown()
	r.s.WaitForShutdown()
	return nil
}

// sqlite is a table that one goroutine writes to: what waits at the same time is one transaction.
type sqlite struct {
	db    *sql.DB
	inbox chan insertion
	done  chan struct{}
	from  int64 // the last row handled
}

type insertion struct {
	body []byte
	err  chan error
}

func openSQLite(dir string) (instance, error) {
	db, err := sql.Open("sqlite", "file:"+dir+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("CREATE TABLE q (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB); CREATE TABLE acked (id INTEGER)"); err != nil {
		return nil, err
	}
	s := &sqlite{db: db, inbox: make(chan insertion, 1024), done: make(chan struct{})}
	go s.write()
	return s, nil
}

func (s *sqlite) write() {
	defer close(s.done)
	for first := range s.inbox {
		group := []insertion{first}
	more:
		for len(group) < 1000 {
			select {
			case next, open := <-s.inbox:
				if !open {
					break more
				}
				group = append(group, next)
			default:
				break more
			}
		}
		err := s.insert(group)
		for _, i := range group {
			i.err <- err
		}
	}
}

func (s *sqlite) insert(group []insertion) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	st, err := tx.Prepare("INSERT INTO q (body) VALUES (?)")
	if err != nil {
		return err
	}
	for _, i := range group {
		if _, err := st.Exec(i.body); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *sqlite) publish(_ context.Context, body []byte) error {
	i := insertion{body, make(chan error, 1)}
	s.inbox <- i
	return <-i.err
}

// subscribe asks for rows every millisecond while there are none, and notes in a transaction how far it is.
func (s *sqlite) subscribe(ctx context.Context, handle func([]byte)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			n, err := s.some(ctx, handle)
			if err != nil || n == 0 {
				wait(ctx, time.Millisecond)
			}
		}
	})
	return func() { cancel(); wg.Wait() }, nil
}

func (s *sqlite) some(ctx context.Context, handle func([]byte)) (int, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, body FROM q WHERE id > ? ORDER BY id LIMIT 500", s.from)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&s.from, &body); err != nil {
			return n, err
		}
		handle(body)
		n++
	}
	if n == 0 {
		return 0, rows.Err()
	}
	_, err = s.db.ExecContext(ctx, "INSERT INTO acked (id) VALUES (?)", s.from)
	return n, err
}

func (s *sqlite) close() error {
	close(s.inbox)
	<-s.done
	return s.db.Close()
}
