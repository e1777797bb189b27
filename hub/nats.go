package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/queue"
	"github.com/stile-ipc/stile/queue/embedded"
)

// DefaultNATSMaxBytes is how many bytes the topics of the hub's NATS may keep together.
const DefaultNATSMaxBytes = 8 << 30

// hubService is how the hub is called where processes are.
const hubService = store.OwnService

// servers are the NATS servers that a hub looks at: one of its own, and one elsewhere.
type servers struct {
	cfg    Config
	self   *hubpb.Process
	told   *queues
	server *embedded.Server // nil: there is none
	own    *queue.Queue
	cancel context.CancelFunc
	done   sync.WaitGroup
	away   trouble

	mu        sync.Mutex
	elsewhere *queue.Queue // nil: it cannot be reached, or there is none
}

// openServers starts the hub's NATS, if it is to have one, and looks at it and at the other one.
func openServers(ctx context.Context, cfg Config, a access, self *hubpb.Process, told *queues) (_ *servers, err error) {
	s := &servers{cfg: cfg, self: self, told: told, cancel: func() {}}
	if cfg.NATS != "" && cfg.NATS != Off {
		if err := s.start(ctx, a); err != nil {
			return nil, errors.Join(fmt.Errorf("NATS: %w", err), s.close())
		}
	}
	if s.own == nil && cfg.NATSURL == "" {
		return s, nil
	}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.done.Go(func() { s.look(ctx) })
	return s, nil
}

func (s *servers) start(ctx context.Context, a access) error {
	at, err := net.ResolveTCPAddr("tcp", s.cfg.NATS)
	if err != nil {
		return err
	}
	if err := a.reachable(at); err != nil {
		return fmt.Errorf("on %s: %w", at, err)
	}
	cfg := embedded.Config{Dir: filepath.Join(s.cfg.Dir, "nats"), MaxStore: s.cfg.NATSMaxBytes, Listen: at.String(), TLS: s.cfg.TLS, SyncAlways: true, Logger: s.cfg.Logger}
	if len(a.tokens) > 0 {
		cfg.Allows = a.publishes
	}
	if s.server, err = embedded.Start(cfg); err != nil {
		return err
	}
	s.own, err = queue.Open(ctx, queue.Config{URL: "nats://" + s.server.Addr().String(), NATS: s.server.Options(), Logger: s.cfg.Logger})
	return err
}

// look tells of the topics of both, a window after the other.
func (s *servers) look(ctx context.Context) {
	t := time.NewTicker(store.Finest)
	defer t.Stop()
	for {
		if s.own != nil {
			if err := s.observe(ctx, s.own); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("hub: its NATS does not tell of topics", "error", err)
			}
		}
		if s.cfg.NATSURL != "" {
			err := s.lookElsewhere(ctx)
			if ctx.Err() != nil {
				return
			}
			s.away.is(s.cfg.Logger, "hub: the NATS server elsewhere cannot be asked, which is tried again", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *servers) lookElsewhere(ctx context.Context) error {
	s.mu.Lock()
	q := s.elsewhere
	s.mu.Unlock()
	if q == nil {
		var err error
		if q, err = queue.Open(ctx, queue.Config{URL: s.cfg.NATSURL, Creds: s.cfg.NATSCreds, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			return err
		}
		s.mu.Lock()
		s.elsewhere = q
		s.mu.Unlock()
	}
	return s.observe(ctx, q)
}

// observe has the hub know how a server's topics are doing.
func (s *servers) observe(ctx context.Context, q *queue.Queue) error {
	ctx, cancel := context.WithTimeout(ctx, store.Finest/2)
	defer cancel()
	all, err := q.Observe(ctx)
	var seen []*hubpb.Queue
	groups := maxReportGroups
	for i := range all {
		one := agent.Queue(&all[i], groups)
		groups -= len(one.GetGroups())
		seen = append(seen, one)
	}
	if bad := checkQueues(seen); bad != nil {
		return errors.Join(err, bad)
	}
	s.told.take(s.self, store.Finest, seen)
	return err
}

// all are those that can be asked now. A nil *servers has none.
func (s *servers) all() (all []*queue.Queue) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range []*queue.Queue{s.own, s.elsewhere} {
		if q != nil {
			all = append(all, q)
		}
	}
	return all
}

// addr is where the hub's own listens; empty: there is none.
func (s *servers) addr() string {
	if s == nil || s.server == nil || s.server.Addr() == nil {
		return ""
	}
	return s.server.Addr().String()
}

// close ends both connections, and the hub's own server.
func (s *servers) close() error {
	if s == nil {
		return nil
	}
	s.cancel()
	s.done.Wait()
	var errs []error
	for _, q := range s.all() {
		errs = append(errs, q.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}
