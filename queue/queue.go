package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/queue/embedded"
	"github.com/stile-ipc/stile/queue/internal/redo"
	"github.com/stile-ipc/stile/telemetry"
)

// Config says where a Queue keeps its messages. One of Dir and URL is set.
type Config struct {
	// Dir is the folder of an embedded server, made if it is not there, for this process alone.
	Dir string
	// MaxStore is how many bytes all topics of an embedded server may keep, those that they may and have not included, and 100 MiB for each
	// topic's dead letters; 0: 32 GiB. The disk needs a fifth more of what is kept, and 64 MiB.
	MaxStore int64
	// URL is that of a NATS server, or of several, parted by commas. Durability is then what the servers' sync_interval
	// makes it. Or it is unix: and the Dir of another process of the same user, whose embedded server is used as if it were this one's, all
	// levels of durability included, for as long as that process lives; when it comes back, this one goes on.
	URL string
	// Creds is a file with credentials for URL, as nsc writes them; empty: there are none, or they are in the URL.
	Creds string
	// Replicas is how many servers of a cluster have each stream that this queue makes, 0 to 5; 0: 1. With 3 one server can be away, with 5 two.
	// A stream that is there keeps what it has. An embedded server has the only copy.
	Replicas int
	// NATS has further options for the connection to URL, such as certificates.
	NATS []nats.Option
	// PolicyVersion tells the version of the policy in force, which messages then have in the header stile-policy; nil: they have none. With package policy it is
	// func() string { return p.Status().Version }.
	PolicyVersion func() string
	// Logger has what nobody can be told otherwise; nil: slog.Default.
	Logger *slog.Logger
}

// needLevel is the API level of JetStream that we need: that of 2.14.
const needLevel = 4

// Queue is a connection to a server, embedded or not. Its methods are safe for concurrent use.
type Queue struct {
	log    *slog.Logger
	nc     *nats.Conn
	js     jetstream.JetStream
	asker  *asker
	server *embedded.Server         // nil: there is none in this process
	dial   func() (net.Conn, error) // to an embedded server, here or in another process; nil: it is elsewhere
	redo   keeper                   // nil: durability is the server's
	host   *host                    // nil: there is no server here to have guests

	policy    func() string // the version in force; may be nil
	replicas  int           // of streams that are made
	creations creations
	batches   chan struct{} // one for each that is on its way

	counts counts
	full   fullTopics
	oldest oldestMessages
	where  string // its folder or URLs, as others are told
	told   func() // takes it from those that are asked for their topics
	once   sync.Once
	closed error
	now    func() time.Time // of delays

	mu     sync.Mutex
	line   *line             // on which messages come; nil: nobody has subscribed, or nats.go has that
	groups map[string]int    // subscriptions of this process; negative: one that is ordered
	movers map[string]*mover // by stream
}

// Open opens a queue. With Dir it starts the server, and puts into the streams again what a power cut has taken out of them; it
// returns ErrDamaged if that cannot be known. ctx is for this call alone.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	switch {
	case cfg.Dir == "" && cfg.URL == "":
		return nil, errors.New("queue: set Dir for an embedded server, or URL for others")
	case cfg.Dir != "" && cfg.URL != "":
		return nil, errors.New("queue: Dir and URL are both set: the one is for an embedded server, the other for others")
	case cfg.MaxStore < 0:
		return nil, fmt.Errorf("queue: MaxStore is %d", cfg.MaxStore)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.checkReplicas(); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{log: cfg.Logger, now: time.Now, policy: cfg.PolicyVersion, replicas: cfg.Replicas, groups: map[string]int{}, batches: make(chan struct{}, maxBatches)}
	if err := q.open(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("queue: %w", err), q.Close())
	}
	q.told = telemetry.Process().AddQueues(q.tell)
	return q, nil
}

func (q *Queue) open(ctx context.Context, cfg Config) (err error) {
	opts := []nats.Option{nats.MaxReconnects(-1)}
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	opts = append(opts, cfg.NATS...)
	if dir, visits := strings.CutPrefix(cfg.URL, "unix:"); visits {
		opts = append([]nats.Option{nats.ReconnectWait(againAfter)}, opts...)
		dir = strings.TrimPrefix(dir, "//")
		if q.nc, err = embedded.Visit(dir, opts...); err == nil {
			q.redo, q.dial = guest{q.nc}, func() (net.Conn, error) { return embedded.Dial(dir) }
			q.where = folderURL(dir)
		}
	} else if cfg.URL != "" {
		if q.nc, err = nats.Connect(cfg.URL, opts...); err != nil {
			if bad := new(url.Error); errors.As(err, &bad) { // which says parts of it, passwords too
				err = errors.New("it is none such as nats://user:password@host:4222, in which what is special is written as %40")
			}
			err = fmt.Errorf("%s: %w", withoutPasswords(cfg.URL), err)
		}
		q.where = withoutPasswords(cfg.URL)
	} else {
		q.server, err = embedded.Start(embedded.Config{Dir: cfg.Dir, MaxStore: cfg.MaxStore, Logger: cfg.Logger})
		if err == nil {
			q.dial, q.where = q.server.Dial, folderURL(cfg.Dir)
			q.nc, err = q.server.Connect()
		}
	}
	if err != nil {
		return err
	}
	if on, level := q.nc.ConnectedServerJetStream(); !on || level < needLevel {
		return fmt.Errorf("the server %s (NATS %s) has JetStream: %v, API level %d; needed is level %d, which NATS has from 2.14 on",
			withoutPasswords(q.nc.ConnectedUrl()), q.nc.ConnectedServerVersion(), on, level, needLevel)
	}
	if q.js, err = jetstream.New(q.nc); err != nil {
		return err
	}
	if q.asker, err = newAsker(q.nc); err != nil {
		return err
	}
	others := q.nc.ErrorHandler()
	q.nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		told := errors.Is(err, nats.ErrPermissionViolation) && (q.asker.denied(err) || q.creations.denied(err))
		if !told && others != nil {
			others(nc, sub, err)
		}
	})
	if q.server == nil {
		return nil
	}
	if err := q.openLog(ctx, filepath.Join(cfg.Dir, "redo")); err != nil {
		return err
	}
	if q.host, err = newHost(q); err != nil {
		return err
	}
	return q.server.OpenDoor() // not before: what guests store would pass for what the log is to put back
}

// folderURL is the URL of a folder, as guests have it.
func folderURL(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return "unix:" + dir
}

// withoutPasswords is a list of URLs as it may be shown.
func withoutPasswords(urls string) string {
	var all []string
	for one := range strings.SplitSeq(urls, ",") {
		if one = strings.TrimSpace(one); !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || u.User == nil && strings.Contains(one, "@") {
			all = append(all, "a URL that cannot be read")
			continue
		}
		if _, has := u.User.Password(); u.User != nil && !has {
			u.User = url.User("xxxxx") // a token
		}
		all = append(all, u.Redacted())
	}
	return strings.Join(all, ",")
}

// openLog opens the redo log and republishes what is missing.
func (q *Queue) openLog(ctx context.Context, dir string) error {
	missing := restorer{q: q, streams: map[identity]*restored{}}
	restoring := true
	log, err := redo.Open(redo.Config{Dir: dir, Checkpoint: func() error {
		if restoring { // all has been told
			restoring = false
			if err := missing.restore(ctx); err != nil {
				return err
			}
		}
		return q.server.Sync()
	}, Again: func() []redo.Record { return missing.again }}, missing.add)
	if log != nil {
		q.redo = logKeeper{log}
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w; messages with receipts may be missing in the topics, those of the last minutes before the damage; to go on without them, move the folder %s away", err, dir)
	}
	return err
}

// Close ends the connection, and the embedded server if there is one. What was published has its receipts; subscriptions must have been
// ended before.
func (q *Queue) Close() error {
	q.once.Do(func() {
		q.stopMovers()
		q.counts.close()
		if q.told != nil {
			q.told()
		}
		q.mu.Lock()
		l := q.line
		q.mu.Unlock()
		l.close()
		if q.nc != nil {
			q.nc.Close()
		}
		q.host.end()
		var errs []error
		if q.redo != nil {
			errs = append(errs, q.redo.close())
		}
		if q.server != nil {
			errs = append(errs, q.server.Close())
		}
		if err := errors.Join(errs...); err != nil {
			q.closed = fmt.Errorf("queue: %w", err)
		}
	})
	return q.closed
}

// messages returns the line of an embedded server, here or in another process; nil: it is a server elsewhere.
func (q *Queue) messages() (*line, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dial == nil || q.line != nil {
		return q.line, nil
	}
	var err error
	q.line, err = newLine(q.dial, int(q.nc.MaxPayload()), q.log)
	return q.line, err
}

// settle puts what was made on an embedded server, such as a stream, on disk.
func (q *Queue) settle(ctx context.Context) error {
	if g, visits := q.redo.(guest); visits {
		_, err := g.ask(ctx, hostRequest{Do: hostSettle})
		return err
	}
	if q.server == nil {
		return nil
	}
	return q.server.Sync()
}

// health tells what is wrong with the embedded server, if anything.
func (q *Queue) health() error {
	if q.server == nil {
		return nil
	}
	return q.server.Health()
}

const (
	maxAsync     = 4096        // publishes under way
	answerWithin = time.Second // of one try to publish
	// publishLimit is of all of them, if the caller has no deadline. Servers of a cluster elect a new leader in up to 10 s.
	publishLimit          = 10 * time.Second
	publishLimitElsewhere = 30 * time.Second
)

// askWithin is how long a server is asked to take the same message: it knows its ID longer.
const askWithin = idWindow - 20*time.Second

// publishLimit is how long a server is asked to take a message, if the caller has no deadline.
func (q *Queue) publishLimit() time.Duration {
	if q.redo == nil {
		return publishLimitElsewhere
	}
	return publishLimit
}

// within bounds what the caller has not bounded.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
